"""Tasks in one line each, for tests of what the catalog does with them."""

from datetime import timedelta

import pytest

from maand_contracts.catalog.v1 import run_event_pb2 as events
from maand_contracts.catalog.v1 import run_pb2
from maand_contracts.catalog.v1 import task_pb2 as pb
from maand_wire.errors import RemoteError, remote_errors
from tests.contracts.catalog.conftest import ShiftedClock
from tests.contracts.catalog.run_builders import COMMAND, a_bucket, a_create, an_output
from tests.contracts.catalog.run_verbs import create, must_claim
from tests.contracts.catalog.serving import ServedCatalog

COMMAND_WORK = pb.TaskSpec(command=pb.CommandTask())
LOGIN_WORK = pb.TaskSpec(login=pb.LoginTask())


async def an_owned_run(catalog: ServedCatalog) -> run_pb2.Run:
    await create(catalog, a_create(await a_bucket(catalog.database), COMMAND))
    return await must_claim(catalog, "owner")


def a_task(name: str, work: pb.TaskSpec = COMMAND_WORK) -> pb.NewTask:
    spec = pb.TaskSpec(workers=[f"{name}-1", f"{name}-2"])
    spec.MergeFrom(work)
    return pb.NewTask(name=name, spec=spec)


def done(worker: str) -> pb.WorkerOutcome:
    return pb.WorkerOutcome(worker=worker, outcome=events.STEP_OUTCOME_SUCCEEDED)


async def split(catalog: ServedCatalog, run: run_pb2.Run, *new: pb.NewTask) -> None:
    with remote_errors():
        request = pb.CreateTasksRequest(bucket_id=run.bucket_id, run_id=run.run_id, fence=run.fence, tasks=new)
        await catalog.local.tasks.CreateTasks(request)


async def claim(catalog: ServedCatalog, executor_id: str = "helper", *, seconds: int = 0, run_id: str = "") -> pb.Task | None:
    with remote_errors():
        request = pb.ClaimTaskRequest(executor_id=executor_id, wait_seconds=seconds, run_id=run_id)
        response = await catalog.local.tasks.ClaimTask(request)
    return response.task if response.HasField("task") else None


async def must_claim_task(catalog: ServedCatalog, executor_id: str = "helper", *, seconds: int = 0) -> pb.Task:
    task = await claim(catalog, executor_id, seconds=seconds)
    assert task is not None, "no task was to be claimed"
    return task


async def renew(catalog: ServedCatalog, run: run_pb2.Run, task: pb.Task, *outcomes: pb.WorkerOutcome) -> pb.RenewTaskResponse:
    with remote_errors():
        request = pb.RenewTaskRequest(bucket_id=run.bucket_id, task_id=task.task_id, fence=task.fence, outcomes=outcomes)
        return await catalog.local.tasks.RenewTask(request)


async def end(
    catalog: ServedCatalog, run: run_pb2.Run, task: pb.Task, *outcomes: pb.WorkerOutcome, given_up: bool = False
) -> None:
    with remote_errors():
        request = pb.FinishTaskRequest(
            bucket_id=run.bucket_id, task_id=task.task_id, fence=task.fence, outcomes=outcomes, given_up=given_up
        )
        await catalog.local.tasks.FinishTask(request)


async def ended(catalog: ServedCatalog, run: run_pb2.Run, *, after: int = 0, seconds: int = 0) -> list[pb.Task]:
    with remote_errors():
        request = pb.AwaitTasksRequest(
            bucket_id=run.bucket_id, run_id=run.run_id, fence=run.fence, after_sequence=after, wait_seconds=seconds
        )
        return list((await catalog.local.tasks.AwaitTasks(request)).tasks)


async def say(catalog: ServedCatalog, run: run_pb2.Run, task: pb.Task, text: str) -> None:
    """Append an event of the run under the claim of a task."""
    with remote_errors():
        request = run_pb2.AppendEventsRequest(
            bucket_id=run.bucket_id, run_id=run.run_id, fence=task.fence, task_id=task.task_id, events=[an_output(text)]
        )
        await catalog.local.runs.AppendEvents(request)


async def cancel(catalog: ServedCatalog, run: run_pb2.Run) -> None:
    with remote_errors():
        await catalog.local.runs.CancelRun(run_pb2.CancelRunRequest(bucket_id=run.bucket_id, run_id=run.run_id))


async def refuses_everything(catalog: ServedCatalog, run: run_pb2.Run, task: pb.Task) -> None:
    """Assert that nothing can be written under this claim of a task any more."""
    for act in (renew(catalog, run, task), end(catalog, run, task), say(catalog, run, task, "late")):
        with pytest.raises(RemoteError) as caught:
            await act
        assert caught.value.code == "stale_fence"


async def let_tasks_lapse(catalog: ServedCatalog, run: run_pb2.Run, clock: ShiftedClock) -> None:
    """Let time go by in which the owner renews and nobody else does."""
    for _ in range(2):
        clock.advance(timedelta(seconds=10))
        request = run_pb2.RenewLeaseRequest(bucket_id=run.bucket_id, run_id=run.run_id, fence=run.fence)
        await catalog.local.runs.RenewLease(request)
