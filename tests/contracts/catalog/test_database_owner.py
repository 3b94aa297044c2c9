"""Who a database is towards workers: the same through restarts, moves and restores; a copy is somebody else."""

import shutil
import sqlite3
from pathlib import Path

from maand_catalog.database.database import Database
from maand_catalog.store.backup import back_up_database
from maand_catalog.store.restore import begin_epoch_by_hand, restore_database
from maand_catalog.store.runs.database_owner import keep_own_owner, read_owner
from maand_catalog.store.runs.epochs import NewEpoch, read_epoch, settle_database
from tests.testbed.postgres import PostgresCluster


async def start(file: Path) -> tuple[str, NewEpoch | None]:
    """Settle a database as a catalog does at its start; return its owner id, and the epoch that began."""
    return await start_url(f"sqlite:///{file}")


async def start_url(url: str) -> tuple[str, NewEpoch | None]:
    database = await Database.open(url)
    try:
        begun = await database.write(settle_database, alone=True)
        return await database.read(read_owner), begun
    finally:
        await database.close()


def file_of(url: str) -> Path:
    return Path(url.removeprefix("sqlite:///"))


async def test_a_database_has_an_owner_from_its_first_start_on(database: Database) -> None:
    assert await database.read(read_owner) == ""
    assert await database.write(settle_database, alone=True) is None
    owner = await database.read(read_owner)
    assert len(owner) == 36
    assert await database.write(settle_database, alone=True) is None
    assert await database.read(read_owner) == owner
    assert await database.read(read_epoch) == 1


async def test_a_moved_database_is_the_same_and_a_copied_one_is_another(sqlite_url: str, tmp_path: Path) -> None:
    file = file_of(sqlite_url)
    original, _ = await start(file)
    (tmp_path / "elsewhere").mkdir()
    moved = file.rename(tmp_path / "elsewhere" / "maand.db")
    assert await start(moved) == (original, None)

    copy = Path(shutil.copy2(moved, tmp_path / "copy.db"))
    owner, begun = await start(copy)
    assert begun is not None
    assert begun.copied
    assert owner != original
    assert await start(copy) == (owner, None), "it is a copy once"
    assert await start(moved) == (original, None)


async def test_new_epoch_says_that_the_copy_is_the_database(sqlite_url: str, tmp_path: Path) -> None:
    original, _ = await start(file_of(sqlite_url))
    copy = Path(shutil.copy2(file_of(sqlite_url), tmp_path / "copy.db"))
    await begin_epoch_by_hand(f"sqlite:///{copy}", above=0)
    assert await start(copy) == (original, None), "before it was ever served"

    served = Path(shutil.copy2(copy, tmp_path / "served.db"))
    assert (await start(served))[0] != original
    again = Path(shutil.copy2(served, tmp_path / "again.db"))
    assert (await start(again))[0] != original
    await begin_epoch_by_hand(f"sqlite:///{again}", above=0)
    assert await start(again) == (original, None), "through a copy of a copy too"


async def test_a_copy_that_adopted_workers_stays_itself(sqlite_url: str, tmp_path: Path) -> None:
    await start(file_of(sqlite_url))
    copy = Path(shutil.copy2(file_of(sqlite_url), tmp_path / "copy.db"))
    owner, _ = await start(copy)
    database = await Database.open(f"sqlite:///{copy}")
    await database.write(keep_own_owner)
    await database.close()
    await begin_epoch_by_hand(f"sqlite:///{copy}", above=0)
    assert await start(copy) == (owner, None)


async def test_a_restored_backup_is_the_database_however_it_was_put_in_place(sqlite_url: str, tmp_path: Path) -> None:
    file = file_of(sqlite_url)
    original, _ = await start(file)
    backup = tmp_path / "backup.db"
    back_up_database(sqlite_url, backup)

    by_hand = Path(shutil.copy2(backup, tmp_path / "by-hand.db"))
    owner, begun = await start(by_hand)
    assert begun is not None
    assert not begun.copied
    assert owner == original

    await restore_database(sqlite_url, backup)
    assert await start(file) == (original, None)


async def test_a_backup_of_before_owners_is_who_it_replaces(sqlite_url: str, tmp_path: Path) -> None:
    original, _ = await start(file_of(sqlite_url))
    backup = tmp_path / "backup.db"
    back_up_database(sqlite_url, backup)
    with sqlite3.connect(backup) as old:
        old.execute("UPDATE database_facts SET owner_id = '', home = ''")
    old.close()

    await restore_database(sqlite_url, backup)
    assert await start(file_of(sqlite_url)) == (original, None)


async def test_a_postgresql_database_made_from_another_one_is_a_copy(postgres: PostgresCluster, postgres_url: str) -> None:
    original, _ = await start_url(postgres_url)
    name = postgres_url.rpartition("/")[2].partition("?")[0]
    copied_url = postgres.create_database(f"{name}_copy", template=name)
    try:
        owner, begun = await start_url(copied_url)
        assert begun is not None
        assert begun.copied
        assert owner != original
        await begin_epoch_by_hand(copied_url, above=0)
        assert await start_url(copied_url) == (original, None)
        assert await start_url(postgres_url) == (original, None)
    finally:
        postgres.drop_database(f"{name}_copy")
