"""Acts on tasks, one transaction each: created by the run's owner, claimed, renewed and ended by any executor, awaited."""

from collections.abc import Collection, Sequence
from datetime import timedelta

from sqlalchemy import ColumnElement, Select, and_, exists, select, update

from maand_catalog.database.statements import one_of, upsert_into
from maand_catalog.database.transaction import Transaction
from maand_catalog.rules.runs import CancelLevel, Run, RunState
from maand_catalog.rules.tasks import NewTask, Task, TaskState, state_after_claim
from maand_catalog.store.runs.leases import Renewal
from maand_catalog.store.runs.run_states import RUN_COLUMNS, get_held_run, get_run, stale_run_fence, to_run
from maand_catalog.store.runs.task_states import (
    CLAIMABLE_TASKS,
    TASK_COLUMNS,
    get_held_task,
    get_run_of_task,
    get_task,
    lock_tasks,
    move_task,
    to_task,
)
from maand_catalog.store.tables.runs import runs, tasks


def create_tasks(tx: Transaction, bucket_id: str, run_id: str, fence: int, new: Sequence[NewTask]) -> None:
    """Create pending tasks under the claim of the run, those created before left as they were. NotFound, StaleFence."""
    get_held_run(tx, bucket_id, run_id, fence)
    rows = [
        {
            "task_id": task.task_id,
            "bucket_id": bucket_id,
            "run_id": run_id,
            "run_fence": fence,
            "name": task.name,
            "kind": task.kind,
            "spec": task.spec,
            "state": TaskState.PENDING,
            "executor_id": "",
            "fence": 0,
            "outcomes": b"",
            "sequence": 0,
        }
        for task in new
    ]
    if rows:
        tx.connection.execute(upsert_into(tx.dialect, tasks).on_conflict_do_nothing(), rows)
        tx.notify(CLAIMABLE_TASKS)


def is_task_claimable(tx: Transaction, *, executor_id: str, bucket_ids: Collection[str], run_id: str) -> ColumnElement[bool]:
    """Return the condition on tasks and their runs that an executor may claim: of its own run, or of somebody else's."""
    whose = tasks.c.run_id == run_id if run_id else runs.c.executor_id != executor_id
    condition = and_(
        tasks.c.sequence == 0,
        tasks.c.state == TaskState.PENDING,
        runs.c.run_id == tasks.c.run_id,
        runs.c.fence == tasks.c.run_fence,
        runs.c.state == RunState.RUNNING,
        runs.c.lease_until > tx.lapse_time,
        runs.c.cancel < CancelLevel.NOW,
        whose,
    )
    return and_(condition, tasks.c.bucket_id.in_(bucket_ids)) if bucket_ids else condition


def is_any_task_claimable(tx: Transaction, *, executor_id: str, bucket_ids: Collection[str], run_id: str) -> bool:
    """Whether a claim would find something: looked at first, so that waiting executors write nothing."""
    condition = is_task_claimable(tx, executor_id=executor_id, bucket_ids=bucket_ids, run_id=run_id)
    return bool(tx.connection.execute(select(exists().where(condition))).scalar_one())


def claim_task(
    tx: Transaction, *, executor_id: str, bucket_ids: Collection[str], run_id: str, lease: timedelta
) -> tuple[Task, Run] | None:
    """Claim the oldest task that is to be had, under its next fence. None when there is none."""
    row = tx.connection.execute(
        select_oldest_task(is_task_claimable(tx, executor_id=executor_id, bucket_ids=bucket_ids, run_id=run_id))
    ).one_or_none()
    if row is None:
        return None
    task = to_task(row)
    move_task(tx, task, TaskState.RUNNING, executor_id=executor_id, fence=task.fence + 1, lease_until=tx.now + lease)
    return get_task(tx, task.bucket_id, task.task_id), get_run(tx, task.bucket_id, task.run_id)


def select_oldest_task(condition: ColumnElement[bool]) -> Select[tuple[object, ...]]:
    """Select the oldest of them, locked, leaving out those that another catalog has locked."""
    query = select(*TASK_COLUMNS).select_from(tasks.join(runs, runs.c.run_id == tasks.c.run_id)).where(condition)
    return query.order_by(tasks.c.task_id).limit(1).with_for_update(skip_locked=True, of=tasks)


