"""What a run can be asked to do, as the contract's `RunSpec`, from typed arguments. Pure.

deploy(jobs=["api"])   run_command("uptime", labels=["db"])   hooks("hook_backup", job="api")   health_check(wait=True)
job_control("api", "restart")   probe_workers("ping")   build(snapshot_id)   collect_garbage(retain_days=30)
"""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from types import MappingProxyType
from typing import Literal

from maand_contracts.catalog.v1 import run_spec_pb2 as pb

Action = Literal["start", "stop", "restart", "run", "status"]
ACTIONS: dict[Action, pb.JobAction.ValueType] = {
    "start": pb.JOB_ACTION_START,
    "stop": pb.JOB_ACTION_STOP,
    "restart": pb.JOB_ACTION_RESTART,
    "run": pb.JOB_ACTION_RUN,
    "status": pb.JOB_ACTION_STATUS,
}

Probe = Literal["ping", "facts", "host_keys", "owner"]
PROBES: dict[Probe, pb.WorkerProbe.ValueType] = {
    "ping": pb.WORKER_PROBE_PING,
    "facts": pb.WORKER_PROBE_FACTS,
    "host_keys": pb.WORKER_PROBE_HOST_KEYS,
    "owner": pb.WORKER_PROBE_OWNER,
}

NOTHING_CONFIRMED: Mapping[str, Sequence[str]] = MappingProxyType({})


def build(snapshot_id: str) -> pb.RunSpec:
    """Build a workspace snapshot (WorkspaceService.CreateSnapshot returned its id)."""
    return pb.RunSpec(build=pb.BuildSpec(snapshot_id=snapshot_id))


def deploy(
    *,
    jobs: Sequence[str] = (),
    dry_run: bool = False,
    force: bool = False,
    sync_only: bool = False,
    skip_unreachable: bool = False,
    build_snapshot_id: str = "",
) -> pb.RunSpec:
    """Deploy these jobs (none = all) as they were built, or after building a snapshot."""
    return pb.RunSpec(
        deploy=pb.DeploySpec(
            jobs=jobs,
            dry_run=dry_run,
            force=force,
            sync_only=sync_only,
            skip_unreachable=skip_unreachable,
            build_snapshot_id=build_snapshot_id,
        )
    )


def hooks(hook: str, *, job: str = "", args: Sequence[str] = ()) -> pb.RunSpec:
    """Run a hook on event `cli`, of one job or of every job that registers it."""
    return pb.RunSpec(hooks=pb.HooksSpec(hook=hook, job=job, args=args))


def run_command(
    command: str,
    *,
    workers: Sequence[str] = (),
    labels: Sequence[str] = (),
    concurrency: int = 0,
    command_timeout: timedelta = timedelta(),
) -> pb.RunSpec:
    """Run a shell command on these workers, or those with any of these labels (neither = all); `concurrency` 0 = all at once."""
    return pb.RunSpec(
        run_command=pb.RunCommandSpec(
            command=command,
            workers=workers,
            labels=labels,
            concurrency=concurrency,
            command_timeout_seconds=whole_seconds(command_timeout),
        )
    )


def health_check(*, jobs: Sequence[str] = (), wait: bool = False) -> pb.RunSpec:
    """Check the health of these jobs (none = all); `wait` retries until healthy, as the manifests say."""
    return pb.RunSpec(health_check=pb.HealthCheckSpec(jobs=jobs, wait=wait))


def job_control(job: str, action: Action, *, workers: Sequence[str] = (), target: str = "", batch: int = 0) -> pb.RunSpec:
    """Start, stop or restart a job, report its status, or `run` one of its make targets."""
    control = pb.JobControlSpec(job=job, action=ACTIONS[action], workers=workers, target=target, batch=batch)
    return pb.RunSpec(job_control=control)


def probe_workers(
    probe: Probe,
    *,
    workers: Sequence[str] = (),
    pin: bool = False,
    replace_changed: bool = False,
    confirmed: Mapping[str, Sequence[str]] = NOTHING_CONFIRMED,
    adopt: bool = False,
    adopt_other_bucket: bool = False,
) -> pb.RunSpec:
    """Reach workers (none = all): ping them, read their facts, scan (and pin) host keys, or ask whose they are (and adopt).

    `pin` pins what `confirmed` holds: by worker, the fingerprints of all host keys that it showed to whoever confirmed them.
    """
    asked = pb.WorkerProbeSpec(
        probe=PROBES[probe],
        workers=workers,
        pin=pin,
        replace_changed=replace_changed,
        confirmed=[pb.ConfirmedHostKeys(worker=name, fingerprints=shown) for name, shown in confirmed.items()],
        adopt=adopt,
        adopt_other_bucket=adopt_other_bucket,
    )
    return pb.RunSpec(worker_probe=asked)


def collect_garbage(*, retain_days: int, dry_run: bool = False) -> pb.RunSpec:
    """Forget removed allocations, and history older than `retain_days`."""
    return pb.RunSpec(gc=pb.GcSpec(retain_days=retain_days, dry_run=dry_run))


def whole_seconds(limit: timedelta) -> int:
    """Return a duration in whole seconds, rounded up: a limit never becomes 0, which means none."""
    return -(-limit // timedelta(seconds=1))
