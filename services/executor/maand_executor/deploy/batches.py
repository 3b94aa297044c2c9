"""One batch of a rollout, step by step.

    deploying -> copy -> lifecycle (make, or `job_control` hooks) -> `after_allocation_started` -> [health gate] -> promoted

Inside a batch all allocations run side by side, shared with other executors when they are many, and all are allowed to finish. A
batch with a failure is `failed` as a whole: the next deploy takes it up again. Promotion is one transaction with the steps that a
takeover must not repeat.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from maand_contracts.catalog.v1 import run_event_pb2 as pb
from maand_executor.deploy import attempts
from maand_executor.deploy.plan import JobPlan
from maand_executor.deploy.state import BROKEN_OFF, PROMOTED, STARTED, Deploy, JobFailed, step_name
from maand_executor.output import events
from maand_executor.rules.decisions import Action, PlannedAllocation
from maand_executor.rules.facts import Allocation, AllocationMove, AllocationState, Job
from maand_executor.rules.hook_environment import lifecycle_variables
from maand_executor.rules.waves import BatchPosition
from maand_executor.steps.context import RunContext
from maand_executor.steps.event_hooks import LifecycleBatch, failures_or_cancelled, run_event_hooks
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


class BatchRunner:
    """Carries out the batches of one job."""

    def __init__(self, deploy: Deploy, plan: JobPlan) -> None:
        self._deploy = deploy
        self._context: RunContext = deploy.context
        self._plan = plan
        self._job: Job = plan.job
        self.touched = 0
        """Allocations of batches that were begun."""

    async def roll_out(self, batch: RolloutBatch) -> None:
        """Copy, bring up, run hooks. Raises `JobFailed` after all of the batch ended, with the batch recorded as failed."""
        with child_span(f"batch {batch.phase}", job=self._job.name, index=batch.index, count=batch.count):
            await self._roll_out(batch)

    async def _roll_out(self, batch: RolloutBatch) -> None:
        await self._begin(batch)
        try:
            failures = await self._bring_up(batch)
        except BROKEN_OFF:
            await attempts.record_ended(self._context, batch.plans, "the run was stopped in the middle of this batch")
            raise
        if failures:
            await self.fail(batch.plans, f"{batch.phase} batch {batch.index + 1} of {batch.count} failed", failures)

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

    async def fail(self, plans: Sequence[PlannedAllocation], sentence: str, failures: Sequence[pb.Failure]) -> None:
        """Record allocations as failed, then raise `JobFailed`."""
        await attempts.record_failed(self._context, plans, sentence, failures)
        self._context.report.count("failed", len(plans))
        raise JobFailed(sentence, failures)

    async def _begin(self, batch: RolloutBatch) -> None:
        await attempts.record_begun(self._context, batch.plans)
        self.touched += len(batch.plans)
        self._context.journal.report(
            events.batch_started(
                job=self._job.name, phase=batch.phase, index=batch.index, count=batch.count, workers=batch.workers
            )
        )

    async def _bring_up(self, batch: RolloutBatch) -> list[pb.Failure]:
        failures = await self._copy_and_make(batch)
        if failures or not batch.has_lifecycle:
            return failures
        if self._job.hooks_on("job_control"):
            failures = await self._run_hooks("job_control", batch)
        return failures or await self._run_hooks("after_allocation_started", batch)

    async def _copy_and_make(self, batch: RolloutBatch) -> list[pb.Failure]:
        copies = Copies(trees=self._plan.trees, staged_trees=self._deploy.staged_trees, worker_files=self._deploy.worker_files)
        steps = LifecycleSteps(self._job.name, [self._step(plan) for plan in batch.plans], copies=copies)
        return await steps.run(self._context, [self._deploy.fleet.worker(name) for name in batch.workers])

    def _step(self, plan: PlannedAllocation) -> LifecycleStep:
        target = "" if self._job.hooks_on("job_control") else TARGETS.get(plan.action, "")
        act = Act.MAKE if target else Act.NOTHING
        return LifecycleStep(allocation=plan.allocation, copy=plan.digest, act=act, target=target)

    async def _run_hooks(self, event: str, batch: RolloutBatch) -> list[pb.Failure]:
        outcome = await run_event_hooks(
            self._context,
            self._deploy.fleet,
            self._job,
            event,
            batch.allocations,
            order=self._plan.order,
            batch=self._lifecycle_batch(batch),
            memory=self._deploy.batch_memory,
        )
        return failures_or_cancelled(self._job.name, outcome)

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
