"""Failures of the database itself: which are worth another try, and what the caller is told about the others."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from maand_catalog.errors import FailedPrecondition, Unavailable


class DatabaseRefused(FailedPrecondition):
    """The database did not do it: read-only, full, damaged. Mend what its own words say."""

    code = "database_refused"


LOST_RACE_STATES = frozenset({"40001", "40P01", "55P03"})
"""PostgreSQL: serialization failure, deadlock, lock not available. The work was undone and may be done again."""


def lost_a_race(error: BaseException) -> bool:
    """Whether another transaction was in the way, so that the same work succeeds a little later."""
    return isinstance(error, DBAPIError) and getattr(error.orig, "sqlstate", None) in LOST_RACE_STATES


def lost_connection(error: BaseException) -> bool:
    """Whether the database could not be reached or hung up. Constraint violations and bad statements are no such thing."""
    if isinstance(error, PoolTimeout):
        return True
    if not isinstance(error, OperationalError | InterfaceError) or lost_a_race(error):
        return False
    return error.connection_invalidated or getattr(error.orig, "sqlstate", "none") is None


def unavailable(error: BaseException) -> Unavailable:
    """Return what the caller is told when the database is away. The reason is for the log: it may name hosts."""
    return Unavailable("the catalog's database cannot be reached", help="try again; see the catalog's log if it lasts")


@contextmanager
def refusals_told() -> Iterator[None]:
    """Raise `DatabaseRefused` in the database's own words, for commands by hand: whoever opens the database may know them."""
    try:
        yield
    except DBAPIError as error:
        raise DatabaseRefused(f"the database refused: {str(error.orig).splitlines()[0]}") from error
