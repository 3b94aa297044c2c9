"""Claiming runs and keeping them: one owner at a time, by a lease on the database's clock and a fence that only rises.

How many runs there are that have not ended, for metrics, is read from the index of active runs only.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import ColumnElement, Select, and_, bindparam, exists, func, or_, select, update

from maand_catalog.database.clock import LONGEST_LEASE
from maand_catalog.database.transaction import Transaction
from maand_catalog.rules.meter import UnfinishedRuns
from maand_catalog.rules.runs import PAUSES, TAKEN_OVER, CancelLevel, Run, RunState, WorkerFence
from maand_catalog.rules.tasks import TaskState
from maand_catalog.store.runs.ends import interrupt_lapsed_runs
from maand_catalog.store.runs.epochs import read_epoch
from maand_catalog.store.runs.run_states import IS_HELD, RUN_COLUMNS, claim_parameters, get_run, move_run, stale_run_fence, to_run
from maand_catalog.store.tables.runs import runs, tasks

LEASE = LONGEST_LEASE
"""How long a claim lasts without renewal; executors renew every 3 s and stop by themselves after 0.8 of it."""

earlier = runs.alias("earlier")

CLAIMABLE_STATE: ColumnElement[bool] = or_(
    runs.c.state == RunState.PENDING, and_(runs.c.state == RunState.INTERRUPTED, runs.c.kind.in_(TAKEN_OVER))
)

NOBODY_AHEAD: ColumnElement[bool] = or_(
    runs.c.hold.is_(None),
    ~exists().where(
        earlier.c.bucket_id == runs.c.bucket_id,
        earlier.c.finished_at.is_(None),
        earlier.c.hold < runs.c.hold,
    ),
)
"""Exclusive runs go in the order of their holds: every run of an earlier hold must have ended."""


HOLDERS_FENCE = select(runs.c.fence).where(runs.c.bucket_id == bindparam("the_bucket"), runs.c.seq == bindparam("the_seq"))
RENEW = update(runs).where(IS_HELD).values(lease_until=bindparam("the_end")).returning(runs.c.cancel)


@dataclass(frozen=True, kw_only=True)
class Renewal:
    """What a renewal tells the owner."""

    lease: timedelta
    cancel: CancelLevel


def claim_run(
    tx: Transaction, *, executor_id: str, bucket_ids: Collection[str], lease: timedelta, has_waited: bool = False
) -> Run | None:
    """Claim the oldest run that is to be had, under the next fence. None when there is none.

    1. Interrupt runs whose lease is over.
    2. Take the oldest that is pending or may be taken over (after its pause), that no earlier hold keeps waiting, and that nobody
       else is taking.

    `has_waited`: the call came in a while ago, so the executor may be frozen or cut off by now. A run that was taken from this
    executor is left to others then, until it calls anew.
    """
    interrupt_lapsed_runs(tx, bucket_ids=bucket_ids)
    query = select_oldest_claimable_run(tx, bucket_ids)
    if has_waited:
        query = query.where(or_(runs.c.state == RunState.PENDING, runs.c.executor_id != executor_id))
    row = tx.connection.execute(query).one_or_none()
    if row is None:
        return None
    run = to_run(row)
    move_run(
        tx,
        run,
        RunState.RUNNING,
        message="starts" if run.fence == 0 else "continues",
        executor_id=executor_id,
        lease_until=tx.now + lease,
        fence=run.fence + 1,
        started_at=run.started_at or max(tx.now, run.created_at),
        lock_deadline=None,
        steps_at_claim=run.steps,
        not_before=None,
    )
    return get_run(tx, run.bucket_id, run.run_id)


def select_oldest_claimable_run(tx: Transaction, bucket_ids: Collection[str]) -> Select[tuple[object, ...]]:
    """Select the oldest run to be had, locked, leaving out those that another catalog has locked."""
    # A pause that reaches further than any is what a clock left that jumped back.
    may_begin = or_(runs.c.not_before.is_(None), runs.c.not_before <= tx.now, runs.c.not_before > tx.now + PAUSES[-1])
    query = (
        select(*RUN_COLUMNS)
        .where(runs.c.finished_at.is_(None), CLAIMABLE_STATE, NOBODY_AHEAD, may_begin)
        .order_by(runs.c.created_at, runs.c.run_id)
        .limit(1)
        .with_for_update(skip_locked=True, of=runs)
    )
    return query.where(runs.c.bucket_id.in_(bucket_ids)) if bucket_ids else query


def renew_lease(tx: Transaction, bucket_id: str, run_id: str, fence: int, *, lease: timedelta) -> Renewal:
    """Let a claim last from now on, and tell what is wished of the run. NotFound, StaleFence."""
    parameters = {**claim_parameters(tx, bucket_id, run_id, fence), "the_end": tx.now + lease}
    level = tx.connection.execute(RENEW, parameters).scalar_one_or_none()
    if level is None:
        raise stale_run_fence(get_run(tx, bucket_id, run_id), fence, tx)
    return Renewal(lease=lease, cancel=CancelLevel(level))


def is_run_lease_too_long(tx: Transaction) -> ColumnElement[bool]:
    """Return the condition that a run's lease reaches further than any can: the clock jumped back since."""
    too_long = runs.c.lease_until > tx.now + 2 * LONGEST_LEASE
    return and_(runs.c.finished_at.is_(None), runs.c.state == RunState.RUNNING, too_long)


def is_task_lease_too_long(tx: Transaction) -> ColumnElement[bool]:
    """Return the condition that a task's lease reaches further than any can."""
    too_long = tasks.c.lease_until > tx.now + 2 * LONGEST_LEASE
    return and_(tasks.c.sequence == 0, tasks.c.state == TaskState.RUNNING, too_long)


def shorten_leases(tx: Transaction) -> None:
    """Cut down the leases that are too long: owners that are well renew them in time."""
    until = {"lease_until": tx.now + LONGEST_LEASE}
    tx.connection.execute(update(runs).where(is_run_lease_too_long(tx)).values(until))
    tx.connection.execute(update(tasks).where(is_task_lease_too_long(tx)).values(until))


def worker_fence_of(tx: Transaction, run: Run) -> WorkerFence | None:
    """Return what the run's commands carry to workers; None for one that does not hold the bucket and changes nothing there.

    A run that joined another one's hold acts for the holder: it carries the holder's numbers, so that neither refuses the other.
    """
    if run.hold is None:
        return None
    fence = run.fence
    if run.hold != run.seq:
        fence = tx.connection.execute(HOLDERS_FENCE, {"the_bucket": run.bucket_id, "the_seq": run.hold}).scalar_one()
    return WorkerFence(epoch=read_epoch(tx), seq=run.hold, fence=fence)


COUNT = select(runs.c.kind, runs.c.state, func.count()).where(runs.c.finished_at.is_(None)).group_by(runs.c.kind, runs.c.state)
OLDEST_PENDING = select(func.min(runs.c.created_at)).where(
    and_(runs.c.finished_at.is_(None), runs.c.state == RunState.PENDING, NOBODY_AHEAD)
)


def count_unfinished_runs(tx: Transaction) -> UnfinishedRuns:
    """Count the runs of all buckets that have not ended, by kind and state as stored."""
    oldest = tx.connection.execute(OLDEST_PENDING).scalar_one_or_none()
    return UnfinishedRuns(
        by_kind_and_state={(kind, state): count for kind, state, count in tx.connection.execute(COUNT)},
        oldest_pending_seconds=max((tx.now - oldest).total_seconds(), 0.0) if oldest else 0.0,
    )