def renew_task(tx: Transaction, bucket_id: str, task_id: str, fence: int, *, outcomes: bytes, lease: timedelta) -> Renewal:
    """Let a claim last from now on, keep outcomes, tell what is wished of the run. NotFound, StaleFence."""
    run = get_run_of_task(tx, bucket_id, task_id, locked=False)
    task = get_held_task(tx, bucket_id, task_id, fence, run=run)
    known = {"outcomes": task.outcomes + outcomes} if outcomes else {}
    tx.connection.execute(update(tasks).where(tasks.c.task_id == task_id).values(lease_until=tx.now + lease, **known))
    return Renewal(lease=lease, cancel=run.cancel)


def finish_task(tx: Transaction, bucket_id: str, task_id: str, fence: int, *, outcomes: bytes, given_up: bool) -> None:
    """End a task, or let it be done by somebody else. NotFound, StaleFence. A repeat changes nothing."""
    run = get_run_of_task(tx, bucket_id, task_id, locked=True)
    before = get_task(tx, bucket_id, task_id)
    # A task that was given up may be anything by now but running under this claim: pending again, lost, dropped. One that was
    # finished stays finished. Only the claim's own fence is answered so: under a later claim, or after the run's, it is stale.
    is_repeat = before.state is not TaskState.RUNNING if given_up else before.state is TaskState.FINISHED
    if before.fence == fence and is_repeat and run.is_held_by(before.run_fence, tx.lapse_time):
        return
    task = get_held_task(tx, bucket_id, task_id, fence, run=run)
    to = state_after_claim(task, run, tx.lapse_time, died=False) if given_up else TaskState.FINISHED
    move_task(tx, task, to, outcomes=task.outcomes + outcomes)


def read_ended_tasks(tx: Transaction, bucket_id: str, run_id: str, fence: int, *, after: int) -> list[Task]:
    """Read the tasks of this claim of a run that ended after a point, in that order. NotFound, StaleFence."""
    run = get_run(tx, bucket_id, run_id)
    if not run.is_held_by(fence, tx.lapse_time):
        raise stale_run_fence(run, fence, tx)
    query = (
        select(*TASK_COLUMNS)
        .where(tasks.c.run_id == run_id, tasks.c.run_fence == fence, tasks.c.sequence > after)
        .order_by(tasks.c.sequence)
    )
    return [to_task(row) for row in tx.connection.execute(query)]


def drop_named_tasks(tx: Transaction, bucket_id: str, run_id: str, fence: int, names: Collection[str]) -> None:
    """Drop open tasks that this claim of a run created. NotFound, StaleFence. Those that ended stay as they are."""
    get_held_run(tx, bucket_id, run_id, fence)
    of_claim = and_(
        tasks.c.run_id == run_id, tasks.c.run_fence == fence, tasks.c.sequence == 0, one_of(tx, tasks.c.name, list(names))
    )
    for task in lock_tasks(tx, of_claim):
        move_task(tx, task, TaskState.DROPPED)


def task_has_lapsed(tx: Transaction) -> ColumnElement[bool]:
    """Return the condition that a task's lease is over."""
    return and_(tasks.c.sequence == 0, tasks.c.state == TaskState.RUNNING, tasks.c.lease_until <= tx.lapse_time)


def is_any_task_lapsed(tx: Transaction) -> bool:
    """Whether some task's lease is over."""
    return bool(tx.connection.execute(select(exists().where(task_has_lapsed(tx)))).scalar_one())


def settle_lapsed_tasks(tx: Transaction) -> list[Task]:
    """Let every task whose lease is over be claimed again, or end it; return them. Several replicas may do this at once."""
    return settle_tasks_where(tx, task_has_lapsed(tx), died=True)


def release_tasks(tx: Transaction, *, executor_id: str, except_executor_id: str) -> list[Task]:
    """Take every task from one executor, which stops, or from every executor but one, which died, and return them."""
    whose = tasks.c.executor_id == executor_id if executor_id else tasks.c.executor_id != except_executor_id
    return settle_tasks_where(tx, and_(tasks.c.sequence == 0, tasks.c.state == TaskState.RUNNING, whose), died=not executor_id)


def settle_tasks_where(tx: Transaction, condition: ColumnElement[bool], *, died: bool) -> list[Task]:
    """Take tasks from their executors, run by run, but of runs that somebody else is changing right now."""
    of_runs = runs.c.run_id.in_(select(tasks.c.run_id).where(condition))
    query = select(*RUN_COLUMNS).where(of_runs).order_by(runs.c.run_id).with_for_update(skip_locked=True)
    settled = []
    for run in map(to_run, tx.connection.execute(query).all()):
        for task in lock_tasks(tx, and_(condition, tasks.c.run_id == run.run_id)):
            to = state_after_claim(task, run, tx.lapse_time, died=died)
            move_task(tx, task, to)
            settled.append(task)
    return settled
