"""What was built, as rows: one function per noun, each row a plain dictionary with every field."""

from collections.abc import Sequence
from typing import Any

from google.protobuf.message import Message

from maand_cli.output.message_dicts import to_dict
from maand_cli.remote.catalog import Catalog, call_rpc, list_items
from maand_contracts.catalog.v1 import (
    allocation_pb2,
    allocation_pb2_grpc,
    job_pb2,
    job_pb2_grpc,
    worker_pb2,
    worker_pb2_grpc,
)
from maand_wire.calls import read_pages

Rows = list[dict[str, Any]]


async def worker_rows(
    catalog: Catalog, *, names: Sequence[str] = (), labels: Sequence[str] = (), include_removed: bool = False
) -> Rows:
    """List workers by position."""
    request = worker_pb2.ListWorkersRequest(
        bucket_id=catalog.bucket_id, workers=names, labels=labels, include_removed=include_removed
    )
    return await _rows(list_items(worker_pb2_grpc.WorkerServiceStub(catalog.channel).ListWorkers, request, "workers"))


async def forget_workers(catalog: Catalog, names: Sequence[str]) -> None:
    """Give up workers that left."""
    request = worker_pb2.ForgetWorkersRequest(bucket_id=catalog.bucket_id, workers=names)
    await call_rpc(worker_pb2_grpc.WorkerServiceStub(catalog.channel).ForgetWorkers, request)


async def job_rows(catalog: Catalog, *, jobs: Sequence[str] = (), include_removed: bool = False) -> Rows:
    """List jobs by name."""
    request = job_pb2.ListJobsRequest(bucket_id=catalog.bucket_id, names=jobs, include_removed=include_removed)
    return await _rows(list_items(job_pb2_grpc.JobServiceStub(catalog.channel).ListJobs, request, "jobs"))


async def hook_rows(catalog: Catalog, *, jobs: Sequence[str] = ()) -> Rows:
    """List the hooks of jobs."""
    return [hook for job in await job_rows(catalog, jobs=jobs) for hook in job["hooks"]]


async def allocation_rows(
    catalog: Catalog, *, jobs: Sequence[str] = (), workers: Sequence[str] = (), include_removed: bool = False
) -> Rows:
    """List allocations by job and index."""
    request = allocation_pb2.ListAllocationsRequest(
        bucket_id=catalog.bucket_id, jobs=jobs, workers=workers, include_removed=include_removed
    )
    stub = allocation_pb2_grpc.AllocationServiceStub(catalog.channel)
    return await _rows(list_items(stub.ListAllocations, request, "allocations"))


async def deployment_rows(catalog: Catalog, *, jobs: Sequence[str] = ()) -> Rows:
    """Sum up allocations by job: versions, and how many are in which state."""
    known = {job["name"]: job for job in await job_rows(catalog, jobs=jobs)}
    by_job: dict[str, Rows] = {name: [] for name in known}
    for allocation in await allocation_rows(catalog, jobs=jobs):
        by_job.setdefault(allocation["job"], []).append(allocation)
    return [_deployment(name, known.get(name, {}), allocations) for name, allocations in by_job.items()]


async def port_rows(catalog: Catalog) -> Rows:
    """List ports by name."""
    request = job_pb2.ListPortsRequest(bucket_id=catalog.bucket_id)
    return await _rows(list_items(job_pb2_grpc.JobServiceStub(catalog.channel).ListPorts, request, "ports"))


async def certificate_rows(
    catalog: Catalog, *, jobs: Sequence[str] = (), ending_only: bool = False
) -> tuple[Rows, dict[str, Any] | None]:
    """List certificates by job, name and worker, without keys; and tell of the CA of the last build, if there is one."""
    stub = allocation_pb2_grpc.AllocationServiceStub(catalog.channel)
    authority: dict[str, Any] | None = None

    async def read(request: allocation_pb2.ListCertificatesRequest) -> allocation_pb2.ListCertificatesResponse:
        nonlocal authority
        response = await call_rpc(stub.ListCertificates, request)
        authority = to_dict(response.authority) if response.HasField("authority") else None
        return response

    request = allocation_pb2.ListCertificatesRequest(bucket_id=catalog.bucket_id, jobs=jobs, ending_only=ending_only)
    rows = await _rows(read_pages(read, request, "certificates"))
    return rows, authority


def _deployment(name: str, job: dict[str, Any], allocations: Rows) -> dict[str, Any]:
    states: dict[str, int] = {}
    for allocation in allocations:
        state = "disabled" if allocation["disabled"] and allocation["state"] == "planned" else allocation["state"]
        states[state] = states.get(state, 0) + 1
    return {
        "job": name,
        "version": job.get("version", ""),
        "running": sorted({allocation["current_version"] for allocation in allocations}),
        "deployment_seq": job.get("deployment_seq", 0),
        "allocations": len(allocations),
        "states": states,
        "since": max((allocation["state_since"] or "" for allocation in allocations), default=""),
    }


async def _rows(messages: Any) -> Rows:
    return [to_dict(message) async for message in messages if isinstance(message, Message)]
