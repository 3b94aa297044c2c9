"""`maand hooks <name> [job]`: one hook by hand, event `cli`, over all active allocations in rollout order and batches."""

from collections.abc import Mapping, Sequence

from maand_executor.errors import InvalidRequest
from maand_executor.hooks.outcome_messages import failures_of
from maand_executor.hooks.request import invocation_step
from maand_executor.rules.facts import InvocationOutcome, Job
from maand_executor.rules.hook_outcomes import EventOutcome
from maand_executor.rules.waves import in_rollout_order
from maand_executor.steps.context import RunContext
from maand_executor.steps.event_hooks import StepMemory, remember_all, run_event_hooks
from maand_executor.steps.fleet import Fleet, known_names, read_fleet
from maand_wire.nearest import nearest_or_known

CLI = "cli"


async def run_hooks(context: RunContext) -> None:
    """Run the hook on every job that registers it for `cli`, in name order; the first job that fails ends it."""
    fleet = await read_fleet(context)
    jobs = select_jobs(context.spec.hooks.hook, fleet.present_jobs(), only=context.spec.hooks.job)
    memory = await remember_all(context)
    for number, job in enumerate(jobs):
        context.report.count("succeeded", count_done_before(context, fleet, job, memory))
        outcome = await run_hook_of_job(context, fleet, job, memory)
        context.report.fail(failures_of(job.name, outcome.failed))
        count_results(context, outcome)
        context.report.stopped_early |= outcome.cancelled
        if outcome.cancelled or (outcome.failed and not context.spec.keep_going):
            for later in jobs[number + 1 :]:
                context.report.count("untouched", len(fleet.active_of_job(later.name)))
            break
    context.report.message = describe_hooks_run(context, jobs=[job.name for job in jobs])


def count_done_before(context: RunContext, fleet: Fleet, job: Job, memory: StepMemory) -> int:
    """Return how many invocations an earlier owner of the run recorded: they are not repeated, but counted."""
    (hook,) = (one for one in job.hooks_on(CLI) if one.name == context.spec.hooks.hook)
    names = {invocation_step(hook, one.worker, CLI) for one in fleet.active_of_job(job.name)}
    return sum(map(memory.done, names))


async def run_hook_of_job(context: RunContext, fleet: Fleet, job: Job, memory: StepMemory) -> EventOutcome:
    """Run the hook of one job."""
    order = await context.catalog.read_rollout_order(context.identity.bucket_id, job.name)
    if order.warning:
        context.report.note(f"{job.name}: {order.warning}")
    spec = context.spec.hooks
    return await run_event_hooks(
        context,
        fleet,
        job,
        CLI,
        in_rollout_order(fleet.active_of_job(job.name), order.workers),
        order=order,
        memory=memory,
        only_hook=spec.hook,
        arguments=spec.args,
    )


def describe_hooks_run(context: RunContext, *, jobs: Sequence[str]) -> str:
    """Say how it went."""
    counts = context.report.counts
    if counts["failed"]:
        return f"{context.spec.hooks.hook} failed on {counts['failed']} allocations"
    if counts["cancelled"]:
        return f"{context.spec.hooks.hook} was cancelled on {counts['cancelled']} allocations"
    return "done" if counts["succeeded"] or counts["untouched"] else f"nothing to do: no active allocations of {', '.join(jobs)}"


def count_results(context: RunContext, outcome: EventOutcome) -> None:
    """Count allocations by how the hook ended there."""
    context.report.count("succeeded", sum(result.ok for result in outcome.results))
    cancelled = sum(result.outcome is InvocationOutcome.CANCELLED for result in outcome.results)
    context.report.count("cancelled", cancelled)
    context.report.count("failed", len(outcome.failed) - cancelled)
    context.report.count("untouched", len(outcome.untouched))


def select_jobs(hook: str, jobs: Mapping[str, Job], *, only: str) -> tuple[Job, ...]:
    """Return the jobs whose hook is meant, by name. Raises `InvalidRequest` with the nearest known name."""
    known_names("job", [only] if only else [], jobs)
    wanted = [job for name, job in sorted(jobs.items()) if not only or name == only]
    registered = tuple(job for job in wanted if any(one.name == hook for one in job.hooks_on(CLI)))
    if not registered:
        raise unknown_hook_error(hook, wanted)
    return registered


def unknown_hook_error(hook: str, jobs: Sequence[Job]) -> InvalidRequest:
    """Say why a hook cannot be run by hand."""
    where = f"job {jobs[0].name}" if len(jobs) == 1 else "any job"
    if any(one.name == hook for job in jobs for one in job.hooks):
        return InvalidRequest(f'hook "{hook}" is not registered for cli in {where}', help='add "cli" to its executed_on')
    known = {one.name for job in jobs for one in job.hooks_on(CLI)}
    return InvalidRequest(f'no hook is called "{hook}" in {where}', help=nearest_or_known(hook, known))
