"""Tasks as the contract's messages."""

from collections.abc import Iterable

from maand_catalog.errors import InvalidArgument, LimitExceeded
from maand_catalog.ids import new_id
from maand_catalog.rpc.requests import checked_text
from maand_catalog.rules.tasks import NewTask, Task, TaskKind, TaskState
from maand_contracts.catalog.v1 import task_pb2 as pb

STATES: dict[TaskState, pb.TaskState.ValueType] = {
    TaskState.PENDING: pb.TASK_STATE_PENDING,
    TaskState.RUNNING: pb.TASK_STATE_RUNNING,
    TaskState.FINISHED: pb.TASK_STATE_FINISHED,
    TaskState.LOST: pb.TASK_STATE_LOST,
    TaskState.DROPPED: pb.TASK_STATE_DROPPED,
}

MOST_WORKERS = 10_000
"""In one task: far more than an executor can serve well, far less than a message can hold."""


def read_new_task(task: pb.NewTask) -> NewTask:
    """Read one task to be created, and give it its id. InvalidArgument."""
    kind = task.spec.WhichOneof("work")
    if kind is None:
        raise InvalidArgument("a task does not say what to do", facts={"field": "tasks.spec.work"})
    if not task.spec.workers:
        raise InvalidArgument("a task names no workers", facts={"field": "tasks.spec.workers"})
    if len(task.spec.workers) > MOST_WORKERS:
        raise LimitExceeded(f"a task names more than {MOST_WORKERS} workers", facts={"field": "tasks.spec.workers"})
    name = checked_text(task.name, "tasks.name", longest=128, required=True)
    return NewTask(task_id=new_id(), name=name, kind=TaskKind(kind), spec=task.spec.SerializeToString(deterministic=True))


def write_outcomes(outcomes: Iterable[pb.WorkerOutcome]) -> bytes:
    """Make outcomes ready for the store: what is appended to earlier ones reads as one list, as protobuf's encoding has it."""
    return pb.Task(outcomes=outcomes).SerializeToString()


def read_outcomes(stored: bytes) -> list[pb.WorkerOutcome]:
    """Read outcomes back, the newest of each worker."""
    return list({outcome.worker: outcome for outcome in pb.Task.FromString(stored).outcomes}.values())


def to_message(task: Task) -> pb.Task:
    """Describe a task."""
    return pb.Task(
        task_id=task.task_id,
        run_id=task.run_id,
        name=task.name,
        spec=pb.TaskSpec.FromString(task.spec),
        state=STATES[task.state],
        executor_id=task.executor_id,
        fence=task.fence,
        outcomes=read_outcomes(task.outcomes),
        sequence=task.sequence,
    )
