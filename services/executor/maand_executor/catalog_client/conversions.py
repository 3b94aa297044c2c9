"""From the catalog's messages to facts, and back for what is written."""

from datetime import timedelta

from maand_contracts.catalog.v1 import allocation_pb2, bucket_pb2, invocation_pb2, job_pb2, worker_pb2, workspace_pb2
from maand_executor.rules.facts import (
    Allocation,
    AllocationMove,
    AllocationState,
    BucketConfig,
    HealthCheck,
    Hook,
    HookScope,
    HostKeyPolicy,
    HttpProbe,
    InvocationOutcome,
    Job,
    JobFile,
    PlannedFile,
    Probe,
    RestartPolicy,
    SshProbe,
    TcpProbe,
    Worker,
)

STATES: dict[AllocationState, "allocation_pb2.AllocationState.ValueType"] = {
    AllocationState.PLANNED: allocation_pb2.ALLOCATION_STATE_PLANNED,
    AllocationState.DEPLOYING: allocation_pb2.ALLOCATION_STATE_DEPLOYING,
    AllocationState.PROMOTED: allocation_pb2.ALLOCATION_STATE_PROMOTED,
    AllocationState.PENDING: allocation_pb2.ALLOCATION_STATE_PENDING,
    AllocationState.FAILED: allocation_pb2.ALLOCATION_STATE_FAILED,
    AllocationState.STOPPED: allocation_pb2.ALLOCATION_STATE_STOPPED,
    AllocationState.REMOVED: allocation_pb2.ALLOCATION_STATE_REMOVED,
}
STATE_OF = {message: state for state, message in STATES.items()}

POLICY_OF = {
    job_pb2.RESTART_POLICY_RELOAD: RestartPolicy.RELOAD,
    job_pb2.RESTART_POLICY_NEVER: RestartPolicy.NEVER,
}

OUTCOMES: dict[InvocationOutcome, "invocation_pb2.InvocationOutcome.ValueType"] = {
    InvocationOutcome.SUCCEEDED: invocation_pb2.INVOCATION_OUTCOME_SUCCEEDED,
    InvocationOutcome.FAILED: invocation_pb2.INVOCATION_OUTCOME_FAILED,
    InvocationOutcome.TIMED_OUT: invocation_pb2.INVOCATION_OUTCOME_TIMED_OUT,
    InvocationOutcome.CANCELLED: invocation_pb2.INVOCATION_OUTCOME_CANCELLED,
    InvocationOutcome.INTERRUPTED: invocation_pb2.INVOCATION_OUTCOME_INTERRUPTED,
}


def to_config(bucket: bucket_pb2.Bucket) -> BucketConfig:
    """Read the settings of a bucket."""
    config = bucket.config
    accept_new = config.host_keys == bucket_pb2.HOST_KEY_POLICY_ACCEPT_NEW
    return BucketConfig(
        bucket_id=bucket.bucket_id,
        built=bool(bucket.built_by_run_id),
        ssh_user=config.ssh_user,
        ssh_key=config.ssh_key,
        ssh_port=config.ssh_port,
        use_sudo=config.use_sudo,
        ssh_config=config.ssh_config,
        worker_root=config.worker_root,
        host_keys=HostKeyPolicy.ACCEPT_NEW if accept_new else HostKeyPolicy.STRICT,
        max_parallel_jobs=config.max_parallel_jobs,
        max_ssh_sessions=config.max_ssh_sessions,
        ssh_starts_per_second=config.ssh_starts_per_second,
        hook_env=tuple(config.hook_env),
        hook_timeout=timedelta(seconds=config.hook_timeout_seconds),
    )


def to_worker(worker: worker_pb2.Worker) -> Worker:
    """Read one worker."""
    return Worker(
        host=worker.host,
        worker_id=worker.worker_id,
        hostname=worker.hostname or worker.host,
        position=worker.position,
        labels=tuple(worker.labels),
        memory_mb=worker.memory_mb,
        cpu_mhz=worker.cpu_mhz,
        tags=dict(worker.tags),
        ssh_user=worker.ssh_user,
        ssh_port=worker.ssh_port,
        disabled=worker.disabled,
        removed=worker.removed,
    )


def to_hook(hook: job_pb2.Hook) -> Hook:
    """Read one hook."""
    return Hook(
        name=hook.name,
        job=hook.job,
        path=hook.path,
        runtime=hook.runtime,
        executed_on=tuple(hook.executed_on),
        timeout=timedelta(seconds=hook.timeout_seconds) if hook.timeout_seconds else None,
        scope=HookScope.ROLLOUT if hook.scope == job_pb2.HOOK_SCOPE_ROLLOUT else HookScope.ALLOCATION,
        demands_job=hook.demands_job,
        demands_hook=hook.demands_hook,
        demand_config_json=hook.demand_config_json,
    )


