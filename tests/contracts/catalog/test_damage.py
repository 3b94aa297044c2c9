"""A SQLite database whose pages are not what was written: refused at the start, at a backup, and told in SQLite's words."""

import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest

from maand_catalog.database.database import Database
from maand_catalog.database.failures import DatabaseDamaged, disk_failure_of
from maand_catalog.database.soundness import find_damage, refuse_damage
from maand_catalog.errors import DiskFailed
from maand_catalog.service import start_catalog
from maand_catalog.store.backup import back_up_database
from tests.contracts.catalog.run_builders import a_bucket
from tests.contracts.catalog.serving import settings_for


@pytest.fixture
async def file(tmp_path: Path) -> Path:
    """Make the database of a catalog that served and stopped."""
    file = tmp_path / "maand.db"
    catalog = await start_catalog(settings_for(tmp_path, listen=f"unix:{tmp_path}/s", database_url=f"sqlite:///{file}"))
    await a_bucket(catalog.database)
    await catalog.stop()
    return file


@pytest.fixture
async def damaged(file: Path) -> AsyncIterator[Database]:
    """Open a database in which a row is in its table and not in an index."""
    take_from_index(file)
    database = await Database.open(f"sqlite:///{file}")
    yield database
    await database.close()


def take_from_index(file: Path) -> None:
    """Change the keys of an index in its page, as a bad disk does: its structure stays, what it says is wrong."""
    with closing(sqlite3.connect(file)) as connection:
        query = "SELECT rootpage FROM sqlite_master WHERE type = 'index' AND tbl_name = 'buckets'"
        page = min(page for (page,) in connection.execute(query))
        size = int(connection.execute("PRAGMA page_size").fetchone()[0])
    with file.open("r+b") as opened:
        opened.seek(page * size - 4)
        last = opened.read(1)
        opened.seek(page * size - 4)
        opened.write(bytes([last[0] ^ 1]))


async def test_a_catalog_refuses_a_damaged_database(damaged: Database, tmp_path: Path) -> None:
    with pytest.raises(DatabaseDamaged, match="missing from index") as told:
        await refuse_damage(damaged)
    assert str(tmp_path / "maand.db") in str(told.value)
    assert "maand-catalog restore" in told.value.help


async def test_a_catalog_on_a_damaged_database_does_not_start(file: Path, tmp_path: Path) -> None:
    take_from_index(file)
    with pytest.raises(DatabaseDamaged):
        await start_catalog(settings_for(tmp_path, listen=f"unix:{tmp_path}/s", database_url=f"sqlite:///{file}"))


async def test_a_damaged_database_is_not_backed_up(file: Path, tmp_path: Path) -> None:
    back_up_database(f"sqlite:///{file}", tmp_path / "sound.db")
    take_from_index(file)
    with pytest.raises(DatabaseDamaged, match="missing from index"):
        back_up_database(f"sqlite:///{file}", tmp_path / "copy.db")
    assert not (tmp_path / "copy.db").exists()


async def test_a_page_that_cannot_be_read_is_told_as_damage(file: Path) -> None:
    with closing(sqlite3.connect(file)) as connection:
        page, size = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'buckets'").fetchone()[0], 4096
    with file.open("r+b") as opened:
        opened.seek((page - 1) * size)
        opened.write(b"\xff" * 100)
    database = await Database.open(f"sqlite:///{file}")
    with pytest.raises(DatabaseDamaged, match="is damaged"):
        await database.read(lambda tx: tx.connection.exec_driver_sql("SELECT * FROM buckets").all())
    with pytest.raises(DatabaseDamaged, match="is damaged"):
        await database.write(lambda tx: tx.connection.exec_driver_sql("UPDATE buckets SET bucket_id = '1'"))
    await database.close()


def test_a_sound_database_is_found_sound(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "a.db")) as connection:
        assert find_damage(connection, thorough=True) == find_damage(connection, thorough=False) == ""


def test_a_database_that_another_program_locked_is_told_with_its_file() -> None:
    error = sqlite3.OperationalError("database is locked")
    error.sqlite_errorcode = sqlite3.SQLITE_BUSY  # as the driver sets it
    told = disk_failure_of(error, "/b/data/maand.db")
    assert isinstance(told, DiskFailed)
    assert "/b/data/maand.db cannot be used: another program has locked the file" in str(told)
    assert "fuser" in told.help
