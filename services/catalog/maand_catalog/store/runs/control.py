"""Runs as people see them: asked for, listed, cancelled, resumed."""

from collections.abc import Callable, Collection

from sqlalchemy import ColumnElement, and_, func, insert, or_, select, update

from maand_catalog.database.transaction import Transaction
from maand_catalog.errors import NotFound
from maand_catalog.rules.runs import (
    ACTIVE,
    CancelLevel,
    Run,
    RunEnded,
    RunKind,
    RunNotInterrupted,
    RunRequest,
    RunState,
    bucket_held_by,
    next_cancel_level,
)
from maand_catalog.rules.tasks import TaskState
from maand_catalog.store.runs.ends import cancel_run_at_once, interrupt_lapsed_run
from maand_catalog.store.runs.run_states import CLAIMABLE_RUNS, RUN_COLUMNS, get_run, move_run, run_has_lapsed, run_topic, to_run
from maand_catalog.store.runs.task_states import drop_tasks
from maand_catalog.store.tables.buckets import buckets
from maand_catalog.store.tables.runs import runs

IS_ACTIVE = and_(runs.c.finished_at.is_(None), runs.c.state.in_(ACTIVE))


def create_run(tx: Transaction, request: RunRequest) -> Run:
    """Create a pending run.

    1. Lock the bucket's row: runs of one bucket are created one after the other.
    2. A known request id: that run is the answer.
    3. A run started in a hook joins its parent's hold, when the parent has one.
    4. Another hold in the bucket: wait for it with a deadline, or refuse.
    """
    lock_bucket(tx, request.bucket_id)
    if request.request_id and (first := find_run_by_request(tx, request)):
        return first
    seq = next_run_seq(tx, request.bucket_id)
    hold = find_inherited_hold(tx, request) or (seq if request.holds_bucket else None)
    holder = find_holder(tx, request.bucket_id) if hold == seq else None
    if holder and not request.lock_timeout:
        raise bucket_held_by(holder, now=tx.lapse_time)
    tx.connection.execute(
        insert(runs).values(
            run_id=request.run_id,
            bucket_id=request.bucket_id,
            seq=seq,
            kind=request.kind,
            spec=request.spec,
            state=RunState.PENDING,
            message="waits for an executor" if holder is None else f"waits for {holder.kind} run {holder.run_id}",
            requested_by=request.requested_by,
            created_at=tx.now,
            executor_id="",
            fence=0,
            cancel=CancelLevel.NONE,
            last_sequence=0,
            result=b"",
            parent_run_id=request.parent_run_id,
            hold=hold,
            lock_deadline=tx.now + request.lock_timeout if holder else None,
            sealed_hook_env=request.sealed_hook_env,
            hook_env_key_id=request.hook_env_key_id,
            traceparent=request.traceparent,
            request_id=request.request_id or None,
            steps=0,
            trimmed=False,
        )
    )
    tx.notify(CLAIMABLE_RUNS)
    return get_run(tx, request.bucket_id, request.run_id)


def lock_bucket(tx: Transaction, bucket_id: str) -> None:
    """Keep others from creating runs in this bucket until we are through. NotFound."""
    query = select(buckets.c.bucket_id).where(buckets.c.bucket_id == bucket_id).with_for_update(key_share=True)
    if tx.connection.execute(query).one_or_none() is None:
        raise NotFound(f"there is no bucket {bucket_id[:60]}", help="apply its maand.conf first, as `maand build` does")


def find_run_by_request(tx: Transaction, request: RunRequest) -> Run | None:
    """Find the run that an earlier call with this request id created."""
    query = select(*RUN_COLUMNS).where(runs.c.bucket_id == request.bucket_id, runs.c.request_id == request.request_id)
    row = tx.connection.execute(query).one_or_none()
    return to_run(row) if row else None


def next_run_seq(tx: Transaction, bucket_id: str) -> int:
    """Return the next number in the bucket; its row must be locked."""
    query = select(func.coalesce(func.max(runs.c.seq), 0)).where(runs.c.bucket_id == bucket_id)
    return int(tx.connection.execute(query).scalar_one()) + 1


