"""One batch of one hook, shared by executors: split by the owner of the run, carried out in parts.

owner: share_batch -> tasks ─┬─ own loops: as if it were not shared
                             └─ other executors: do_hooks
An invocation that was interrupted with its executor runs again under the task's next claim; the catalog ended its token before.
"""

import time
from collections.abc import Sequence

from maand_contracts.catalog.v1 import job_pb2, task_pb2
from maand_contracts.catalog.v1 import run_event_pb2 as pb
from maand_contracts.catalog.v1.task_pb2 import HooksTask, TaskSpec
from maand_executor.catalog_client import from_allocation, from_hook, to_allocation, to_hook
from maand_executor.hooks.errors import HookPrerequisiteMissing
from maand_executor.hooks.outcome_messages import outcome_from_result, result_from_outcome
from maand_executor.hooks.request import EventRun, RunPart, ShareBatch, record_nothing
from maand_executor.rules.facts import Allocation, Hook, Job, RolloutOrder, Worker
from maand_executor.rules.hook_outcomes import InvocationResult
from maand_executor.rules.waves import Batch
from maand_executor.steps.context import RunContext, TellOutcome
from maand_executor.steps.fan_out import FanOut, UnknownOutcome, failed_outcome
from maand_executor.steps.fleet import Fleet
from maand_wire.enums import enum_number, enum_word

SHORTEST_LIMIT = 0.001
"""Seconds that stand for no time left: 0 in a task means no limit."""


def share_batch(context: RunContext, fleet: Fleet, *, record_steps: bool) -> ShareBatch:
    """Return what shares a wide batch of a hook. `record_steps`: whoever runs an invocation that succeeds records it."""

    async def share(
        request: EventRun, hook: Hook, batch: Batch, todo: Sequence[Allocation], run_here: RunPart
    ) -> tuple[InvocationResult, ...]:
        by_worker = {one.worker: one for one in todo}

        def spec_of(names: Sequence[str]) -> TaskSpec:
            task = make_hooks_task(request, hook, batch, [by_worker[name] for name in names])
            task.record_steps = record_steps and request.is_recorded
            return TaskSpec(workers=names, hooks=task)

        async def work(_: RunContext, __: TaskSpec, workers: Sequence[Worker], tell: TellOutcome) -> None:
            some = [by_worker[worker.name] for worker in workers]
            await run_here(some, lambda result: tell(outcome_from_result(request.job.name, result)))

        unknown = UnknownOutcome(step=hook.name, job=request.job.name)
        fan_out = FanOut(context, spec_of, work, unknown=unknown, all_at_once=True)  # a hook may wait for all others of its batch
        outcomes = await fan_out.run([fleet.worker(name) for name in by_worker])
        return tuple(result_from_outcome(hook, by_worker[one.worker], one) for one in outcomes)

    return share


def make_hooks_task(request: EventRun, hook: Hook, batch: Batch, some: Sequence[Allocation]) -> HooksTask:
    """Say to another executor what to run, and what its hooks are told."""
    return HooksTask(
        hook=from_hook(hook),
        event=enum_number(job_pb2.HookEvent, request.event),
        allocations=map(from_allocation, some),
        batch_index=batch.index,
        batch_count=batch.count,
        batch_workers=batch.workers,
        rollout_order=request.order.workers,
        order_set_by_hook=request.order.set_by_hook,
        phase=enum_number(task_pb2.DeployPhase, request.phase),
        variables=request.lifecycle,
        arguments=request.arguments,
        time_limit_seconds=0 if request.ends_at is None else max(request.time_left.total_seconds(), SHORTEST_LIMIT),
    )


async def do_hooks(context: RunContext, spec: TaskSpec, workers: Sequence[Worker], tell: TellOutcome) -> None:
    """Run a hook for a part of a batch of a run that another executor owns."""
    task, names = spec.hooks, {worker.name for worker in workers}
    hook = to_hook(task.hook)
    some = tuple(one for one in map(to_allocation, task.allocations) if one.worker in names)
    request = await make_request(context, task, Job(name=hook.job, hooks=(hook,)), some)
    batch = Batch(
        index=task.batch_index,
        count=task.batch_count,
        allocations=tuple(Allocation(allocation_id="", job=hook.job, worker=name) for name in task.batch_workers),
    )  # of those in other parts nothing but the worker is known, and no more is told to a hook
    try:
        await context.hooks.run_part(request, hook, batch, some, lambda result: tell(outcome_from_result(hook.job, result)))
    except HookPrerequisiteMissing as error:
        for worker in workers:
            tell(failed_outcome(prerequisite_failure(hook, worker, error)))


async def make_request(context: RunContext, task: HooksTask, job: Job, some: tuple[Allocation, ...]) -> EventRun:
    """Put together what the hook is told, and what it may reach."""

    async def record(name: str) -> None:
        await context.catalog.record_steps(context.identity, [name])

    return EventRun(
        run=context.identity,
        config=context.config,
        journal=context.journal,
        cancel=context.cancel,
        remote=context.remote,
        job=job,
        event=enum_word(job_pb2.HookEvent, task.event),
        allocations=some,
        order=RolloutOrder(workers=tuple(task.rollout_order), set_by_hook=task.order_set_by_hook),
        workers=await workers_for_hook(context, job, some),
        phase=enum_word(task_pb2.DeployPhase, task.phase),
        lifecycle=dict(task.variables),
        hook_env=context.hook_env,
        arguments=tuple(task.arguments),
        keep_workdir=context.spec.keep_workdir,
        ends_at=time.monotonic() + task.time_limit_seconds if task.time_limit_seconds else None,
        traceparent=context.traceparent,
        record=record if task.record_steps else record_nothing,
    )


async def workers_for_hook(context: RunContext, job: Job, some: Sequence[Allocation]) -> tuple[Worker, ...]:
    """Return the workers that the hook may reach: the job's, and those of the task, which an allocation may just have left."""
    bucket_id = context.identity.bucket_id
    known = {worker.name: worker for worker in await context.catalog.list_workers(bucket_id, include_removed=True)}
    placed = await context.catalog.list_allocations(bucket_id, jobs=[job.name])
    names = dict.fromkeys(one.worker for one in (*placed, *some))
    return tuple(known.get(name) or Worker(name=name, removed=True) for name in names)


def prerequisite_failure(hook: Hook, worker: Worker, error: HookPrerequisiteMissing) -> pb.Failure:
    """Say that the executor that took this part lacks something."""
    message = f"on the executor that took a part of this batch: {error}"
    return pb.Failure(
        kind=pb.FAILURE_KIND_PREREQUISITE, job=hook.job, worker=worker.name, step=hook.name, message=message, help=error.help
    )
