"""Calls about tasks: the wide work of a run, shared by executors."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

import grpc.aio

from maand_contracts.catalog.v1 import run_spec_pb2, task_pb2
from maand_contracts.catalog.v1.task_pb2_grpc import TaskServiceStub
from maand_executor.catalog_client.calls import LONG_DEADLINE, call_catalog
from maand_executor.catalog_client.runs import RenewedLease, read_worker_fence
from maand_executor.rules.cancel import CancelLevel
from maand_executor.rules.facts import RunIdentity, TaskIdentity
from maand_wire.enums import enum_word

CREATED_A_CALL = 1_000
CREATED_BYTES = 8 * 1024 * 1024
"""Most that one call creates; tasks of hooks name all workers of their batch."""


@dataclass(frozen=True, kw_only=True)
class ClaimedTask:
    """One task this executor now owns, and for how long; `identity` is that of its run, with the task's claim."""

    identity: RunIdentity
    task: TaskIdentity
    name: str
    work: task_pb2.TaskSpec
    kind: str
    spec: run_spec_pb2.RunSpec
    lease: timedelta
    known: frozenset[str] = frozenset()
    """Workers that are done: an executor that was lost since told of them."""
    hook_env: Mapping[str, str] = field(default_factory=dict, repr=False)
    cancel: CancelLevel = CancelLevel.NOT_ASKED
    traceparent: str = ""


class TaskCalls:
    """TaskService."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._tasks = TaskServiceStub(channel)

    async def create_tasks(self, run: RunIdentity, tasks: Sequence[task_pb2.NewTask]) -> None:
        """Split the work of a run that this executor owns."""
        for some in calls_of(tasks):
            request = task_pb2.CreateTasksRequest(bucket_id=run.bucket_id, run_id=run.run_id, fence=run.fence, tasks=some)
            await call_catalog(self._tasks.CreateTasks, request, repeatable=True, deadline=LONG_DEADLINE)

    async def claim_task(
        self, executor_id: str, *, wait: timedelta, bucket_ids: Sequence[str] = (), run_id: str = ""
    ) -> ClaimedTask | None:
        """Claim a task of one run, or of any run of other executors. Not repeated: a claim whose answer was lost lapses."""
        request = task_pb2.ClaimTaskRequest(
            executor_id=executor_id, wait_seconds=int(wait.total_seconds()), bucket_ids=bucket_ids, run_id=run_id
        )
        response = await call_catalog(self._tasks.ClaimTask, request, repeatable=False, deadline=wait + timedelta(seconds=10))
        return task_from_claim(response) if response.HasField("task") else None

    async def renew_task(
        self, bucket_id: str, task: TaskIdentity, outcomes: Sequence[task_pb2.WorkerOutcome], *, deadline: timedelta
    ) -> RenewedLease:
        """Extend the lease and keep outcomes. Tried once: the lease loop decides what a failure means."""
        request = task_pb2.RenewTaskRequest(bucket_id=bucket_id, task_id=task.task_id, fence=task.fence, outcomes=outcomes)
        response = await call_catalog(self._tasks.RenewTask, request, repeatable=False, deadline=deadline)
        return RenewedLease(lease=timedelta(seconds=response.lease_seconds), cancel=CancelLevel(response.cancel))

    async def finish_task(
        self, bucket_id: str, task: TaskIdentity, outcomes: Sequence[task_pb2.WorkerOutcome], *, given_up: bool
    ) -> None:
        """End the task, or give it up."""
        request = task_pb2.FinishTaskRequest(
            bucket_id=bucket_id, task_id=task.task_id, fence=task.fence, outcomes=outcomes, given_up=given_up
        )
        await call_catalog(self._tasks.FinishTask, request, repeatable=True, deadline=LONG_DEADLINE)

    async def await_tasks(self, run: RunIdentity, *, after: int, wait: timedelta) -> tuple[task_pb2.Task, ...]:
        """Return the tasks of this claim of a run that ended after a point, waiting for one; empty when none did in time."""
        request = task_pb2.AwaitTasksRequest(
            bucket_id=run.bucket_id,
            run_id=run.run_id,
            fence=run.fence,
            after_sequence=after,
            wait_seconds=int(wait.total_seconds()),
        )
        response = await call_catalog(self._tasks.AwaitTasks, request, repeatable=True, deadline=wait + timedelta(seconds=10))
        return tuple(response.tasks)

    async def drop_tasks(self, run: RunIdentity, names: Sequence[str], *, deadline: timedelta) -> None:
        """Let tasks of this claim of a run be ended, wherever they are."""
        request = task_pb2.DropTasksRequest(bucket_id=run.bucket_id, run_id=run.run_id, fence=run.fence, names=names)
        await call_catalog(self._tasks.DropTasks, request, repeatable=False, deadline=deadline)


def calls_of(tasks: Sequence[task_pb2.NewTask]) -> Iterator[list[task_pb2.NewTask]]:
    """Split tasks into calls."""
    some, size = list[task_pb2.NewTask](), 0
    for task in tasks:
        if some and (len(some) == CREATED_A_CALL or size + task.ByteSize() > CREATED_BYTES):
            yield some
            some, size = [], 0
        some.append(task)
        size += task.ByteSize()
    yield some


def task_from_claim(response: task_pb2.ClaimTaskResponse) -> ClaimedTask:
    """Read one claim."""
    task, run = response.task, response.run
    identity = TaskIdentity(task_id=task.task_id, fence=task.fence)
    return ClaimedTask(
        identity=RunIdentity(
            bucket_id=run.bucket_id,
            run_id=run.run_id,
            seq=run.seq,
            fence=run.fence,
            task=identity,
            worker_fence=read_worker_fence(response),
        ),
        task=identity,
        name=task.name,
        work=task.spec,
        kind=enum_word(run_spec_pb2.RunKind, run.kind),
        spec=run.spec,
        lease=timedelta(seconds=response.lease_seconds),
        known=frozenset(outcome.worker for outcome in task.outcomes),
        hook_env=dict(response.hook_env),
        cancel=CancelLevel(run.cancel),
        traceparent=run.traceparent,
    )
