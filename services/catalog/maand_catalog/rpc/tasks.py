"""TaskService: wide work shared by executors; tasks as the contract's messages."""

from collections.abc import Iterable
from datetime import timedelta
from typing import Any

from maand_catalog.database.database import Database
from maand_catalog.database.transaction import Transaction
from maand_catalog.errors import InvalidArgument, LimitExceeded
from maand_catalog.ids import new_id
from maand_catalog.rpc.callers import require_role
from maand_catalog.rpc.hook_env import HookEnvSealer
from maand_catalog.rpc.requests import checked_id, checked_text, until_found
from maand_catalog.rpc.run_messages import CANCEL_LEVELS, fence_message
from maand_catalog.rpc.run_messages import run_message as run_message
from maand_catalog.rules.identity import Role
from maand_catalog.rules.runs import Run
from maand_catalog.rules.tasks import NewTask, Task, TaskKind, TaskState
from maand_catalog.store.runs import leases, tasks
from maand_catalog.store.runs.task_states import CLAIMABLE_TASKS, tasks_topic
from maand_contracts.catalog.v1 import task_pb2 as pb
from maand_contracts.catalog.v1.task_pb2_grpc import TaskServiceServicer

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


def task_message(task: Task) -> pb.Task:
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


MOST_TASKS = 1_000
MOST_OUTCOMES = 10_000
LOOK_EVERY = timedelta(seconds=5)
"""Waiting calls look this often without being woken; every change of a task wakes them."""


class TaskServicer(TaskServiceServicer):
    """Keeps tasks, for executors."""

    def __init__(self, database: Database, sealer: HookEnvSealer, *, lease: timedelta = leases.LEASE) -> None:
        self._database = database
        self._sealer = sealer
        self._lease = lease

    async def CreateTasks(self, request: pb.CreateTasksRequest, context: Any) -> pb.CreateTasksResponse:
        """Split a run's work."""
        require_role(context, Role.EXECUTOR)
        if len(request.tasks) > MOST_TASKS:
            raise LimitExceeded(f"more than {MOST_TASKS} tasks in one call", facts={"field": "tasks"})
        new = [read_new_task(task) for task in request.tasks]
        await self._database.write(lambda tx: tasks.create_tasks(tx, request.bucket_id, request.run_id, request.fence, new))
        return pb.CreateTasksResponse()

    async def ClaimTask(self, request: pb.ClaimTaskRequest, context: Any) -> pb.ClaimTaskResponse:
        """Claim the oldest task to be had, waiting for one if asked to."""
        require_role(context, Role.EXECUTOR)
        executor_id = checked_text(request.executor_id, "executor_id", longest=128, required=True)
        bucket_ids = [checked_id(bucket_id, "bucket_ids") for bucket_id in request.bucket_ids]
        run_id = checked_id(request.run_id, "run_id") if request.run_id else ""

        def is_there(tx: Transaction) -> bool:
            return tasks.is_any_task_claimable(tx, executor_id=executor_id, bucket_ids=bucket_ids, run_id=run_id)

        def claim(tx: Transaction) -> pb.ClaimTaskResponse | None:
            claimed = tasks.claim_task(tx, executor_id=executor_id, bucket_ids=bucket_ids, run_id=run_id, lease=self._lease)
            if claimed is None:
                return None
            return self._claimed(*claimed, tx)

        async def look() -> pb.ClaimTaskResponse | None:
            return await self._database.write(claim) if await self._database.read(is_there) else None

        bus, seconds = self._database.bus, request.wait_seconds
        return (
            await until_found(bus, CLAIMABLE_TASKS, look, wait_seconds=seconds, look_every=LOOK_EVERY) or pb.ClaimTaskResponse()
        )

    def _claimed(self, task: Task, run: Run, tx: Transaction) -> pb.ClaimTaskResponse:
        """Describe a claim; only hooks are given the values of `hook_env`."""
        return pb.ClaimTaskResponse(
            task=task_message(task),
            run=run_message(run, tx.lapse_time),
            lease_seconds=self._lease.total_seconds(),
            hook_env=self._sealer.open_for(run) if task.kind is TaskKind.HOOKS else {},
            worker_fence=fence_message(leases.worker_fence_of(tx, run)),
        )

    async def RenewTask(self, request: pb.RenewTaskRequest, context: Any) -> pb.RenewTaskResponse:
        """Extend a lease, keep outcomes, report a wish to cancel."""
        require_role(context, Role.EXECUTOR)
        check_outcomes(len(request.outcomes))
        outcomes = write_outcomes(request.outcomes)
        renewal = await self._database.write(
            lambda tx: tasks.renew_task(
                tx, request.bucket_id, request.task_id, request.fence, outcomes=outcomes, lease=self._lease
            )
        )
        return pb.RenewTaskResponse(lease_seconds=renewal.lease.total_seconds(), cancel=CANCEL_LEVELS[renewal.cancel])

    async def FinishTask(self, request: pb.FinishTaskRequest, context: Any) -> pb.FinishTaskResponse:
        """End a task, or give it up."""
        require_role(context, Role.EXECUTOR)
        check_outcomes(len(request.outcomes))
        outcomes = write_outcomes(request.outcomes)
        await self._database.write(
            lambda tx: tasks.finish_task(
                tx, request.bucket_id, request.task_id, request.fence, outcomes=outcomes, given_up=request.given_up
            )
        )
        return pb.FinishTaskResponse()

    async def AwaitTasks(self, request: pb.AwaitTasksRequest, context: Any) -> pb.AwaitTasksResponse:
        """Return tasks that ended, waiting for one if asked to."""
        require_role(context, Role.EXECUTOR)

        def read(tx: Transaction) -> list[pb.Task] | None:
            ended = tasks.read_ended_tasks(tx, request.bucket_id, request.run_id, request.fence, after=request.after_sequence)
            return [task_message(task) for task in ended] or None

        async def look() -> list[pb.Task] | None:
            return await self._database.read(read)

        ended = await until_found(
            self._database.bus, tasks_topic(request.run_id), look, wait_seconds=request.wait_seconds, look_every=LOOK_EVERY
        )
        return pb.AwaitTasksResponse(tasks=ended or [])

    async def DropTasks(self, request: pb.DropTasksRequest, context: Any) -> pb.DropTasksResponse:
        """Drop what is not wanted any more."""
        require_role(context, Role.EXECUTOR)
        if len(request.names) > MOST_TASKS:
            raise LimitExceeded(f"more than {MOST_TASKS} tasks in one call", facts={"field": "names"})
        names = list(request.names)
        await self._database.write(lambda tx: tasks.drop_named_tasks(tx, request.bucket_id, request.run_id, request.fence, names))
        return pb.DropTasksResponse()


def check_outcomes(count: int) -> None:
    """Refuse lists of an unreasonable size."""
    if count > MOST_OUTCOMES:
        raise LimitExceeded(f"more than {MOST_OUTCOMES} outcomes in one call", facts={"field": "outcomes"})
