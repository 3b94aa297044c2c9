"""Finding tasks, and moving them: the one place where a task's state changes.

Whoever moves a task to an end locks its run first, then the task: ends are numbered without gaps, and nobody waits in a circle.
"""

from dataclasses import fields
from typing import Any

from sqlalchemy import ColumnElement, Row, func, select, update

from maand_catalog.database.transaction import Transaction
from maand_catalog.errors import NotFound
from maand_catalog.rules.identity import InvocationOutcome
from maand_catalog.rules.runs import Run, StaleFence
from maand_catalog.rules.tasks import ALLOWED_MOVES, OPEN, Task, TaskState
from maand_catalog.store.runs.invocation_ends import end_invocations_of_task
from maand_catalog.store.runs.run_states import ImpossibleMove, get_run
from maand_catalog.store.tables.runs import tasks

TASK_COLUMNS = [tasks.c[field.name] for field in fields(Task)]

CLAIMABLE_TASKS = "tasks"
"""Topic: a task may have become claimable."""


def tasks_topic(run_id: str) -> str:
    """Return the topic of one run's tasks: some of them ended."""
    return f"tasks:{run_id}"


def to_task(row: Row[Any]) -> Task:
    """Make the fact from its row."""
    return Task(**row._mapping)  # noqa: SLF001 - SQLAlchemy's documented name for a row as a mapping


def get_task(tx: Transaction, bucket_id: str, task_id: str, *, locked: bool = False) -> Task:
    """Read one task, with its row locked when it is about to be changed. NotFound."""
    query = select(*TASK_COLUMNS).where(tasks.c.task_id == task_id, tasks.c.bucket_id == bucket_id)
    row = tx.connection.execute(query.with_for_update() if locked else query).one_or_none()
    if row is None:
        raise NotFound(f"there is no task {task_id[:60]} in this bucket")
    return to_task(row)


def get_held_task(tx: Transaction, bucket_id: str, task_id: str, fence: int, *, run: Run) -> Task:
    """Read and lock a task that the claim with this fence owns, whose run is given. NotFound, StaleFence."""
    task = get_task(tx, bucket_id, task_id, locked=True)
    is_held = task.is_held_by(fence, tx.lapse_time) and run.is_held_by(task.run_fence, tx.lapse_time)
    if task.run_id != run.run_id or not is_held:
        raise stale_task_fence(task, fence)
    return task


def get_run_of_task(tx: Transaction, bucket_id: str, task_id: str, *, locked: bool) -> Run:
    """Read the run of a task, locked when the task is about to end. NotFound."""
    return get_run(tx, bucket_id, get_task(tx, bucket_id, task_id).run_id, locked=locked)


def stale_task_fence(task: Task, fence: int) -> StaleFence:
    """Return the error for a claim that does not own its task any more."""
    return StaleFence(
        f"the claim {fence} of task {task.name} of run {task.run_id} is over: it is {task.state} under claim {task.fence}",
        facts={"fence": task.fence, "state": task.state},
    )


def lock_tasks(tx: Transaction, condition: ColumnElement[bool]) -> list[Task]:
    """Read and lock the tasks that fulfil a condition, oldest first; their runs must be locked."""
    query = select(*TASK_COLUMNS).where(condition).order_by(tasks.c.task_id).with_for_update()
    return [to_task(row) for row in tx.connection.execute(query)]


def drop_tasks(tx: Transaction, run_id: str, *states: TaskState) -> None:
    """Drop the open tasks of a run, or those in some states: they are not wanted any more. The run's row must be locked."""
    for task in lock_tasks(tx, (tasks.c.run_id == run_id) & (tasks.c.sequence == 0) & tasks.c.state.in_(states or OPEN)):
        move_task(tx, task, TaskState.DROPPED)


def move_task(tx: Transaction, task: Task, to: TaskState, **values: Any) -> None:
    """Move a task to another state, with what else changes, and wake who waits. Row and, for an end, run must be locked.

    Hook invocations end with the claim under which they began.
    """
    if to not in ALLOWED_MOVES[task.state]:
        raise ImpossibleMove(f"task {task.task_id} cannot move from {task.state} to {to}")
    if to not in OPEN:
        values = {"sequence": next_task_sequence(tx, task.run_id), **values}
        tx.notify(tasks_topic(task.run_id))
    if to is TaskState.PENDING:
        tx.notify(CLAIMABLE_TASKS)
    if to is not TaskState.RUNNING:
        values = {"lease_until": None, **values}
        end_invocations_of_task(tx, task.run_id, task.task_id, InvocationOutcome.INTERRUPTED)
    tx.connection.execute(update(tasks).where(tasks.c.task_id == task.task_id).values(state=to, **values))


def next_task_sequence(tx: Transaction, run_id: str) -> int:
    """Return the next number among the ended tasks of a run."""
    query = select(func.coalesce(func.max(tasks.c.sequence), 0)).where(tasks.c.run_id == run_id)
    return int(tx.connection.execute(query).scalar_one()) + 1
