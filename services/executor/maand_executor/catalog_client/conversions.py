"""Between the catalog's messages and facts. Fields go by their names (see `maand_wire.conversions`); here is what differs."""

from dataclasses import replace

from maand_contracts.catalog.v1 import allocation_pb2, bucket_pb2, invocation_pb2, job_pb2, run_pb2, worker_pb2, workspace_pb2
from maand_executor.rules.facts import (
    Allocation,
    AllocationMove,
    BegunInvocation,
    BucketConfig,
    HealthCheck,
    Hook,
    HttpProbe,
    InvocationEnd,
    InvocationStart,
    Job,
    JobFile,
    PlannedFile,
    Probe,
    SshProbe,
    TcpProbe,
    Worker,
    WorkerFence,
)
from maand_wire.conversions import message_reader, message_writer

to_worker = message_reader(Worker, worker_pb2.Worker, hostname=lambda worker: worker.hostname or worker.name)
to_hook = message_reader(Hook, job_pb2.Hook)
from_hook = message_writer(job_pb2.Hook, Hook)
to_job_file = message_reader(JobFile, workspace_pb2.WorkspaceFile)
to_allocation = message_reader(Allocation, allocation_pb2.Allocation)
_write_allocation = message_writer(allocation_pb2.Allocation, Allocation)
to_planned_file = message_reader(PlannedFile, allocation_pb2.DeployedFile)
to_begun_invocation = message_reader(BegunInvocation, invocation_pb2.BegunInvocation)
from_invocation_start = message_writer(invocation_pb2.InvocationStart, InvocationStart)
from_invocation_end = message_writer(invocation_pb2.InvocationEnd, InvocationEnd)
to_worker_fence = message_reader(WorkerFence, run_pb2.WorkerFence, number=lambda fence: fence.fence)

to_tcp_probe = message_reader(TcpProbe, job_pb2.TcpProbe)
to_http_probe = message_reader(
    HttpProbe, job_pb2.HttpProbe, scheme=lambda probe: "https" if probe.scheme == job_pb2.HTTP_SCHEME_HTTPS else "http"
)
to_ssh_probe = message_reader(SshProbe, job_pb2.SshProbe)


def from_allocation(allocation: Allocation) -> allocation_pb2.Allocation:
    """Write what another executor must know of an allocation; what happened to it there stays with the run's owner."""
    bare = Allocation(allocation_id=allocation.allocation_id, job=allocation.job, worker=allocation.worker)
    untold = {name: getattr(bare, name) for name in ("deployed_sha256", "state", "message", "post_deploy_owed", "start_owed")}
    return _write_allocation(replace(allocation, **untold))


def to_probe(probe: job_pb2.HealthProbe) -> Probe:
    """Read one health probe."""
    match probe.WhichOneof("probe"):
        case "http":
            return to_http_probe(probe.http)
        case "ssh":
            return to_ssh_probe(probe.ssh)
        case _:
            return to_tcp_probe(probe.tcp)


to_health_check = message_reader(HealthCheck, job_pb2.HealthCheck, probes=lambda check: tuple(map(to_probe, check.probes)))
to_job = message_reader(
    Job, job_pb2.Job, health_check=lambda job: to_health_check(job.health_check) if job.HasField("health_check") else None
)
from_move = message_writer(
    allocation_pb2.AllocationMove,
    AllocationMove,
    current_version=lambda move: move.current_version or "",
    deployed_sha256=lambda move: move.deployed_sha256 or b"",
    deployed_files=lambda move: [
        allocation_pb2.DeployedFile(path=file.path, mode=file.mode, sha256=file.sha256) for file in move.deployed_files or ()
    ],
)

_read_config = message_reader(
    BucketConfig, bucket_pb2.BucketConfig, bucket_id=lambda _: "", owner_id=lambda _: "", built=lambda _: False
)


def to_config(bucket: bucket_pb2.Bucket) -> BucketConfig:
    """Read the settings of a bucket, and whether it was ever built."""
    config = _read_config(bucket.config)
    return replace(config, bucket_id=bucket.bucket_id, owner_id=bucket.owner_id, built=bool(bucket.built_by_run_id))
