"""What runs leave behind: events and steps for a while, summaries and the last event for ever; and waits that went on too long.

Done in the background by every replica; what one does, another finds done.
"""

from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import ColumnElement, and_, delete, exists, func, select, update

from maand_catalog.database.transaction import Transaction
from maand_catalog.rules.runs import ENDED, RunState
from maand_catalog.store.runs.control import find_holder
from maand_catalog.store.runs.ends import fail_waiting_run
from maand_catalog.store.runs.leases import NOBODY_AHEAD, is_run_lease_too_long, is_task_lease_too_long
from maand_catalog.store.runs.run_states import RUN_COLUMNS, run_has_lapsed, to_run
from maand_catalog.store.tables.identity import invocations
from maand_catalog.store.tables.runs import run_appends, run_events, run_steps, runs, tasks

TRIM_AT_ONCE = 20
"""Runs trimmed in one transaction: a run may hold 100,000 events."""


@dataclass(frozen=True, kw_only=True)
class Retention:
    """Events stay while their run is among the newest, or ended not long ago."""

    newest_runs: int = 100
    younger_than: timedelta = timedelta(days=30)


def is_care_due(tx: Transaction) -> bool:
    """Whether some lease is over, or a lease or a wait is too long: looked at often, so that a write happens only when needed."""
    return bool(
        tx.connection.execute(
            select(
                exists().where(run_has_lapsed(tx))
                | exists().where(has_waited_too_long(tx))
                | exists().where(is_run_lease_too_long(tx))
                | exists().where(is_task_lease_too_long(tx))
            )
        ).scalar_one()
    )


def has_waited_too_long(tx: Transaction) -> ColumnElement[bool]:
    """Return the condition that a run's lock timeout is over while somebody is still ahead of it."""
    return and_(runs.c.finished_at.is_(None), runs.c.state == RunState.PENDING, runs.c.lock_deadline <= tx.now, ~NOBODY_AHEAD)


def end_long_waits(tx: Transaction) -> list[str]:
    """Fail the runs that waited for the bucket longer than they wished, and return their ids."""
    query = select(*RUN_COLUMNS).where(has_waited_too_long(tx)).order_by(runs.c.run_id).with_for_update(skip_locked=True, of=runs)
    failed = []
    for row in tx.connection.execute(query).all():
        run = to_run(row)
        holder = find_holder(tx, run.bucket_id)
        if holder is not None and holder.run_id != run.run_id:
            fail_waiting_run(tx, run, holder)
            failed.append(run.run_id)
    return failed


def trim_runs(tx: Transaction, retention: Retention) -> int:
    """Remove events and steps of some runs whose time is over; return of how many. Call again until it is none."""
    newest = select(runs.c.bucket_id, func.max(runs.c.seq).label("seq")).group_by(runs.c.bucket_id).subquery("newest")
    due = (
        select(runs.c.run_id)
        .join(newest, newest.c.bucket_id == runs.c.bucket_id)
        .where(
            ~runs.c.trimmed,
            runs.c.state.in_(ENDED),
            runs.c.finished_at < tx.now - retention.younger_than,
            runs.c.seq <= newest.c.seq - retention.newest_runs,
        )
        .limit(TRIM_AT_ONCE)
    )
    run_ids = list(tx.connection.execute(due).scalars())
    for run_id in run_ids:
        trim_run(tx, run_id)
    return len(run_ids)


def trim_run(tx: Transaction, run_id: str) -> None:
    """Remove what is not kept for ever of one run."""
    last = select(func.max(run_events.c.sequence)).where(run_events.c.run_id == run_id).scalar_subquery()
    tx.connection.execute(delete(run_events).where(run_events.c.run_id == run_id, run_events.c.sequence < last))
    for table in (run_steps, run_appends, invocations, tasks):
        tx.connection.execute(delete(table).where(table.c.run_id == run_id))
    tx.connection.execute(update(runs).where(runs.c.run_id == run_id).values(trimmed=True))
