"""Stopping what is not meant to run any more: allocations that were removed or newly disabled, once.

    deploying -> make stop (or `job_control`) -> `after_allocation_stopped` -> [removed: delete deployed files]
    -> stopped | removed

That a stop begins is recorded before anything is done: one that fails, or is killed before its end is recorded, may have stopped
the allocation, so it is stopped again, or started when it is wanted again meanwhile.

In batches of `max_concurrent_stops`, jobs that demand others before those they demand. What never ran is only recorded. A worker
that left the fleet and cannot be reached is assumed dead, with a warning. Of a batch in which a worker fails, the others are
recorded as stopped; with --keep-going later batches are stopped too, with --skip-unreachable a worker that left and is broken
is left out.
"""

from collections.abc import Sequence

from maand_contracts.catalog.v1 import run_event_pb2 as pb
from maand_executor.deploy import attempts
from maand_executor.deploy.state import (
    BROKEN_OFF,
    STOPPED,
    Deploy,
    JobFailed,
    may_be_left_out,
    plans_without_failures,
    step_name,
)
from maand_executor.output import events
from maand_executor.rules.decisions import STOPS, Action, PlannedAllocation, may_run, plan_inactive, was_on_worker
from maand_executor.rules.facts import AllocationMove, AllocationState, Job, RolloutOrder
from maand_executor.rules.hook_environment import lifecycle_variables
from maand_executor.rules.waves import BatchPosition, split_into_batches
from maand_executor.steps.event_hooks import LifecycleBatch
from maand_executor.steps.failures import name_way_out
from maand_executor.steps.lifecycle_steps import Act, LifecycleStep, LifecycleSteps

LAST = {Action.STOP: AllocationState.STOPPED, Action.REMOVE: AllocationState.REMOVED}


def plan_stops(deploy: Deploy, job: str) -> tuple[PlannedAllocation, ...]:
    """Return what is to be stopped of a job, by index."""
    inactive = (one for one in deploy.fleet.of_job(job) if not one.active and one.worker not in deploy.left_out)
    return tuple(plan for plan in map(plan_inactive, inactive) if plan.action in STOPS)


def touches_worker(plan: PlannedAllocation) -> bool:
    """Whether a stop has anything to do on the worker: what never ran there left nothing."""
    return was_on_worker(plan.allocation)


