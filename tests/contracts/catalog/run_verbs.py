"""What clients and executors do with runs, over real gRPC, in one word each. Errors arrive as RemoteError."""

from collections.abc import AsyncIterator, Sequence

from maand_contracts.catalog.v1 import run_event_pb2 as events
from maand_contracts.catalog.v1 import run_pb2 as pb
from maand_wire.errors import remote_errors
from tests.contracts.catalog.serving import ServedCatalog


async def create(catalog: ServedCatalog, request: pb.CreateRunRequest) -> pb.Run:
    with remote_errors():
        return (await catalog.local.runs.CreateRun(request)).run


async def claim(catalog: ServedCatalog, executor_id: str = "e1") -> pb.Run | None:
    with remote_errors():
        response = await catalog.local.runs.ClaimRun(pb.ClaimRunRequest(executor_id=executor_id))
    return response.run if response.HasField("run") else None


async def finish(catalog: ServedCatalog, run: pb.Run, state: pb.RunState.ValueType = pb.RUN_STATE_SUCCEEDED) -> None:
    with remote_errors():
        await catalog.local.runs.FinishRun(
            pb.FinishRunRequest(bucket_id=run.bucket_id, run_id=run.run_id, fence=run.fence, state=state)
        )


async def resume(catalog: ServedCatalog, run: pb.Run, *, again: bool = False) -> pb.Run:
    with remote_errors():
        request = pb.ResumeRunRequest(bucket_id=run.bucket_id, run_id=run.run_id, again=again)
        return (await catalog.local.runs.ResumeRun(request)).run


async def get(catalog: ServedCatalog, run: pb.Run) -> pb.Run:
    with remote_errors():
        return (await catalog.local.runs.GetRun(pb.GetRunRequest(bucket_id=run.bucket_id, run_id=run.run_id))).run


async def claim_within(catalog: ServedCatalog, *, seconds: int, executor_id: str = "e1") -> pb.ClaimRunResponse:
    with remote_errors():
        return await catalog.local.runs.ClaimRun(pb.ClaimRunRequest(executor_id=executor_id, wait_seconds=seconds))


async def must_claim(catalog: ServedCatalog, executor_id: str = "e1") -> pb.Run:
    run = await claim(catalog, executor_id)
    assert run is not None, "nothing was to be claimed"
    return run


async def renew(catalog: ServedCatalog, run: pb.Run) -> pb.RenewLeaseResponse:
    with remote_errors():
        request = pb.RenewLeaseRequest(bucket_id=run.bucket_id, run_id=run.run_id, fence=run.fence)
        return await catalog.local.runs.RenewLease(request)


async def append(catalog: ServedCatalog, run: pb.Run, *sent: events.RunEvent, request_id: str = "") -> int:
    with remote_errors():
        request = pb.AppendEventsRequest(
            bucket_id=run.bucket_id, run_id=run.run_id, fence=run.fence, events=sent, request_id=request_id
        )
        return (await catalog.local.runs.AppendEvents(request)).last_sequence


async def record(catalog: ServedCatalog, run: pb.Run, *names: str) -> None:
    with remote_errors():
        request = pb.RecordStepsRequest(bucket_id=run.bucket_id, run_id=run.run_id, fence=run.fence, names=names)
        await catalog.local.runs.RecordSteps(request)


async def steps(catalog: ServedCatalog, run: pb.Run) -> Sequence[str]:
    with remote_errors():
        return (await catalog.local.runs.ListSteps(pb.ListStepsRequest(bucket_id=run.bucket_id, run_id=run.run_id))).names


async def watch(catalog: ServedCatalog, run: pb.Run, *, after: int = 0, follow: bool = True) -> AsyncIterator[events.RunEvent]:
    request = pb.WatchRunRequest(bucket_id=run.bucket_id, run_id=run.run_id, after_sequence=after, follow=follow)
    with remote_errors():
        async for response in catalog.local.runs.WatchRun(request):
            for event in response.events:
                yield event
