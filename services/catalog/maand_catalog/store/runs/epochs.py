"""Epochs: the lives of a database. A restored backup begins the next one, and nothing of the life before goes on by itself.

Workers remember the largest `(epoch, seq, fence)` that commanded them. A restored database counts `seq` from where the backup was
made, below what workers have seen; its larger epoch makes its commands the newer ones again.

How a new epoch begins:

    maand-catalog restore FILE     puts a backup in place and begins one
    maand-catalog new-epoch        after a copy by hand, and after pg_restore
    a start on a marked copy       `maand-catalog backup` marks its copy; the first catalog that serves it begins one
    a start on any other copy      the file lives elsewhere than before: it gets an owner id of its own (`database_owner`) as well

The mark is SQLite's `user_version`: a number in the file's header that is the application's to use. It is there whatever the
schema is, survives any copying of the file, and changes with the transaction that begins the epoch: once.
"""

from dataclasses import dataclass

from sqlalchemy import case, select

from maand_catalog.database.statements import upsert_into
from maand_catalog.database.transaction import Transaction
from maand_catalog.rules.runs import Run
from maand_catalog.store.runs.database_owner import FIRST_EPOCH, confirm_owner, is_copy, make_own_owner, settle_owner
from maand_catalog.store.runs.ends import end_open_runs
from maand_catalog.store.tables.runs import database_facts

LARGEST_EPOCH = 10**15
"""Far beyond any time in seconds, and well inside what databases and shells count with."""

COPY_MARK = 1
"""`user_version` of a copy that no catalog has served yet; of any other database it is 0."""


@dataclass(frozen=True, kw_only=True)
class NewEpoch:
    """An epoch that began, and the runs that ended with the one before: as they were."""

    epoch: int
    ended: tuple[Run, ...]
    copied: bool = False
    """Whether it began because the database is a copy of one that may still be served."""


def read_epoch(tx: Transaction) -> int:
    """Return the database's epoch."""
    return tx.connection.execute(select(database_facts.c.epoch)).scalar_one_or_none() or FIRST_EPOCH


def begin_epoch(tx: Transaction, *, above: int = 0, known_owner: str = "") -> NewEpoch:
    """Begin an epoch, larger than the present one and than `above`, and end every open run as failed.

    It is a person's word that this is the database now. `known_owner`: who it was to workers, where it does not know itself.
    """
    confirm_owner(tx, known=known_owner)
    epoch = raise_epoch(tx, above=above)
    ended = end_open_runs(tx, copied=False)
    if tx.dialect == "sqlite":
        tx.connection.exec_driver_sql("PRAGMA user_version = 0")
    return NewEpoch(epoch=epoch, ended=tuple(ended))


def begin_epoch_of_copy(tx: Transaction) -> NewEpoch:
    """Make a copy a database of its own: another owner, and nothing of the original's goes on in it."""
    make_own_owner(tx)
    return NewEpoch(epoch=raise_epoch(tx, above=0), ended=tuple(end_open_runs(tx, copied=True)), copied=True)


def settle_database(tx: Transaction) -> NewEpoch | None:
    """Look, before a database is served, whether it is what it was; return the epoch that begins where it is not."""
    if is_unserved_copy(tx):
        return begin_epoch(tx)
    if is_copy(tx):
        return begin_epoch_of_copy(tx)
    settle_owner(tx)
    return None


def raise_epoch(tx: Transaction, *, above: int) -> int:
    """Raise the epoch and return it.

    It is the time in seconds, not the next number: a backup that is restored twice knows nothing of its first restored life, and
    counting on would give both lives the same epoch. Time needs no memory. Where the clock was set back, it is the next number
    after the largest that is known: the database's own, or `above` (what a worker tells, what a replaced database had).
    """
    statement = upsert_into(tx.dialect, database_facts).values(
        one=1, epoch=max(int(tx.now.timestamp()), above + 1, FIRST_EPOCH + 1)
    )
    present, proposed = database_facts.c.epoch, statement.excluded.epoch
    raised = statement.on_conflict_do_update(
        index_elements=[database_facts.c.one], set_={"epoch": case((present >= proposed, present + 1), else_=proposed)}
    )
    return int(tx.connection.execute(raised.returning(present)).scalar_one())


def is_unserved_copy(tx: Transaction) -> bool:
    """Whether `maand-catalog backup` made this copy and no catalog has served it since. PostgreSQL's dumps bear no mark."""
    return tx.dialect == "sqlite" and tx.connection.exec_driver_sql("PRAGMA user_version").scalar_one() == COPY_MARK
