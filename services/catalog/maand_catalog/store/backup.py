"""Copying a SQLite database while it is being served. PostgreSQL brings tools of its own for that."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path

from maand_catalog.database.engine import parse_database_url, sqlite_path
from maand_catalog.database.failures import DatabaseDamaged
from maand_catalog.database.soundness import find_damage
from maand_catalog.errors import AlreadyExists, FailedPrecondition, InvalidArgument
from maand_catalog.store.runs.epochs import COPY_MARK


class BackupFailed(FailedPrecondition):
    """The copy could not be made; the database is as it was. Mend what the message names and begin again."""

    code = "backup_failed"


def back_up_database(database_url: str, target: Path) -> None:
    """Write the database as it is at this moment into a new file that only this user may read; durable when this returns.

    The copy is marked as one. May be done while a catalog serves the database: it is read on one snapshot, nobody waits. All of
    it is examined before. InvalidArgument for PostgreSQL, AlreadyExists, DatabaseDamaged, BackupFailed.
    """
    url = parse_database_url(database_url)
    if url.get_backend_name() != "sqlite" or not url.database:
        raise InvalidArgument(
            "only a SQLite file is backed up this way", help="for PostgreSQL use pg_dump, see docs/operations.md"
        )
    source = sqlite_path(url)
    if not source.is_file():
        raise InvalidArgument(f"there is no database {source}", help="MAAND_DATABASE_URL names it: sqlite:////absolute/path")
    make_empty_file(target)
    try:
        with closing(sqlite3.connect(f"{source.absolute().as_uri()}?mode=ro", uri=True, timeout=60)) as connection:
            require_sound(connection, source)
            connection.execute("VACUUM INTO ?", (str(target),))
        mark_copy(target)
    except sqlite3.Error as error:
        target.unlink(missing_ok=True)
        raise BackupFailed(f"{source} could not be copied to {target}: {error}") from error
    except DatabaseDamaged:
        target.unlink(missing_ok=True)
        raise
    make_durable(target)


def require_sound(connection: sqlite3.Connection, source: Path) -> None:
    """Raise `DatabaseDamaged` rather than replace good backups by a damaged one."""
    damage = find_damage(connection, thorough=True)
    if damage:
        raise DatabaseDamaged(str(source), damage)


def make_empty_file(target: Path) -> None:
    """Create the file, private from the beginning. AlreadyExists, BackupFailed."""
    try:
        os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError as error:
        raise AlreadyExists(f"{target} exists already", help="name a new file: a backup never replaces another") from error
    except OSError as error:
        raise BackupFailed(f"{target} cannot be written: {error.strerror}") from error


def mark_copy(target: Path) -> None:
    """Make it known as a copy: the first catalog that serves it begins a new epoch (`store.runs.epochs`)."""
    with closing(sqlite3.connect(target)) as copy:
        copy.execute(f"PRAGMA user_version = {COPY_MARK}")


def make_durable(target: Path) -> None:
    """Return when the file and its name are on disk."""
    for path in (target, target.absolute().parent):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
