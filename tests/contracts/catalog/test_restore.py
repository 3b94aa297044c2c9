"""Restoring as a person does it: `maand-catalog restore` and `new-epoch` as processes, on files of every kind."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from maand_catalog.database.database import Database
from maand_catalog.service import start_catalog
from maand_catalog.store.runs.epochs import COPY_MARK
from maand_contracts.catalog.v1 import run_pb2 as pb
from tests.contracts.catalog.restore_place import Place, runs_in_every_open_state
from tests.contracts.catalog.run_builders import a_create
from tests.contracts.catalog.run_verbs import create, get, must_claim
from tests.contracts.catalog.serving import serve, settings_for

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def place(tmp_path: Path, sqlite_template: Path) -> Place:
    directory = tmp_path / "bucket"
    (directory / "data").mkdir(mode=0o700, parents=True)
    (directory / "maand.conf").write_text('bucket_id = "b"\n')
    shutil.copyfile(sqlite_template, directory / "data/maand.db")
    return Place(directory=directory)


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
