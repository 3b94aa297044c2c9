"""Calls about what was built: buckets, workers, jobs, stored content."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import timedelta

import grpc
import grpc.aio

from maand_contracts.catalog.v1 import bucket_pb2, job_pb2, worker_pb2, workspace_pb2
from maand_contracts.catalog.v1.bucket_pb2_grpc import BucketServiceStub
from maand_contracts.catalog.v1.job_pb2_grpc import JobServiceStub
from maand_contracts.catalog.v1.worker_pb2_grpc import WorkerServiceStub
from maand_contracts.catalog.v1.workspace_pb2_grpc import WorkspaceServiceStub
from maand_executor.catalog_client.calls import call_catalog, list_all, open_stream
from maand_executor.catalog_client.conversions import to_config, to_job, to_job_file, to_worker
from maand_executor.rules.facts import BucketConfig, Job, JobFile, RolloutOrder, RunIdentity, Worker
from maand_wire.errors import RemoteError

BLOBS_A_CALL = 10_000
BLOB_STREAMS_TRIED = 5
BUILD_DEADLINE = timedelta(minutes=10)
"""Limit of one build transaction: 100,000 allocations."""


@dataclass(frozen=True, kw_only=True)
class BlobPiece:
    """Consecutive bytes of one content. `offset` 0 begins it, anew when an earlier stream of it broke."""

    sha256: bytes
    offset: int
    data: bytes
    last: bool


@dataclass(frozen=True, kw_only=True)
class BuildReport:
    """What a build did."""

    changed: bool
    counts: dict[str, int]
    warnings: tuple[str, ...]


class FleetCalls:
    """BucketService, WorkerService, JobService, WorkspaceService."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._buckets = BucketServiceStub(channel)
        self._workers = WorkerServiceStub(channel)
        self._jobs = JobServiceStub(channel)
        self._workspaces = WorkspaceServiceStub(channel)

    async def read_config(self, bucket_id: str) -> BucketConfig:
        """Return the bucket's settings in force."""
        response = await call_catalog(self._buckets.GetBucket, bucket_pb2.GetBucketRequest(bucket_id=bucket_id), repeatable=True)
        return to_config(response.bucket)

    async def list_workers(
        self, bucket_id: str, *, names: Sequence[str] = (), labels: Sequence[str] = (), include_removed: bool = False
    ) -> tuple[Worker, ...]:
        """Return workers by position."""
        request = worker_pb2.ListWorkersRequest(
            bucket_id=bucket_id, workers=names, labels=labels, include_removed=include_removed
        )
        return tuple(map(to_worker, await list_all(self._workers.ListWorkers, request, "workers")))

    async def forget_workers(self, bucket_id: str, names: Sequence[str]) -> None:
        """Give up workers that left. Raises `RemoteError` for any other."""
        request = worker_pb2.ForgetWorkersRequest(bucket_id=bucket_id, workers=names)
        await call_catalog(self._workers.ForgetWorkers, request, repeatable=True)

    async def list_jobs(self, bucket_id: str, *, names: Sequence[str] = (), include_removed: bool = False) -> tuple[Job, ...]:
        """Return jobs by name. Raises `RemoteError` with code `not_found` for an unknown name."""
        request = job_pb2.ListJobsRequest(bucket_id=bucket_id, names=names, include_removed=include_removed)
        return tuple(map(to_job, await list_all(self._jobs.ListJobs, request, "jobs")))

    async def list_job_files(self, bucket_id: str, job: str) -> tuple[JobFile, ...]:
        """Return the stored files of one job by path, `_hooks/…` included."""
        request = job_pb2.ListJobFilesRequest(bucket_id=bucket_id, job=job)
        return tuple(map(to_job_file, await list_all(self._jobs.ListJobFiles, request, "files")))

    async def read_rollout_order(self, bucket_id: str, job: str) -> RolloutOrder:
        """Return the rollout order in force."""
        request = job_pb2.GetRolloutOrderRequest(bucket_id=bucket_id, job=job)
        response = await call_catalog(self._jobs.GetRolloutOrder, request, repeatable=True)
        return RolloutOrder(workers=tuple(response.workers), set_by_hook=response.set_by_hook, warning=response.warning)

    async def build_snapshot(self, run: RunIdentity, snapshot_id: str) -> BuildReport:
        """Build a snapshot. Raises `RemoteError` with `problems` when the workspace is wrong; then nothing changed."""
        request = workspace_pb2.BuildSnapshotRequest(
            bucket_id=run.bucket_id, snapshot_id=snapshot_id, run_id=run.run_id, fence=run.fence
        )
        response = await call_catalog(self._workspaces.BuildSnapshot, request, repeatable=True, deadline=BUILD_DEADLINE)
        return to_build_report(response)

    async def read_blobs(self, bucket_id: str, digests: Sequence[bytes]) -> AsyncIterator[BlobPiece]:
        """Yield stored contents piece by piece, each once; after a broken stream the unfinished ones begin anew at offset 0."""
        wanted = list(dict.fromkeys(digests))
        failures = 0
        while wanted:
            done = 0
            try:
                async for piece in self._read_blobs_once(bucket_id, wanted[:BLOBS_A_CALL]):
                    yield piece
                    done += piece.last
            except RemoteError as error:
                failures += 1
                if error.status is not grpc.StatusCode.UNAVAILABLE or failures == BLOB_STREAMS_TRIED:
                    raise
            del wanted[:done]

    async def _read_blobs_once(self, bucket_id: str, digests: Sequence[bytes]) -> AsyncIterator[BlobPiece]:
        request = workspace_pb2.ReadBlobsRequest(bucket_id=bucket_id, sha256=digests)
        offset = 0
        async for message in open_stream(self._workspaces.ReadBlobs, request, deadline=BUILD_DEADLINE):
            yield BlobPiece(sha256=message.sha256, offset=offset, data=message.data, last=message.last)
            offset = 0 if message.last else offset + len(message.data)


def to_build_report(response: workspace_pb2.BuildSnapshotResponse) -> BuildReport:
    """Read what a build did."""
    return BuildReport(
        changed=response.changed,
        counts={
            "jobs": response.jobs,
            "workers": response.workers,
            "active_allocations": response.active_allocations,
            "added_allocations": response.added_allocations,
            "removed_allocations": response.removed_allocations,
            "issued_certificates": response.issued_certificates,
        },
        warnings=tuple(response.warnings),
    )
