"""What restore and new-epoch refuse, and that nothing changes then; where they find the database."""

import fcntl
import os
import random
import shutil
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import make_url

from maand_catalog.database.database import Database
from maand_catalog.database.migrate import apply_migrations, known_revisions
from maand_catalog.store.runs.epochs import COPY_MARK, is_unserved_copy, read_epoch
from maand_contracts.catalog.v1 import run_pb2 as pb
from tests.contracts.catalog.restore_place import Place, runs_in_every_open_state
from tests.contracts.catalog.run_verbs import get
from tests.contracts.catalog.serving import serve
from tests.contracts.catalog.test_backup import run as run_with_url
from tests.testbed.postgres import PostgresCluster

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def place(tmp_path: Path, sqlite_template: Path) -> Place:
    directory = tmp_path / "bucket"
    (directory / "data").mkdir(mode=0o700, parents=True)
    (directory / "maand.conf").write_text('bucket_id = "b"\n')
    shutil.copyfile(sqlite_template, directory / "data/maand.db")
    return Place(directory=directory)


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
