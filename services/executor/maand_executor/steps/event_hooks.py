"""Running the hooks of a job on one event of a run: the request to the hook engine, from what the run knows."""

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from maand_contracts.catalog.v1 import run_event_pb2 as pb
from maand_executor.errors import JobCancelled
from maand_executor.hooks.outcome_messages import failures_of
from maand_executor.hooks.request import EventRun, nothing_done, record_nothing
from maand_executor.rules.facts import Allocation, Job, RolloutOrder, Worker
from maand_executor.rules.hook_outcomes import EventOutcome
from maand_executor.rules.waves import BatchPosition
from maand_executor.ssh.errors import SshError
from maand_executor.steps.context import RunContext
from maand_executor.steps.fleet import Fleet
from maand_executor.steps.shared_hooks import share_batch


@dataclass(frozen=True, kw_only=True)
class LifecycleBatch:
    """The batch that `job_control` and `after_allocation_*` hooks belong to. `phase` is `new`, `update` or `stop`."""

    phase: str
    position: BatchPosition
    variables: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class StepMemory:
    """Which hook invocations an owner of this run recorded, and how to record more."""

    done: Callable[[str], bool] = nothing_done
    record: Callable[[str], Awaitable[None]] = record_nothing
    every: bool = False
    """Whether every invocation is recorded, not only what runs once in a run."""


FORGETFUL = StepMemory()


async def remember_all(context: RunContext) -> StepMemory:
    """Return the memory of a run in which no invocation that ended well is repeated, whoever owned the run then."""
    steps = set(await context.catalog.list_steps(context.identity))

    async def record(name: str) -> None:
        await context.steps.record(name)
        steps.add(name)

    return StepMemory(done=steps.__contains__, record=record, every=True)


async def run_event_hooks(
    context: RunContext,
    fleet: Fleet,
    job: Job,
    event: str,
    allocations: Sequence[Allocation],
    *,
    order: RolloutOrder,
    batch: LifecycleBatch | None = None,
    memory: StepMemory = FORGETFUL,
    only_hook: str = "",
    arguments: Sequence[str] = (),
    time_limit: timedelta | None = None,
) -> EventOutcome:
    """Run the job's hooks on an event. Nothing registered, or no allocations: an outcome that is ok.

    `time_limit` is how long all of them together may take; None = each has only its own limit.
    """
    if not allocations or not job.hooks_on(event):
        return EventOutcome()
    context.lease.check()
    request = EventRun(
        run=context.identity,
        config=context.config,
        journal=context.journal,
        cancel=context.cancel,
        remote=context.remote,
        job=job,
        event=event,
        allocations=tuple(allocations),
        order=order,
        workers=workers_in_reach(fleet, job, allocations),
        batch=batch.position if batch else None,
        phase=batch.phase if batch else "",
        lifecycle=batch.variables if batch else {},
        hook_env=context.hook_env,
        arguments=tuple(arguments),
        only_hook=only_hook,
        keep_going=context.spec.keep_going,
        keep_workdir=context.spec.keep_workdir,
        ends_at=None if time_limit is None else time.monotonic() + time_limit.total_seconds(),
        traceparent=context.traceparent,
        nested=context.nested,
        done=memory.done,
        record=memory.record,
        reachable=lambda name: is_reachable(context, fleet, name),
        share=share_batch(context, fleet, record_steps=memory.every),
        share_above=context.settings.task_width,
    )
    outcome = await context.hooks.run_event(request)
    for notice in outcome.notices:
        context.report.note(notice)
    return outcome


def failures_or_cancelled(job: str, outcome: EventOutcome) -> list[pb.Failure]:
    """Return what failed in an event; none = all is well. Raises `JobCancelled` when a cancel left something undone."""
    failures = failures_of(job, outcome.failed)
    if not failures and not outcome.ok:
        raise JobCancelled("stopped while its hooks ran")
    return failures


def failures_of_unrun_hooks(job: Job, event: str, outcome: EventOutcome, allocations: Sequence[Allocation]) -> list[pb.Failure]:
    """Return a failure for each allocation that has none of its own, but for which not every hook of the event ended well.

    With `failures_of` the event they name everybody who did not pass: whoever they do not name did.
    """
    if not outcome.failed:
        return []
    first = outcome.failed[0]
    failed = (failure.worker for failure in failures_of(job.name, outcome.failed))
    named = {*failed, *outcome.passed_workers(job.hooks_on(event)[-1].name)}
    message = f"not all of its {event} hooks ran: {first.hook} did not end well for {first.worker}"
    return [
        pb.Failure(kind=pb.FAILURE_KIND_COMMAND, job=job.name, worker=one.worker, step=first.hook, message=message)
        for one in allocations
        if one.worker not in named
    ]


def workers_in_reach(fleet: Fleet, job: Job, allocations: Sequence[Allocation]) -> tuple[Worker, ...]:
    """Return the workers that hooks may reach: the job's, and those of the event, which an allocation may just have left."""
    return tuple(fleet.worker(one.worker) for one in fleet.of_job(job.name) if not one.removed or one in allocations)


async def is_reachable(context: RunContext, fleet: Fleet, name: str) -> bool:
    """Whether a worker lets maand in."""
    try:
        await context.remote.connect(fleet.worker(name))
    except SshError:
        return False
    return True