class JobStops:
    """Stops allocations of one job."""

    def __init__(self, deploy: Deploy, job: Job) -> None:
        self._deploy = deploy
        self._context = deploy.context
        self._job = job

    async def run(self, plans: Sequence[PlannedAllocation]) -> None:
        """Stop all of them. Raises `JobFailed`, `JobCancelled`; what was stopped stays recorded."""
        self._context.journal.report(events.job_planned(self._job.name, plans, diffs={}))
        await self._record([plan for plan in plans if not touches_worker(plan)])
        parts = split_into_batches([plan for plan in plans if touches_worker(plan)], self._job.max_concurrent_stops)
        failures: list[pb.Failure] = []
        for index, part in enumerate(parts):
            try:
                self._deploy.stop_if_asked()
                failures += await self._stop_batch(part, BatchPosition(index=index, count=len(parts)))
            except BROKEN_OFF:
                self._context.report.fail(failures)
                raise
            if failures and not self._context.spec.keep_going:
                break
        if failures:
            raise JobFailed(f"{len({failure.worker for failure in failures})} of its workers could not be stopped", failures)

    async def _stop_batch(self, plans: Sequence[PlannedAllocation], position: BatchPosition) -> list[pb.Failure]:
        workers = [plan.allocation.worker for plan in plans]
        self._context.journal.report(
            events.batch_started(job=self._job.name, phase="stop", index=position.index, count=position.count, workers=workers)
        )
        running = [plan for plan in plans if may_run(plan.allocation)]
        alive = self._alive(running)
        await attempts.record_begun(self._context, running)
        failures: list[pb.Failure] = []
        try:
            await self._bring_down(plans, alive, position, failures)
        except BROKEN_OFF:
            self._context.report.fail(failures)
            await attempts.record_ended(self._context, running, "the run was stopped while it stopped this allocation", failures)
            raise
        await self._tell_of_the_dead([plan for plan in running if plan not in alive], position)
        well = plans_without_failures(plans, failures)
        await self._record(well)
        sentence = f"stop batch {position.index + 1} of {position.count} failed"
        failed = [plan for plan in running if plan not in well]
        await attempts.record_failed(self._context, failed, sentence, failures)
        counted = [failure for failure in failures if not self._leaves_out(failure)]
        self._context.report.count("failed", sum(plan.allocation.worker not in self._deploy.left_out for plan in failed))
        return counted

    async def _bring_down(
        self,
        plans: Sequence[PlannedAllocation],
        alive: Sequence[PlannedAllocation],
        position: BatchPosition,
        failures: list[pb.Failure],
    ) -> None:
        """Take every step with those that got through the one before; `failures` is added to."""
        failures += await self._stop(alive, position)
        failures += await self._hooks("after_allocation_stopped", plans_without_failures(alive, failures), position)
        removed = [plan for plan in self._alive(plans) if plan.action is Action.REMOVE]
        failures += await self._on_workers(plans_without_failures(removed, failures), Act.REMOVE)

    def _leaves_out(self, failure: pb.Failure) -> bool:
        """Whether the deploy goes on without the worker that failed; if not, the failure says how it can."""
        if may_be_left_out(self._deploy, failure):
            self._deploy.left_out.add(failure.worker)
            self._context.report.leave_out([failure.worker])
            self._context.report.count("unreachable")
            self._context.warn(f"{failure.worker} left the fleet and was left out: {failure.message}", job=self._job.name)
            return True
        name_way_out(failure, self._deploy.fleet.worker(failure.worker))
        return False

    async def _tell_of_the_dead(self, plans: Sequence[PlannedAllocation], position: BatchPosition) -> None:
        """Let hooks know which allocations died with their workers; what then fails is noted: the dead hold nobody up."""
        for failure in await self._hooks("after_allocation_stopped", plans, position):
            text = f"{self._job.name}: {failure.step} failed on {failure.worker}, which is assumed dead: {failure.message}"
            self._context.warn(text, job=self._job.name)

    async def _stop(self, plans: Sequence[PlannedAllocation], position: BatchPosition) -> list[pb.Failure]:
        """Stop through the Makefile; through `job_control` where there is none."""
        if not self._job.has_makefile and self._job.hooks_on("job_control"):
            return await self._hooks("job_control", plans, position)
        return await self._on_workers(plans, Act.STOP)

    async def _on_workers(self, plans: Sequence[PlannedAllocation], act: Act) -> list[pb.Failure]:
        steps = LifecycleSteps(self._job.name, [LifecycleStep(allocation=plan.allocation, act=act) for plan in plans])
        return await steps.run(self._context, [self._deploy.fleet.worker(plan.allocation.worker) for plan in plans])

    def _alive(self, plans: Sequence[PlannedAllocation]) -> list[PlannedAllocation]:
        return [plan for plan in plans if plan.allocation.worker not in self._deploy.dead]

    async def _hooks(self, event: str, plans: Sequence[PlannedAllocation], position: BatchPosition) -> list[pb.Failure]:
        allocations = [plan.allocation for plan in plans]
        return await self._deploy.run_hooks(
            self._job,
            event,
            allocations,
            order=RolloutOrder(workers=tuple(one.worker for one in allocations)),
            batch=LifecycleBatch(phase="stop", position=position, variables=lifecycle_variables(target="stop")),
            memory=self._deploy.batch_memory,
        )

    async def _record(self, plans: Sequence[PlannedAllocation]) -> None:
        """Remember allocations as stopped, so that it happens once."""
        if not plans:
            return
        moves = [
            AllocationMove(allocation_id=plan.allocation.allocation_id, to_state=LAST[plan.action], message=plan.reason)
            for plan in plans
        ]
        steps = [step_name(self._job.name, plan.allocation.worker, STOPPED) for plan in plans]
        await self._context.catalog.move_allocations(self._context.identity, moves, step_names=steps)
        self._deploy.steps.update(steps)
        self._context.report.count(STOPPED, len(plans))
