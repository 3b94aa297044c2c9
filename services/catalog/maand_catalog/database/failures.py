"""Failures of the database itself: which are worth another try, and what the caller is told about the others."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from maand_catalog.errors import DiskFailed, FailedPrecondition, Unavailable


class DatabaseRefused(FailedPrecondition):
    """The database did not do it: read-only, full, damaged. Mend what its own words say."""

    code = "database_refused"


class DatabaseDamaged(FailedPrecondition):
    """Pages of the SQLite file are not what was written. Keep a copy of it, and put a backup in its place."""

    code = "database_damaged"
    help = "`maand services stop`, keep a copy of it, then `maand-catalog restore FILE`: docs/operations.md, Backup and restore"

    def __init__(self, place: str, damage: str) -> None:
        super().__init__(f"the catalog's database {place} is damaged (SQLite: {damage})", facts={"database": place})


LOST_RACE_STATES = frozenset({"40001", "40P01", "55P03"})
"""PostgreSQL: serialization failure, deadlock, lock not available. The work was undone and may be done again."""

DISK_FAILURES = {
    sqlite3.SQLITE_FULL: ("the disk is full", "free some space on it"),
    sqlite3.SQLITE_READONLY: ("the file cannot be written", "make it and its file system writable"),
    sqlite3.SQLITE_IOERR: ("the disk fails", "look at the disk and the kernel's log"),
    sqlite3.SQLITE_CANTOPEN: ("the file cannot be opened", "see that its directory is there, writable and not full"),
    sqlite3.SQLITE_PERM: ("access to the file is denied", "give it to the user of the services"),
    sqlite3.SQLITE_BUSY: ("another program has locked the file", "close what else has it open: `fuser FILE` names it"),
}
"""SQLite's primary result codes that blame the disk: what is told of it, and what to do."""


DAMAGES = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
"""Those that blame what is in the file."""


def has_lost_race(error: BaseException) -> bool:
    """Whether another transaction was in the way, so that the same work succeeds a little later."""
    return isinstance(error, DBAPIError) and getattr(error.orig, "sqlstate", None) in LOST_RACE_STATES


def has_lost_connection(error: BaseException) -> bool:
    """Whether the database could not be reached or hung up. Constraint violations and bad statements are no such thing."""
    if isinstance(error, PoolTimeout):
        return True
    if not isinstance(error, OperationalError | InterfaceError) or has_lost_race(error):
        return False
    return error.connection_invalidated or getattr(error.orig, "sqlstate", "none") is None


def database_unavailable(error: BaseException) -> Unavailable:
    """Return what the caller is told when the database is away. The reason is for the log: it may name hosts."""
    return Unavailable("the catalog's database cannot be reached", help="try again; see the catalog's log if it lasts")


def catalog_stops() -> Unavailable:
    """Return what the caller is told when this process stops."""
    return Unavailable("the catalog stops", help="try again; another replica, or this one started anew, answers")


def disk_failure_of(error: BaseException, place: str = "") -> DiskFailed | None:
    """Return what the caller is told when the disk below the SQLite database `place` is to blame; None when it is not."""
    known = DISK_FAILURES.get(sqlite_code_of(error))
    if known is None:
        return None
    what, remedy = known
    return DiskFailed(
        f"the catalog's database {place} cannot be used: {what} (SQLite: {cause_of(error)})",
        help=f"{remedy}; what waited for it goes on by itself",
        facts={"database": place},
    )


def damage_of(error: BaseException, place: str) -> DatabaseDamaged | None:
    """Return what the caller is told when the content of the SQLite database `place` is to blame; None when it is not."""
    return DatabaseDamaged(place, str(cause_of(error))) if sqlite_code_of(error) in DAMAGES else None


def sqlite_code_of(error: BaseException) -> int:
    """Return SQLite's primary result code of an error, 0 for any other; the rest of its code tells which call it was."""
    cause = cause_of(error)
    return getattr(cause, "sqlite_errorcode", 0) & 0xFF if isinstance(cause, sqlite3.Error) else 0


def cause_of(error: BaseException) -> BaseException | None:
    """Return the driver's own error."""
    return error.orig if isinstance(error, DBAPIError) else error


def translate_error(error: BaseException, place: str) -> BaseException:
    """Return what the caller is told instead of an error of the database `place`; other errors as they are."""
    if has_lost_connection(error):
        return database_unavailable(error)
    return disk_failure_of(error, place) or damage_of(error, place) or error


@contextmanager
def translate_refusals() -> Iterator[None]:
    """Raise `DatabaseRefused` in the database's own words, for commands by hand: whoever opens the database may know them."""
    try:
        yield
    except DBAPIError as error:
        raise DatabaseRefused(f"the database refused: {str(error.orig).splitlines()[0]}") from error