def find_inherited_hold(tx: Transaction, request: RunRequest) -> int | None:
    """Return the hold of the run in whose hook this one starts; None without a parent, or when the parent has none."""
    if not request.parent_run_id:
        return None
    parent = get_run(tx, request.bucket_id, request.parent_run_id)
    if parent.has_ended:
        raise RunEnded(f"the parent run {parent.run_id} has ended, so nothing can be started in its hooks")
    return parent.hold if request.holds_bucket else None


def find_holder(tx: Transaction, bucket_id: str) -> Run | None:
    """Find the run that holds the bucket: the first of those that are active with a hold."""
    query = (
        select(*RUN_COLUMNS)
        .where(runs.c.bucket_id == bucket_id, runs.c.hold.is_not(None), IS_ACTIVE)
        .order_by(runs.c.hold, runs.c.seq)
        .limit(1)
    )
    row = tx.connection.execute(query).one_or_none()
    return to_run(row) if row else None


def list_runs(
    tx: Transaction,
    bucket_id: str,
    *,
    kinds: Collection[RunKind],
    states: Collection[RunState],
    before_seq: int | None,
    limit: int,
) -> list[Run]:
    """List runs, newest first, as readers see them: below `before_seq` when a page came before."""
    query = select(*RUN_COLUMNS).where(runs.c.bucket_id == bucket_id).order_by(runs.c.seq.desc()).limit(limit)
    if kinds:
        query = query.where(runs.c.kind.in_(kinds))
    if states:
        query = query.where(or_(*(is_seen_as(state, tx) for state in states)))
    if before_seq is not None:
        query = query.where(runs.c.seq < before_seq)
    return [to_run(row) for row in tx.connection.execute(query)]


def is_seen_as(state: RunState, tx: Transaction) -> ColumnElement[bool]:
    """Return the condition that readers see a run in this state: see `Run.state_at`."""
    if state is RunState.RUNNING:
        return and_(runs.c.state == state, runs.c.lease_until > tx.lapse_time)
    return or_(runs.c.state == state, run_has_lapsed(tx)) if state is RunState.INTERRUPTED else runs.c.state == state


def cancel_run(tx: Transaction, bucket_id: str, run_id: str, *, requested_by: str) -> CancelLevel:
    """Ask a run to stop: one level more when somebody runs it, at once when nobody does. NotFound, RunEnded."""
    run = get_run(tx, bucket_id, run_id, locked=True)
    if run.has_ended:
        raise RunEnded(f"run {run_id} has ended already: {run.state}")
    if run.has_lapsed(tx.lapse_time):
        run = interrupt_lapsed_run(tx, run)
    if run.state is not RunState.RUNNING:
        if not run.has_ended:  # it has when it was asked to stop before its lease lapsed
            cancel_run_at_once(tx, run, requested_by=requested_by)
        return CancelLevel.NOW
    level = next_cancel_level(run.cancel)
    tx.connection.execute(update(runs).where(runs.c.run_id == run_id).values(cancel=level))
    if level is CancelLevel.NOW:
        drop_tasks(tx, run_id, TaskState.PENDING)
    tx.notify(run_topic(run_id))
    return level


def keep_spec(run: Run) -> bytes:
    """Resume a run as it was asked for."""
    return run.spec


def resume_run(tx: Transaction, bucket_id: str, run_id: str, *, change_spec: Callable[[Run], bytes] = keep_spec) -> Run:
    """Make an interrupted run claimable at once, with the spec that `change_spec` makes of it. NotFound, RunNotInterrupted."""
    run = get_run(tx, bucket_id, run_id, locked=True)
    if run.has_lapsed(tx.lapse_time):
        run = interrupt_lapsed_run(tx, run)
    if run.state is not RunState.INTERRUPTED:
        raise RunNotInterrupted(f"run {run_id} is {run.state}, not interrupted")
    spec = change_spec(run)
    move_run(tx, run, RunState.PENDING, message="waits for an executor", spec=spec, barren_takeovers=0, not_before=None)
    return get_run(tx, bucket_id, run_id)
