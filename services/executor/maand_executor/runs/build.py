"""A build: the catalog turns the snapshot into placed state in one transaction, then the `post_build` hooks run.

Hooks run in `deployment_seq` order; a failure fails the build. What was built stays, and the hooks run again with the next build.

The build is a recorded step of its run: whoever takes the run over does not build again, which would put rollout orders back that
hooks of the run have set meanwhile.
"""

from maand_contracts.catalog.v1 import run_event_pb2 as pb
from maand_executor.catalog_client import BuildReport
from maand_executor.errors import JobCancelled, RunCancelled, RunFailed
from maand_executor.rules.facts import Job
from maand_executor.rules.waves import group_into_waves, in_rollout_order
from maand_executor.steps.context import RunContext
from maand_executor.steps.event_hooks import StepMemory, failures_or_cancelled, remember_all, run_event_hooks
from maand_executor.steps.fleet import Fleet, read_fleet
from maand_wire.errors import RemoteError

BUILT = "build"
"""The step that is recorded once the catalog has built."""


async def run_build(context: RunContext) -> None:
    """Build the snapshot that was asked for."""
    await build_snapshot(context, context.spec.build.snapshot_id)


async def build_snapshot(context: RunContext, snapshot_id: str) -> None:
    """Build and run `post_build`. Raises `RunFailed`, with positions when the workspace is wrong; then nothing changed."""
    memory = await remember_all(context)
    if not memory.done(BUILT):
        tell_build(context, await change_catalog(context, snapshot_id))
        await memory.record(BUILT)
    built = await context.catalog.read_config(context.identity.bucket_id)
    fleet = await read_fleet(context.with_config(built))
    if not context.report.message:
        tell_build(context, report_earlier_build(fleet))
    await run_post_build(context, fleet, memory)


async def change_catalog(context: RunContext, snapshot_id: str) -> BuildReport:
    """Let the catalog build, in one transaction."""
    try:
        return await context.catalog.build_snapshot(context.identity, snapshot_id)
    except RemoteError as error:
        if not error.problems:
            raise
        failure = pb.Failure(kind=pb.FAILURE_KIND_INVALID, message=error.message, help=error.help)
        raise RunFailed(error.message, failures=[failure], problems=error.problems) from error


def tell_build(context: RunContext, report: BuildReport) -> None:
    """Tell what a build did."""
    for warning in report.warnings:
        context.warn(warning)
    context.report.changes = report.changed
    context.report.message = describe_build(report)
    for outcome, number in report.counts.items():
        context.report.count(outcome, number)


def report_earlier_build(fleet: Fleet) -> BuildReport:
    """Return what is known of the build of an earlier owner of the run: what is there now."""
    present = fleet.present_jobs()
    active = sum(len(fleet.active_of_job(job)) for job in present)
    workers = sum(not worker.removed for worker in fleet.workers.values())
    counts = {"jobs": len(present), "workers": workers, "active_allocations": active}
    return BuildReport(changed=True, counts=counts, warnings=())


async def run_post_build(context: RunContext, fleet: Fleet, memory: StepMemory) -> None:
    """Run the hooks, demanded jobs first. Raises `RunFailed` at the first job whose hooks fail."""
    for wave in group_into_waves(fleet.present_jobs().values()):
        for job in wave:
            await run_hooks_of(context, fleet, job, memory)


async def run_hooks_of(context: RunContext, fleet: Fleet, job: Job, memory: StepMemory) -> None:
    """Run one job's `post_build` hooks."""
    allocations = fleet.active_of_job(job.name)
    if not job.hooks_on("post_build") or not allocations:
        return
    order = await context.catalog.read_rollout_order(context.identity.bucket_id, job.name)
    ordered = in_rollout_order(allocations, order.workers)
    outcome = await run_event_hooks(context, fleet, job, "post_build", ordered, order=order, memory=memory)
    try:
        failures = failures_or_cancelled(job.name, outcome)
    except JobCancelled as cancelled:
        message = "built, but stopped before all post_build hooks had run; they run again with the next build"
        raise RunCancelled(message) from cancelled
    if failures:
        message = f"built, but the post_build hooks of {job.name} failed; they run again with the next build"
        raise RunFailed(message, failures=failures)


def describe_build(report: BuildReport) -> str:
    """Say in one sentence what a build did."""
    counts = report.counts
    size = f"{counts['jobs']} jobs on {counts['workers']} workers, {counts['active_allocations']} allocations"
    if not report.changed:
        return f"nothing changed: {size}"
    if "added_allocations" not in counts:
        return f"built {size}"  # by an earlier owner of the run, who took the other numbers with it
    return f"built {size} ({counts['added_allocations']} new, {counts['removed_allocations']} removed)"
