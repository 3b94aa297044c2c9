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


LOST_RACE_STATES = frozenset({"40001", "40P01", "55P03"})
"""PostgreSQL: serialization failure, deadlock, lock not available. The work was undone and may be done again."""

DISK_FAILURES = {
    sqlite3.SQLITE_FULL: ("the disk is full", "free some space on it"),
    sqlite3.SQLITE_READONLY: ("the file cannot be written", "make it and its file system writable"),
    sqlite3.SQLITE_IOERR: ("the disk fails", "look at the disk and the kernel's log"),
    sqlite3.SQLITE_CANTOPEN: ("the file cannot be opened", "see that its directory is there, writable and not full"),
}
"""SQLite's primary result codes that blame the disk: what is told of it, and what to do."""


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
    cause = error.orig if isinstance(error, DBAPIError) else error
    if not isinstance(cause, sqlite3.Error):
        return None
    known = DISK_FAILURES.get(getattr(cause, "sqlite_errorcode", 0) & 0xFF)  # the rest are extended codes: which call it was
    if known is None:
        return None
    what, remedy = known
    return DiskFailed(
        f"the catalog's database {place} cannot be used: {what} (SQLite: {cause})",
        help=f"{remedy}; what waited for it goes on by itself",
        facts={"database": place},
    )


def translate_error(error: BaseException, place: str) -> BaseException:
    """Return what the caller is told instead of an error of the database `place`; other errors as they are."""
    if has_lost_connection(error):
        return database_unavailable(error)
    return disk_failure_of(error, place) or error


@contextmanager
def translate_refusals() -> Iterator[None]:
    """Raise `DatabaseRefused` in the database's own words, for commands by hand: whoever opens the database may know them."""
    try:
        yield
    except DBAPIError as error:
        raise DatabaseRefused(f"the database refused: {str(error.orig).splitlines()[0]}") from error