def from_hook(hook: Hook) -> job_pb2.Hook:
    """Write what another executor must know of a hook."""
    return job_pb2.Hook(
        name=hook.name,
        job=hook.job,
        path=hook.path,
        runtime=hook.runtime,
        executed_on=hook.executed_on,
        timeout_seconds=int(hook.timeout.total_seconds()) if hook.timeout else 0,
        scope=job_pb2.HOOK_SCOPE_ROLLOUT if hook.scope is HookScope.ROLLOUT else job_pb2.HOOK_SCOPE_ALLOCATION,
        demands_job=hook.demands_job,
        demands_hook=hook.demands_hook,
        demand_config_json=hook.demand_config_json,
    )


def to_probe(probe: job_pb2.HealthProbe) -> Probe:
    """Read one health probe."""
    match probe.WhichOneof("probe"):
        case "http":
            http = probe.http
            return HttpProbe(port=http.port, path=http.path, expect_status=http.expect_status, scheme=http.scheme or "http")
        case "ssh":
            return SshProbe(command=probe.ssh.command)
        case _:
            return TcpProbe(port=probe.tcp.port)


def to_health_check(check: job_pb2.HealthCheck) -> HealthCheck:
    """Read the health section."""
    return HealthCheck(
        probes=tuple(to_probe(probe) for probe in check.probes),
        timeout=timedelta(seconds=check.timeout_seconds),
        attempts=check.wait_attempts,
        interval=timedelta(seconds=check.wait_interval_seconds),
    )


def to_job(job: job_pb2.Job) -> Job:
    """Read one job."""
    return Job(
        name=job.name,
        job_id=job.job_id,
        version=job.version,
        max_concurrent_starts=job.max_concurrent_starts,
        max_concurrent_upgrades=job.max_concurrent_upgrades,
        max_concurrent_stops=job.max_concurrent_stops,
        restart_policy=POLICY_OF.get(job.restart_policy, RestartPolicy.ALWAYS),
        restart_globs=tuple(job.restart_globs),
        deployment_seq=job.deployment_seq,
        hooks=tuple(to_hook(hook) for hook in job.hooks),
        health_check=to_health_check(job.health_check) if job.HasField("health_check") else None,
        demanded_jobs=tuple(job.demanded_jobs),
        removed=job.removed,
        has_makefile=job.has_makefile,
    )


def to_job_file(file: workspace_pb2.WorkspaceFile) -> JobFile:
    """Read one stored file."""
    return JobFile(path=file.path, mode=file.mode, sha256=file.sha256, size=file.size, link_target=file.link_target)


def to_allocation(allocation: allocation_pb2.Allocation) -> Allocation:
    """Read one allocation."""
    return Allocation(
        allocation_id=allocation.allocation_id,
        job=allocation.job,
        worker=allocation.worker,
        index=allocation.index,
        removed=allocation.removed,
        disabled=allocation.disabled,
        current_version=allocation.current_version,
        new_version=allocation.new_version,
        deployed_sha256=allocation.deployed_sha256,
        state=STATE_OF.get(allocation.state, AllocationState.PLANNED),
        message=allocation.message,
        post_deploy_owed=allocation.post_deploy_owed,
        start_owed=allocation.start_owed,
    )


def from_allocation(allocation: Allocation) -> allocation_pb2.Allocation:
    """Write what another executor must know of an allocation."""
    return allocation_pb2.Allocation(
        allocation_id=allocation.allocation_id,
        job=allocation.job,
        worker=allocation.worker,
        index=allocation.index,
        removed=allocation.removed,
        disabled=allocation.disabled,
        current_version=allocation.current_version,
        new_version=allocation.new_version,
    )


def to_planned_file(file: allocation_pb2.DeployedFile) -> PlannedFile:
    """Read one deployed file."""
    return PlannedFile(path=file.path, mode=file.mode, sha256=file.sha256)


def from_move(move: AllocationMove) -> allocation_pb2.AllocationMove:
    """Write one state change."""
    return allocation_pb2.AllocationMove(
        allocation_id=move.allocation_id,
        to_state=STATES[move.to_state],
        message=move.message,
        current_version=move.current_version or "",
        deployed_sha256=move.deployed_sha256 or b"",
        deployed_files=[
            allocation_pb2.DeployedFile(path=file.path, mode=file.mode, sha256=file.sha256) for file in move.deployed_files or ()
        ],
    )
