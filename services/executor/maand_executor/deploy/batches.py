"""One batch of a rollout, step by step.

    deploying -> copy -> lifecycle (make, or `job_control` hooks) -> `after_allocation_started` -> [health gate] -> promoted

Inside a batch all allocations run side by side, shared with other executors when they are many, and all are allowed to finish.
Whoever fails a step takes no part in the next one and is `failed`; the others go on to their promotion, so that the next deploy
does only what is left. Promotion is one transaction with the steps that a takeover must not repeat.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

from maand_contracts.catalog.v1 import run_event_pb2 as pb
from maand_executor.deploy import attempts
from maand_executor.deploy.plan import JobPlan
from maand_executor.deploy.state import (
    BROKEN_OFF,
    PROMOTED,
    STARTED,
    Deploy,
    JobFailed,
    plans_without_failures,
    step_name,
)
from maand_executor.errors import RunFailed
from maand_executor.output import events
from maand_executor.rules.decisions import Action, PlannedAllocation
from maand_executor.rules.facts import Allocation, AllocationMove, AllocationState, Job
from maand_executor.rules.hook_environment import lifecycle_variables
from maand_executor.rules.waves import BatchPosition
from maand_executor.steps.context import RunContext
from maand_executor.steps.event_hooks import LifecycleBatch
from maand_executor.steps.lifecycle_steps import Act, Copies, LifecycleStep, LifecycleSteps
from maand_wire.tracing import child_span

TARGETS: Mapping[Action, str] = {Action.START: "start", Action.RESTART: "restart", Action.RELOAD: "reload"}
"""Make target by action; what is not here has no lifecycle."""


@dataclass(frozen=True, kw_only=True)
class RolloutBatch:
    """Allocations that are rolled out side by side. `phase`: `start` or `update`."""

    phase: str
    index: int
    count: int
    plans: tuple[PlannedAllocation, ...]

    @property
    def allocations(self) -> tuple[Allocation, ...]:
        """Its allocations."""
        return tuple(plan.allocation for plan in self.plans)

    @property
    def workers(self) -> tuple[str, ...]:
        """Their workers."""
        return tuple(plan.allocation.worker for plan in self.plans)

    @property
    def has_lifecycle(self) -> bool:
        """Whether anything is started, restarted or reloaded."""
        return any(plan.action in TARGETS for plan in self.plans)

    def without(self, failures: Sequence[pb.Failure]) -> Self:
        """Return what is left of the batch where some failed."""
        return replace(self, plans=plans_without_failures(self.plans, failures))


class BatchRunner:
    """Carries out the batches of one job."""

    def __init__(self, deploy: Deploy, plan: JobPlan) -> None:
        self._deploy = deploy
        self._context: RunContext = deploy.context
        self._plan = plan
        self._job: Job = plan.job
        self.touched = 0
        """Allocations of batches that were begun."""
        self.failures: list[pb.Failure] = []
        """Of batches that ended."""
        self._sentences: list[str] = []

    @property
    def goes_on(self) -> bool:
        """Whether further batches are begun: after a failure only with --keep-going."""
        return not self.failures or self._context.spec.keep_going

    def raise_failures(self) -> None:
        """Raise `JobFailed` when anything of the job failed."""
        if self.failures:
            sentence = self._sentences[0] if len(self._sentences) == 1 else "some of its batches failed"
            raise JobFailed(sentence, self.failures)

    async def roll_out(self, batch: RolloutBatch) -> tuple[PlannedAllocation, ...]:
        """Copy, bring up, run hooks. Return what went well after all of the batch ended; the rest is recorded as failed."""
        with child_span(f"batch {batch.phase}", job=self._job.name, index=batch.index, count=batch.count):
            return await self._roll_out(batch)

    async def _roll_out(self, batch: RolloutBatch) -> tuple[PlannedAllocation, ...]:
        await self._begin(batch)
        failures: list[pb.Failure] = []
        try:
            await self._bring_up(batch, failures)
        except BROKEN_OFF:
            self._context.report.fail(failures)
            await attempts.record_ended(self._context, batch.plans, "the run was stopped in the middle of this batch", failures)
            raise
        return await self.leave_out_failed(
            batch.plans, failures, f"{batch.phase} batch {batch.index + 1} of {batch.count} failed"
        )

    async def promote(self, plans: Sequence[PlannedAllocation]) -> None:
        """Record allocations as done for good."""
        if not plans:
            return
        steps = [
            step_name(self._job.name, plan.allocation.worker, STARTED if plan.action is Action.START else PROMOTED)
            for plan in plans
        ]
        await self._context.catalog.move_allocations(
            self._context.identity,
            [promotion_move(plan) for plan in plans],
            step_names=steps,
            post_deploy_owed_jobs=[self._job.name] if self._job.hooks_on("post_deploy") else [],
        )
        self._deploy.steps.update(steps)
        workers = [plan.allocation.worker for plan in plans]
        self._context.journal.report(events.promoted_event(job=self._job.name, workers=workers, version=self._job.version))
        self._context.report.count(PROMOTED, len(plans))

    async def leave_out_failed(
        self, plans: Sequence[PlannedAllocation], failures: Sequence[pb.Failure], sentence: str
    ) -> tuple[PlannedAllocation, ...]:
        """Record what the failures are about as failed, and return the rest."""
        if not failures:
            return tuple(plans)
        well = plans_without_failures(plans, failures)
        failed = [plan for plan in plans if plan not in well]
        await attempts.record_failed(self._context, failed, sentence, failures)
        self._context.report.count("failed", len(failed))
        self.failures += failures
        self._sentences.append(sentence)
        return well

    async def _begin(self, batch: RolloutBatch) -> None:
        await attempts.record_begun(self._context, batch.plans)
        self.touched += len(batch.plans)
        self._context.journal.report(
            events.batch_started(
                job=self._job.name, phase=batch.phase, index=batch.index, count=batch.count, workers=batch.workers
            )
        )

    async def _bring_up(self, batch: RolloutBatch, failures: list[pb.Failure]) -> None:
        """Take every step with those that got through the one before; `failures` is added to."""
        failures += await self._copy_and_make(batch)
        if batch.has_lifecycle:
            for event in ("job_control", "after_allocation_started"):
                failures += await self._run_hooks(event, batch.without(failures))

    async def _copy_and_make(self, batch: RolloutBatch) -> list[pb.Failure]:
        copies = Copies(trees=self._plan.trees, staged_trees=self._deploy.staged_trees, worker_files=self._deploy.worker_files)
        steps = LifecycleSteps(self._job.name, [self._step(plan) for plan in batch.plans], copies=copies)
        return await steps.run(self._context, [self._deploy.fleet.worker(name) for name in batch.workers])

    def _step(self, plan: PlannedAllocation) -> LifecycleStep:
        target = "" if self._job.hooks_on("job_control") else TARGETS.get(plan.action, "")
        act = Act.MAKE if target else Act.NOTHING
        return LifecycleStep(allocation=plan.allocation, copy=plan.digest, act=act, target=target)

    async def _run_hooks(self, event: str, batch: RolloutBatch) -> list[pb.Failure]:
        try:
            return await self._deploy.run_hooks(
                self._job,
                event,
                batch.allocations,
                order=self._plan.order,
                batch=self._lifecycle_batch(batch),
                memory=self._deploy.batch_memory,
            )
        except RunFailed as error:  # nothing of the event was started: the whole batch lacks it
            return list(error.failures)

    def _lifecycle_batch(self, batch: RolloutBatch) -> LifecycleBatch:
        new = [plan.allocation.worker for plan in batch.plans if plan.action is Action.START]
        updated = [plan.allocation.worker for plan in batch.plans if plan.action is not Action.START]
        return LifecycleBatch(
            phase="new" if batch.phase == "start" else "update",
            position=BatchPosition(index=batch.index, count=batch.count),
            variables=lifecycle_variables(new=new, updated=updated),
        )


def promotion_move(plan: PlannedAllocation) -> AllocationMove:
    """Return the move that records what now runs."""
    return AllocationMove(
        allocation_id=plan.allocation.allocation_id,
        to_state=AllocationState.PROMOTED,
        message=f"{plan.action}: {plan.reason}",
        current_version=plan.allocation.new_version,
        deployed_sha256=plan.digest,
        deployed_files=plan.files,
    )
