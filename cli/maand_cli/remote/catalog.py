"""The catalog and the executor as this command line calls them: the only module that names their stubs.

Every call has a limit, failures come back as `RemoteError` with the server's own words, and calls that may be repeated are
repeated while a service is coming up or moving.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import Any, TypeVar

import grpc.aio
from google.protobuf.message import Message

from maand_contracts.catalog.v1 import (
    bucket_pb2,
    bucket_pb2_grpc,
    run_event_pb2,
    run_pb2,
    run_pb2_grpc,
    run_spec_pb2,
    workspace_pb2,
    workspace_pb2_grpc,
)
from maand_wire import calls
from maand_wire.errors import RemoteError, remote_errors

A = TypeVar("A", bound=Message)

CALL_SECONDS = 30.0
UPLOAD_SECONDS = 600.0
RETRY_PAUSES_SECONDS = (0.05, 0.2, 0.5, 1.0)


class Catalog:
    """One bucket's catalog. `stub` gives the stubs that have no intention of their own here."""

    def __init__(self, channel: grpc.aio.Channel, bucket_id: str) -> None:
        self.channel = channel
        self.bucket_id = bucket_id
        self.runs = run_pb2_grpc.RunServiceStub(channel)
        self.workspaces = workspace_pb2_grpc.WorkspaceServiceStub(channel)
        self.buckets = bucket_pb2_grpc.BucketServiceStub(channel)

    async def apply_config(self, maand_conf: bytes) -> bucket_pb2.Bucket:
        """Make `maand.conf` the bucket's settings; RemoteError with positions when it is wrong."""
        request = bucket_pb2.ApplyBucketConfigRequest(bucket_id=self.bucket_id, maand_conf=maand_conf)
        return (await call_rpc(self.buckets.ApplyBucketConfig, request)).bucket

    async def get_bucket(self, *, repeat: bool = True, seconds: float = CALL_SECONDS) -> bucket_pb2.Bucket:
        """Return the bucket with its counts."""
        request = bucket_pb2.GetBucketRequest(bucket_id=self.bucket_id)
        return (await call_rpc(self.buckets.GetBucket, request, seconds=seconds, repeat=repeat)).bucket

    async def missing_blobs(self, digests: Sequence[bytes]) -> list[bytes]:
        """Tell which contents are to be uploaded."""
        missing: list[bytes] = []
        for begin in range(0, len(digests), 10_000):
            request = workspace_pb2.FindMissingBlobsRequest(bucket_id=self.bucket_id, sha256=digests[begin : begin + 10_000])
            missing += (await call_rpc(self.workspaces.FindMissingBlobs, request)).missing_sha256
        return missing

    async def upload_blobs(self, pieces: AsyncIterator[workspace_pb2.UploadBlobsRequest]) -> None:
        """Store contents, piece by piece."""
        with remote_errors():
            await self.workspaces.UploadBlobs(pieces, timeout=UPLOAD_SECONDS)

    async def create_snapshot(self, files: Iterable[workspace_pb2.WorkspaceFile]) -> str:
        """Remember a workspace tree and return its id."""
        request = workspace_pb2.CreateSnapshotRequest(bucket_id=self.bucket_id, files=files)
        return (await call_rpc(self.workspaces.CreateSnapshot, request, seconds=UPLOAD_SECONDS)).snapshot_id

    async def get_snapshot(self, snapshot_id: str) -> list[workspace_pb2.WorkspaceFile]:
        """Return the files of a workspace tree."""
        request = workspace_pb2.GetSnapshotRequest(bucket_id=self.bucket_id, snapshot_id=snapshot_id)
        return list((await call_rpc(self.workspaces.GetSnapshot, request)).files)

    async def create_run(self, request: run_pb2.CreateRunRequest) -> run_pb2.Run:
        """Ask for an operation; repeatable by the request's id."""
        return (await call_rpc(self.runs.CreateRun, request)).run

    async def get_run(self, run_id: str) -> run_pb2.Run:
        """Return one run."""
        return (await call_rpc(self.runs.GetRun, run_pb2.GetRunRequest(bucket_id=self.bucket_id, run_id=run_id))).run

    async def list_runs(
        self,
        *,
        kinds: Sequence[run_spec_pb2.RunKind.ValueType] = (),
        states: Sequence[run_pb2.RunState.ValueType] = (),
        limit: int = 20,
    ) -> list[run_pb2.Run]:
        """List runs, newest first."""
        request = run_pb2.ListRunsRequest(bucket_id=self.bucket_id, kinds=kinds, states=states, page_size=min(limit, 100))
        return [run async for run in list_items(self.runs.ListRuns, request, "runs", limit=limit)]

    async def cancel_run(self, run_id: str, requested_by: str) -> run_pb2.CancelLevel.ValueType:
        """Ask a run to stop, a second time to stop now. Not repeated by itself: the second call means something else."""
        request = run_pb2.CancelRunRequest(bucket_id=self.bucket_id, run_id=run_id, requested_by=requested_by)
        return (await call_rpc(self.runs.CancelRun, request, repeat=False)).cancel

    async def resume_run(self, run_id: str, *, again: bool = False) -> run_pb2.Run:
        """Make an interrupted run claimable again."""
        request = run_pb2.ResumeRunRequest(bucket_id=self.bucket_id, run_id=run_id, again=again)
        return (await call_rpc(self.runs.ResumeRun, request)).run

    async def watch_run(self, run_id: str, *, after: int = 0, follow: bool = True) -> AsyncIterator[run_event_pb2.RunEvent]:
        """Stream a run's events in order."""
        request = run_pb2.WatchRunRequest(bucket_id=self.bucket_id, run_id=run_id, after_sequence=after, follow=follow)
        with remote_errors():
            async for response in self.runs.WatchRun(request):
                for event in response.events:
                    yield event


async def call_rpc(
    method: Callable[..., Awaitable[A]], request: Message, *, seconds: float = CALL_SECONDS, repeat: bool = True
) -> A:
    """Call once; a service that is not there (yet) is asked again for about two seconds when `repeat`."""
    pauses = RETRY_PAUSES_SECONDS if repeat else ()
    return await calls.call_rpc(method, request, seconds=seconds, pauses=pauses, when=calls.is_passing)


def list_items(
    method: Callable[..., Awaitable[Any]], request: Any, items: str, *, limit: int | None = None
) -> AsyncIterator[Any]:
    """Give the items of every page, at most `limit`."""
    return calls.read_pages(partial(call_rpc, method), request, items, limit=limit)


async def get_executor_status(address: str) -> dict[str, Any]:
    """Return what an executor does, or why it does not say."""
    from maand_cli.output.message_dicts import to_dict
    from maand_contracts.executor.v1 import executor_pb2, executor_pb2_grpc  # here, because only two commands ask the executor
    from maand_wire.channels import open_channel
    from maand_wire.endpoints import Endpoint

    async with open_channel(Endpoint(address=address)) as channel:
        stub = executor_pb2_grpc.ExecutorServiceStub(channel)
        try:
            answer = await call_rpc(stub.GetExecutorStatus, executor_pb2.GetExecutorStatusRequest(), seconds=5)
        except RemoteError as error:
            return {"problem": f"the executor does not answer: {error.message}"}
    known = to_dict(answer)
    return {name: known[name] for name in ("executor_id", "run_ids", "ssh_connections", "hook_processes")}


__all__ = ["Catalog", "RemoteError", "call_rpc", "get_executor_status", "list_items"]
