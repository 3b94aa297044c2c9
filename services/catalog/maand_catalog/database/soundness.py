"""Whether a SQLite database is what was written to it: a damaged index answers wrongly, and says nothing.

| when                                  | what is looked at                                                     |
|---------------------------------------|-----------------------------------------------------------------------|
| a catalog starts, up to 8 MiB         | every page, and every index against its table: 40 ms a MiB            |
| a catalog starts, up to 64 MiB        | every page: 4 ms a MiB                                                |
| `maand-catalog backup` and `restore`  | every page, and every index against its table, whatever the size      |

Larger databases start at once: whoever has one makes backups, which look at all of it.
"""

import sqlite3
from pathlib import Path

from maand_catalog.database.database import Database
from maand_catalog.database.failures import DatabaseDamaged
from maand_catalog.database.transaction import Transaction

MIB = 1024 * 1024
LARGEST_THOROUGH_BYTES = 8 * MIB
LARGEST_LOOKED_AT_BYTES = 64 * MIB
TOLD = 3
"""Damages that are named; the first says enough."""


async def refuse_damage(database: Database) -> None:
    """Raise `DatabaseDamaged` when a SQLite database is found damaged; nothing of a large one, or of PostgreSQL."""
    place = database.engines.place
    damage = await database.read(find_damage_at_start) if place else ""
    if damage:
        raise DatabaseDamaged(place, damage)


def find_damage_at_start(tx: Transaction) -> str:
    """Return what is wrong with the database, as far as there is time to look."""
    size = Path(str(tx.connection.engine.url.database)).stat().st_size
    if size > LARGEST_LOOKED_AT_BYTES:
        return ""
    driver: sqlite3.Connection = tx.connection.connection.driver_connection  # type: ignore[assignment]  # SQLite's
    return find_damage(driver, thorough=size <= LARGEST_THOROUGH_BYTES)


def find_damage(connection: sqlite3.Connection, *, thorough: bool) -> str:
    """Return what SQLite says is wrong with a database, empty when it is sound."""
    check = "integrity_check" if thorough else "quick_check"
    try:
        found = [str(line) for (line,) in connection.execute(f"PRAGMA {check}({TOLD})")]
    except sqlite3.DatabaseError as error:
        return str(error)
    return "" if found == ["ok"] else "; ".join(line.removeprefix("*** in database main ***\n") for line in found)
