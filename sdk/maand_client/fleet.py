"""What was built: buckets, workers, jobs and allocations, as the contract's own messages. For viewers."""

from collections.abc import Sequence

from maand_client.calls import Calls
from maand_contracts.catalog.v1 import allocation_pb2, bucket_pb2, job_pb2, worker_pb2
from maand_contracts.catalog.v1.allocation_pb2_grpc import AllocationServiceStub
from maand_contracts.catalog.v1.bucket_pb2_grpc import BucketServiceStub
from maand_contracts.catalog.v1.job_pb2_grpc import JobServiceStub
from maand_contracts.catalog.v1.worker_pb2_grpc import WorkerServiceStub


class Fleet:
    """One bucket as its last build left it, and the state of every allocation."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._buckets = BucketServiceStub(calls.channel)
        self._workers = WorkerServiceStub(calls.channel)
        self._jobs = JobServiceStub(calls.channel)
        self._allocations = AllocationServiceStub(calls.channel)

    async def buckets(self) -> list[bucket_pb2.Bucket]:
        """List the buckets this catalog holds, oldest first: where to find a `bucket_id`."""
        return await self._calls.listed(self._buckets.ListBuckets, bucket_pb2.ListBucketsRequest(), "buckets")

    async def bucket(self) -> bucket_pb2.Bucket:
        """Return the bucket with its settings and counts. NotFound."""
        request = bucket_pb2.GetBucketRequest(bucket_id=self._calls.bucket_id)
        return (await self._calls.repeated(self._buckets.GetBucket, request)).bucket

    async def workers(
        self, *, names: Sequence[str] = (), labels: Sequence[str] = (), include_removed: bool = False
    ) -> list[worker_pb2.Worker]:
        """List workers by position: these, or those with any of these labels; neither = all."""
        request = worker_pb2.ListWorkersRequest(
            bucket_id=self._calls.bucket_id, workers=names, labels=labels, include_removed=include_removed
        )
        return await self._calls.listed(self._workers.ListWorkers, request, "workers")

    async def jobs(self) -> list[job_pb2.Job]:
        """List jobs by name, with hooks and health checks."""
        return await self._calls.listed(self._jobs.ListJobs, job_pb2.ListJobsRequest(bucket_id=self._calls.bucket_id), "jobs")

    async def allocations(
        self, *, jobs: Sequence[str] = (), workers: Sequence[str] = (), include_removed: bool = False
    ) -> list[allocation_pb2.Allocation]:
        """List allocations by job and index, of these jobs and workers; none = all."""
        request = allocation_pb2.ListAllocationsRequest(
            bucket_id=self._calls.bucket_id, jobs=jobs, workers=workers, include_removed=include_removed
        )
        return await self._calls.listed(self._allocations.ListAllocations, request, "allocations")
