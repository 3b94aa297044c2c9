"""Restoring as a person does it: `maand-catalog restore` and `new-epoch` as processes, on files of every kind."""

import fcntl
import os
import random
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import make_url

from maand_catalog.database.database import Database
from maand_catalog.database.migrate import apply_migrations, known_revisions
from maand_catalog.service import start_catalog
from maand_catalog.store.runs.epochs import COPY_MARK, is_unserved_copy, read_epoch
from maand_contracts.catalog.v1 import run_pb2 as pb
from tests.contracts.catalog.run_builders import COMMAND, a_bucket, a_create
from tests.contracts.catalog.run_verbs import create, get, must_claim
from tests.contracts.catalog.serving import ServedCatalog, serve, settings_for
from tests.contracts.catalog.test_backup import run as run_with_url
from tests.testbed.postgres import PostgresCluster

pytestmark = pytest.mark.timeout(180)


@dataclass(frozen=True, kw_only=True)
class Said:
    """How a command ended and what it said."""

    code: int
    err: str


@dataclass(frozen=True, kw_only=True)
class Place:
    """A bucket directory with a database, and the program in it."""

    directory: Path

    @property
    def database(self) -> Path:
        return self.directory / "data/maand.db"

    @property
    def url(self) -> str:
        return f"sqlite:///{self.database}"

    def run(self, *arguments: object, cwd: Path | None = None, **environment: str) -> Said:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("MAAND_")}
        ended = subprocess.run(
            [sys.executable, "-m", "maand_catalog", *map(str, arguments)],
            cwd=cwd or self.directory,
            env={**kept, **environment},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert "Traceback" not in ended.stderr, ended.stderr
        return Said(code=ended.returncode, err=ended.stderr)

    def must(self, *arguments: object) -> str:
        said = self.run(*arguments)
        assert said.code == 0, said.err
        return said.err

    def kept(self) -> list[Path]:
        return sorted(self.database.parent.glob("maand.db.before-restore-*"))

    def leftovers(self) -> list[str]:
        """Everything in the data directory that a restore should not leave there."""
        names = {path.name for path in self.database.parent.iterdir()} - {path.name for path in self.kept()}
        return sorted(names - {"maand.db", "maand.db.lock"})

    def ask(self, query: str, file: Path | None = None) -> Any:
        with closing(sqlite3.connect(file or self.database)) as connection:
            return connection.execute(query).fetchone()[0]


@pytest.fixture
def place(tmp_path: Path, sqlite_template: Path) -> Place:
    directory = tmp_path / "bucket"
    (directory / "data").mkdir(mode=0o700, parents=True)
    (directory / "maand.conf").write_text('bucket_id = "b"\n')
    shutil.copyfile(sqlite_template, directory / "data/maand.db")
    return Place(directory=directory)


async def runs_in_every_open_state(catalog: ServedCatalog) -> list[pb.Run]:
    """Leave a running and a waiting deploy, and a command that is running."""
    bucket_id = await a_bucket(catalog.database)
    running = await create(catalog, a_create(bucket_id))
    await must_claim(catalog)
    waiting = await create(catalog, a_create(bucket_id, lock_timeout_seconds=600))
    command = await create(catalog, a_create(bucket_id, COMMAND))
    await must_claim(catalog)
    return [running, waiting, command]


async def a_busy_backup(place: Place, tmp_path: Path) -> tuple[Path, list[pb.Run]]:
    """Back the database up while runs are open, by the command in the bucket's directory; then let them be as they are."""
    database = await Database.open(place.url)
    async with serve(database, tmp_path) as catalog:
        runs = await runs_in_every_open_state(catalog)
        place.must("backup", tmp_path / "backup.db")
    await database.close()
    return tmp_path / "backup.db", runs


async def states(place: Place, tmp_path: Path, runs: list[pb.Run]) -> list[pb.RunState.ValueType]:
    """Serve the database as a start does, see that nothing can be claimed that was open, and return how the runs are."""
    running = await start_catalog(settings_for(tmp_path, listen=f"unix:{tmp_path}/again.sock", database_url=place.url))
    try:
        async with serve(running.database, tmp_path) as catalog:
            fresh = await create(catalog, a_create(runs[0].bucket_id))
            assert (await must_claim(catalog)).run_id == fresh.run_id, "the bucket is free, and only what is new is claimed"
            return [(await get(catalog, run)).state for run in runs]
    finally:
        await running.stop()


async def test_restore_puts_the_backup_in_place_ends_what_was_open_and_keeps_what_was_there(place: Place, tmp_path: Path) -> None:
    backup, runs = await a_busy_backup(place, tmp_path)
    made = backup.read_bytes()
    with closing(sqlite3.connect(place.database)) as connection:
        connection.executescript("CREATE TABLE of_later (x); INSERT INTO of_later VALUES (7)")

    said = place.must("restore", backup)

    for run in runs:
        assert run.run_id in said
    [kept] = place.kept()
    assert str(kept) in said
    assert place.ask("SELECT x FROM of_later", kept) == 7
    assert place.ask("SELECT count(*) FROM sqlite_master WHERE name = 'of_later'") == 0
    assert place.ask("SELECT count(*) FROM runs WHERE finished_at IS NULL") == 0
    assert place.ask("PRAGMA user_version") == 0
    assert place.database.stat().st_mode & 0o777 == 0o600
    assert place.leftovers() == []
    assert backup.read_bytes() == made
    epoch = place.ask("SELECT epoch FROM database_facts")
    assert await states(place, tmp_path, runs) == [pb.RUN_STATE_FAILED] * 3
    assert place.ask("SELECT epoch FROM database_facts") == epoch, "one restore, one epoch"


async def test_the_same_backup_restored_again_begins_a_larger_epoch(place: Place, tmp_path: Path) -> None:
    backup, _ = await a_busy_backup(place, tmp_path)
    epochs = []
    for _ in range(3):
        place.must("restore", backup)
        epochs.append(place.ask("SELECT epoch FROM database_facts"))
    assert epochs == sorted(set(epochs))
    assert len(place.kept()) == 3


async def test_after_a_clock_that_was_set_back_restore_goes_above_the_replaced_database(place: Place, tmp_path: Path) -> None:
    place.must("backup", tmp_path / "copy.db")
    place.must("new-epoch", "--above", 90_000_000_000)
    place.must("restore", tmp_path / "copy.db")
    assert place.ask("SELECT epoch FROM database_facts") == 90_000_000_002


async def test_a_copy_put_back_by_hand_ends_what_was_open_at_the_first_start_and_only_then(place: Place, tmp_path: Path) -> None:
    backup, runs = await a_busy_backup(place, tmp_path)
    for beside in place.database.parent.glob("maand.db*"):
        beside.unlink()
    shutil.copyfile(backup, place.database)
    assert await states(place, tmp_path, runs) == [pb.RUN_STATE_FAILED] * 3
    epoch, left = (
        place.ask(f"SELECT {what}") for what in ("epoch FROM database_facts", "count(*) FROM runs WHERE finished_at IS NULL")
    )
    assert (left, place.ask("PRAGMA user_version")) == (1, 0), "the fresh run is open: this is no copy any more"
    assert await states_after_a_second_start(place, tmp_path) == (epoch, 1)


async def states_after_a_second_start(place: Place, tmp_path: Path) -> tuple[object, object]:
    running = await start_catalog(settings_for(tmp_path, listen=f"unix:{tmp_path}/third.sock", database_url=place.url))
    await running.stop()
    epoch = place.ask("SELECT epoch FROM database_facts")
    return epoch, place.ask("SELECT count(*) FROM runs WHERE finished_at IS NULL")


async def test_the_log_tells_which_runs_ended_with_the_first_start(
    place: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    backup, runs = await a_busy_backup(place, tmp_path)
    shutil.copyfile(backup, place.database)
    await states(place, tmp_path, runs)
    told = capsys.readouterr().out
    assert "this database is a backup that was put back" in told
    for run in runs:
        assert run.run_id in told.partition("this database is a backup")[2]


async def test_a_backup_does_not_mark_what_is_backed_up_and_a_copy_of_a_copy_is_one(place: Place, tmp_path: Path) -> None:
    place.must("backup", tmp_path / "one.db")
    assert place.ask("PRAGMA user_version") == 0
    shutil.copyfile(tmp_path / "one.db", place.database)
    place.must("migrate")  # opens it, serves nothing
    place.must("backup", tmp_path / "two.db")
    for file in (place.database, tmp_path / "one.db", tmp_path / "two.db"):
        assert place.ask("PRAGMA user_version", file) == COPY_MARK


async def test_new_epoch_in_a_bucket_ends_what_was_open_in_a_plain_copy(place: Place, tmp_path: Path) -> None:
    """`cp data/maand.db` while stopped leaves no mark."""
    database = await Database.open(place.url)
    async with serve(database, tmp_path) as catalog:
        runs = await runs_in_every_open_state(catalog)
    await database.close()
    said = place.must("new-epoch")
    for run in runs:
        assert run.run_id in said
    assert "no run was open" in place.must("new-epoch")
    assert await states(place, tmp_path, runs) == [pb.RUN_STATE_FAILED] * 3


async def test_a_database_that_was_lost_whole_is_restored_from_anywhere_below_the_bucket(place: Place, tmp_path: Path) -> None:
    place.must("backup", tmp_path / "copy.db")
    shutil.rmtree(place.database.parent)
    below = place.directory / "workspace/jobs"
    below.mkdir(parents=True)
    said = place.run("restore", tmp_path / "copy.db", cwd=below)
    assert said.code == 0, said.err
    assert (place.kept(), place.leftovers()) == ([], [])
    assert place.database.parent.stat().st_mode & 0o777 == 0o700


async def test_a_log_left_by_a_killed_catalog_is_never_beside_the_restored_database(place: Place, tmp_path: Path) -> None:
    place.must("backup", tmp_path / "copy.db")
    killed = sqlite3.connect(place.database)
    killed.execute("PRAGMA journal_mode=WAL")
    killed.execute("CREATE TABLE in_the_log (x)")
    killed.execute("INSERT INTO in_the_log VALUES (7)")
    killed.commit()
    aside = tmp_path / "as it was when it was killed"
    shutil.copytree(place.database.parent, aside)
    killed.close()
    shutil.rmtree(place.database.parent)
    aside.rename(place.database.parent)
    assert place.database.with_name("maand.db-wal").stat().st_size > 0

    place.must("restore", tmp_path / "copy.db")

    assert place.leftovers() == []
    assert place.ask("PRAGMA integrity_check") == "ok"
    assert place.ask("SELECT count(*) FROM sqlite_master WHERE name = 'in_the_log'") == 0
    [kept] = place.kept()
    assert place.ask("SELECT x FROM in_the_log", kept) == 7, "what was acknowledged is in the replaced one"


async def test_a_broken_database_is_replaced_and_kept_with_all_its_parts(place: Place, tmp_path: Path) -> None:
    place.must("backup", tmp_path / "copy.db")
    place.database.write_bytes(b"page after page of nonsense" * 1000)
    place.database.with_name("maand.db-wal").write_bytes(b"a log")
    place.must("restore", tmp_path / "copy.db")
    assert place.ask("PRAGMA integrity_check") == "ok"
    assert place.leftovers() == []
    assert [path.name.rpartition("Z")[2] for path in place.kept()] == ["", "-wal"]
    assert place.kept()[0].read_bytes().startswith(b"page after page")


async def test_three_files_copied_while_stopped_by_a_kill_are_restored_with_what_is_in_the_log(
    place: Place, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    writing = sqlite3.connect(place.database)
    writing.execute("PRAGMA journal_mode=WAL")
    writing.execute("CREATE TABLE in_the_log (x)")
    writing.commit()
    shutil.copytree(place.database.parent, copy)
    writing.close()
    assert (copy / "maand.db-wal").stat().st_size > 0
    (copy / "maand.db.lock").touch()
    place.must("restore", copy / "maand.db")
    assert place.ask("SELECT count(*) FROM sqlite_master WHERE name = 'in_the_log'") == 1


def nonsense(file: Path) -> None:
    file.write_bytes(random.Random(7).randbytes(20_000))


def truncated(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def with_a_flipped_page(file: Path) -> None:
    with closing(sqlite3.connect(file)) as connection:
        page = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'ix_runs_active'").fetchone()[0]
        size = connection.execute("PRAGMA page_size").fetchone()[0]
    content = bytearray(file.read_bytes())
    content[(page - 1) * size : page * size] = os.urandom(size)
    file.write_bytes(content)


def of_another_program(file: Path) -> None:
    file.unlink()
    with closing(sqlite3.connect(file)) as connection:
        connection.executescript("CREATE TABLE cookies (x); CREATE TABLE alembic_version (version_num)")


def of_a_newer_maand(file: Path) -> None:
    with closing(sqlite3.connect(file)) as connection:
        connection.executescript("UPDATE alembic_version SET version_num = '9999'")


def gone(file: Path) -> None:
    file.unlink()


def a_directory(file: Path) -> None:
    file.unlink()
    file.mkdir()


def a_pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def empty(file: Path) -> None:
    file.write_bytes(b"")


BAD = [
    (gone, "there is no file"),
    (a_directory, "is no file"),
    (a_pipe, "is no file"),
    (empty, "is no SQLite database"),
    (nonsense, "is no SQLite database"),
    (truncated, "backup.db "),
    (with_a_flipped_page, "backup.db "),
    (of_another_program, "is no database of maand"),
    (of_a_newer_maand, f"the database has schema 9999, this maand knows {known_revisions()[-1]}"),
]


NO_FILE = (gone, a_directory, a_pipe)


@pytest.mark.parametrize(("spoil", "said"), BAD, ids=[spoil.__name__ for spoil, _ in BAD])
async def test_a_bad_backup_is_refused_and_nothing_changes(place: Place, tmp_path: Path, spoil: object, said: str) -> None:
    backup = tmp_path / "backup.db"
    place.must("backup", backup)
    assert callable(spoil)
    spoil(backup)
    before = place.database.read_bytes()
    refused = place.run("restore", backup)
    assert refused.code == 1
    assert said in refused.err
    assert "help: " in refused.err
    assert place.database.read_bytes() == before
    assert (place.kept(), place.leftovers()) == ([], [])


@pytest.mark.parametrize(("spoil", "said"), BAD[:-1], ids=[spoil.__name__ for spoil, _ in BAD[:-1]])
async def test_new_epoch_refuses_what_is_no_sound_database(place: Place, spoil: object, said: str) -> None:
    assert callable(spoil)
    spoil(place.database)
    refused = place.run("new-epoch", MAAND_DATABASE_URL=place.url)
    assert refused.code == 1
    assert ("there is no database" if spoil in NO_FILE else said.replace("backup.db", "maand.db")) in refused.err


async def test_a_database_that_is_served_is_neither_replaced_nor_given_an_epoch(place: Place, tmp_path: Path) -> None:
    place.must("backup", tmp_path / "copy.db")
    database = await Database.open(place.url)
    for command in (["restore", tmp_path / "copy.db"], ["new-epoch"]):
        refused = place.run(*command)
        assert refused.code == 1
        assert f"is open in process {os.getpid()}" in refused.err
        assert "maand services stop" in refused.err
    await database.close()
    assert (place.kept(), place.leftovers()) == ([], [])


async def test_what_another_catalog_serves_is_no_backup_nor_is_the_database_itself(place: Place, tmp_path: Path) -> None:
    served = tmp_path / "served.db"
    shutil.copyfile(place.database, served)
    with (tmp_path / "served.db.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "served.db is open in process" in place.run("restore", served).err
    (tmp_path / "link.db").symlink_to(place.database)
    for itself in (place.database, tmp_path / "link.db"):
        assert "is the database itself" in place.run("restore", itself).err
    assert place.kept() == []


@pytest.mark.parametrize("command", [["restore", "copy.db"], ["new-epoch"], ["token", "list"], ["migrate"]])
async def test_a_place_that_cannot_be_written_is_named(place: Place, command: list[str]) -> None:
    place.must("backup", "copy.db")
    refused = place.run(*command, MAAND_DATABASE_URL="sqlite:////proc/maand/maand.db")
    assert refused.code == 1
    assert "/proc/maand" in refused.err


async def test_a_database_behind_a_link_is_replaced_where_it_lies(place: Place, tmp_path: Path) -> None:
    place.must("backup", tmp_path / "copy.db")
    elsewhere = tmp_path / "disk"
    elsewhere.mkdir()
    place.database.rename(elsewhere / "maand.db")
    place.database.symlink_to(elsewhere / "maand.db")
    place.must("restore", tmp_path / "copy.db")
    assert place.database.is_symlink()
    assert len(list(elsewhere.glob("maand.db.before-restore-*"))) == 1
    assert place.ask("PRAGMA integrity_check") == "ok"


async def test_a_backup_with_an_older_schema_is_brought_up_to_date(place: Place, tmp_path: Path) -> None:
    old = tmp_path / "old.db"
    older = await Database.open(f"sqlite:///{old}")
    await older.write(lambda tx: apply_migrations(tx.connection, "0007"))
    await older.close()
    assert f"(schema {known_revisions()[-1]})" in place.must("restore", old)
    assert place.ask("SELECT count(*) FROM database_facts") == 1
    shutil.copyfile(old, place.database)
    place.must("backup", tmp_path / "marked.db")
    assert place.ask("PRAGMA user_version", tmp_path / "marked.db") == COPY_MARK, "a backup before an upgrade is marked too"


async def test_which_database_is_meant_without_the_variable(place: Place, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    for command in (["backup", "x.db"], ["new-epoch"], ["migrate"], ["token", "list"], ["restore", "x.db"]):
        refused = place.run(*command, cwd=outside)
        assert (refused.code, "MAAND_DATABASE_URL is not set" in refused.err, "--bucket DIR" in refused.err) == (1, True, True)
        assert "is no bucket" in place.run(*command, "--bucket", outside, cwd=outside).err
    assert place.run("backup", "one.db", "--bucket", place.directory, cwd=outside).code == 0
    assert place.run("backup", "two.db", cwd=outside, MAAND_BUCKET=str(place.directory)).code == 0
    assert place.run("token", "list", "--bucket", place.directory, cwd=outside).code == 0
    other = f"sqlite:///{outside}/one.db"
    assert place.run("new-epoch", cwd=place.directory, MAAND_DATABASE_URL=other).code == 0, "the variable goes before the place"
    assert place.ask("SELECT count(*) FROM database_facts") == 0
    assert place.run("new-epoch", "--bucket", place.directory, MAAND_DATABASE_URL=other).code == 0, "the option before both"
    assert place.ask("SELECT count(*) FROM database_facts") == 1


@pytest.mark.parametrize("url", ["nonsense", "mysql://me:hunter2@host/x", "postgresql://me:hunter2@host:port/x", "sqlite:///"])
async def test_a_url_of_no_known_database_is_refused_without_its_password(place: Place, url: str) -> None:
    for command in (["new-epoch"], ["restore", "x.db"], ["backup", "x.db"], ["migrate"]):
        refused = place.run(*command, MAAND_DATABASE_URL=url)
        assert (refused.code, "help: " in refused.err, "hunter2" in refused.err) == (1, True, False)


async def test_no_database_is_made_by_mistake_in_a_bucket_whose_services_are_elsewhere(place: Place) -> None:
    place.database.unlink()
    for command in (["token", "create", "--role", "viewer", "--name", "x"], ["new-epoch"], ["migrate"], ["backup", "x"]):
        refused = place.run(*command)
        assert (refused.code, "there is no database" in refused.err) == (1, True)
    assert not place.database.exists()


@pytest.mark.parametrize("epoch", ["-1", "x", "", "1.5", "9" * 30])
async def test_an_epoch_that_is_none_is_wrong_usage(place: Place, epoch: str) -> None:
    refused = place.run("new-epoch", f"--above={epoch}")
    assert refused.code == 2
    assert "is no epoch" in refused.err


async def test_a_restored_postgresql_dump_gets_its_epoch_by_the_command(
    postgres: PostgresCluster, postgres_url: str, tmp_path: Path
) -> None:
    database = await Database.open(postgres_url)
    async with serve(database, tmp_path) as catalog:
        runs = await runs_in_every_open_state(catalog)
    await database.close()
    dump = tmp_path / "maand.dump"
    tools = {name: str(postgres.binaries / name) for name in ("pg_dump", "pg_restore")}
    dumped = await run_with_url(tools["pg_dump"], "--format=custom", f"--file={dump}", f"--dbname={postgres_url}")
    assert dumped.returncode == 0, dumped.stderr
    name = f"{make_url(postgres_url).database}_restored"
    url = postgres.create_database(name)
    restoring = await run_with_url(tools["pg_restore"], "--exit-on-error", "--no-owner", f"--dbname={url}", str(dump))
    assert restoring.returncode == 0, restoring.stderr

    refused = await run_with_url(sys.executable, "-m", "maand_catalog", "restore", str(dump), url=url)
    assert (refused.returncode, "pg_restore, then `maand-catalog new-epoch`" in refused.stderr) == (1, True)
    begun = await run_with_url(sys.executable, "-m", "maand_catalog", "new-epoch", url=url)
    assert begun.returncode == 0, begun.stderr
    assert begun.stderr.count("it was") == 3

    database = await Database.open(url)
    assert await database.read(read_epoch) > 1
    assert not await database.read(is_unserved_copy)
    async with serve(database, tmp_path) as catalog:
        assert [(await get(catalog, run)).state for run in runs] == [pb.RUN_STATE_FAILED] * 3
    await database.close()
    postgres.drop_database(name)
