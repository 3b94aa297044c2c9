"""One job of a deploy: hooks, plan, starts, updates, hooks.

    pre_deploy -> render and plan -> starts in batches, one gate, promote -> updates: per batch gate and promote -> post_deploy

A failure stops this job: what went well is promoted, of the failing batch too; what failed is `failed`, later batches are
untouched.
"""

from collections.abc import Mapping, Sequence

from maand_contracts.catalog.v1 import run_event_pb2 as pb
from maand_executor.deploy import attempts
from maand_executor.deploy.batches import BatchRunner, RolloutBatch
from maand_executor.deploy.plan import JobPlan, plan_job
from maand_executor.deploy.state import BROKEN_OFF, PROMOTED, RENDER, STARTED, Deploy, JobFailed, StartRefused
from maand_executor.errors import CannotRender
from maand_executor.output import events
from maand_executor.rules.decisions import Action, PlannedAllocation
from maand_executor.rules.facts import AllocationMove, AllocationState, Job
from maand_executor.rules.waves import in_rollout_order, split_into_batches
from maand_executor.steps.health_gate import HealthGate

UNCHANGED = "nothing to do, every allocation is as it should be"
NOT_GATED = "started, but the rollout ended before its health gate"


class JobRollout:
    """Rolls out one job."""

    def __init__(self, deploy: Deploy, job: Job, *, ready_plan: JobPlan | None = None) -> None:
        self._deploy = deploy
        self._context = deploy.context
        self._job = job
        self._ready_plan = ready_plan
        self._health_gate = HealthGate(deploy.context, deploy.fleet, job)
        self._candidates = deploy.candidates(job.name)

    async def run(self) -> Mapping[str, int]:
        """Roll the job out and return how many allocations got which step. Raises `JobFailed`, `JobCancelled`."""
        self._deploy.stop_if_asked()
        await self._run_hooks("pre_deploy")
        plan = self._ready_plan or await self._make_plan()
        self._tell(plan)
        await self._settle(plan)
        if plan.rolled_out:
            await self._roll_out(plan)
        await self._post_deploy(plan)
        return {STARTED: len(plan.starts), PROMOTED: len(plan.updates)}

    async def _make_plan(self) -> JobPlan:
        fresh = tuple(one for one in self._candidates if not self._deploy.was_promoted(one))
        try:
            return await plan_job(self._context, self._deploy.fleet, self._job, fresh, self._deploy.options)
        except CannotRender as error:
            failure = pb.Failure(kind=pb.FAILURE_KIND_COMMAND, job=self._job.name, step=RENDER, message=str(error))
            raise JobFailed(str(error), [failure]) from error

    def _tell(self, plan: JobPlan) -> None:
        self._context.journal.report(events.job_planned(self._job.name, plan.plans, diffs={}))
        self._context.report.count("skipped", sum(one.action is Action.SKIP for one in plan.plans))
        if plan.order.warning:
            self._context.report.note(f"{self._job.name}: {plan.order.warning}")
        if plan.refused:
            raise StartRefused(
                "--sync-only cannot start anything", [start_refused_failure(self._job.name, one) for one in plan.refused]
            )

    async def _settle(self, plan: JobPlan) -> None:
        """Record that nothing newer is wanted after all where a build expected it: the plan has the last word."""
        moves = [
            AllocationMove(allocation_id=one.allocation.allocation_id, to_state=AllocationState.PROMOTED, message=one.reason)
            for one in plan.plans
            if one.action is Action.SKIP and one.allocation.state is AllocationState.PENDING
        ]
        if moves:
            await self._context.catalog.move_allocations(self._context.identity, moves)

    async def _roll_out(self, plan: JobPlan) -> None:
        failures = await self._deploy.preflight.check(self._deploy.fleet.worker(one.allocation.worker) for one in plan.rolled_out)
        if failures:
            raise JobFailed(f"{len(failures)} of its workers are not ready", failures)
        await self._tell_unhealthy_peers(plan)
        runner = BatchRunner(self._deploy, plan)
        try:
            await self._start(plan, runner)
            await self._update(plan, runner)
        except BROKEN_OFF:
            self._context.report.fail(runner.failures)
            raise
        finally:
            self._context.report.count("untouched", len(plan.rolled_out) - runner.touched)
        runner.raise_failures()

    async def _start(self, plan: JobPlan, runner: BatchRunner) -> None:
        """Start in batches, then look once: a quorum may need all of them."""
        started: list[PlannedAllocation] = []
        try:
            for batch in rollout_batches("start", plan.starts, self._job.max_concurrent_starts):
                if not runner.goes_on:
                    break
                self._deploy.stop_if_asked()
                started += await runner.roll_out(batch)
        except BROKEN_OFF:
            await attempts.record_ended(self._context, started, NOT_GATED)
            raise
        await self._gate_and_promote(plan, runner, started)

    async def _update(self, plan: JobPlan, runner: BatchRunner) -> None:
        for batch in rollout_batches("update", plan.updates, self._job.max_concurrent_upgrades):
            if not runner.goes_on:
                return
            self._deploy.stop_if_asked()
            brought_up = await runner.roll_out(batch)
            await self._gate_and_promote(plan, runner, brought_up, gated=batch.has_lifecycle)

    async def _gate_and_promote(
        self, plan: JobPlan, runner: BatchRunner, plans: Sequence[PlannedAllocation], *, gated: bool = True
    ) -> None:
        """Wait for the health of these allocations and of those this run promoted, then promote what is healthy."""
        if gated and plans:
            now = [one.allocation for one in plans]
            earlier = [one for one in self._candidates if self._deploy.was_promoted(one) and one not in now]
            watched = in_rollout_order((*earlier, *now), plan.order.workers)
            try:
                failures = await self._health_gate.check(watched, plan.order, wait=True)
            except BROKEN_OFF:
                await attempts.record_ended(self._context, plans, "the run was stopped before its health gate passed")
                raise
            plans = await runner.leave_out_failed(plans, failures, f"{self._job.name} did not become healthy")
        await runner.promote(plans)

    async def _tell_unhealthy_peers(self, plan: JobPlan) -> None:
        """Say which peers are unhealthy before the run touches the job: they are not this rollout's fault."""
        touched = {one.allocation.allocation_id for one in plan.rolled_out}
        peers = [
            one
            for one in self._candidates
            if one.deployed_sha256 and one.allocation_id not in touched and not self._deploy.was_promoted(one)
        ]
        for result in await self._health_gate.unhealthy_now(peers):
            text = f"{self._job.name} on {result.worker} was unhealthy before this deploy: {result.problem}"
            self._context.warn(text, job=self._job.name)

    async def _post_deploy(self, plan: JobPlan) -> None:
        """Run the hooks when something was rolled out, or when an earlier deploy still owes them."""
        rolled_out = plan.rolled_out or any(map(self._deploy.was_promoted, self._candidates))
        owed = any(one.post_deploy_owed for one in self._candidates)
        if not self._job.hooks_on("post_deploy") or not (rolled_out or owed):
            return
        self._deploy.stop_if_asked()
        await self._run_hooks("post_deploy")
        await self._context.catalog.move_allocations(self._context.identity, [], post_deploy_done_jobs=[self._job.name])

    async def _run_hooks(self, event: str) -> None:
        if not self._job.hooks_on(event) or not self._candidates:
            return
        order = await self._context.catalog.read_rollout_order(self._context.identity.bucket_id, self._job.name)
        ordered = in_rollout_order(self._candidates, order.workers)
        failures = await self._deploy.run_hooks(self._job, event, ordered, order=order, memory=self._deploy.memory)
        if failures:
            raise JobFailed(f"{event} hooks failed", failures)


def rollout_batches(phase: str, plans: Sequence[PlannedAllocation], size: int) -> tuple[RolloutBatch, ...]:
    """Cut planned allocations into batches."""
    parts = split_into_batches(plans, size)
    return tuple(RolloutBatch(phase=phase, index=index, count=len(parts), plans=part) for index, part in enumerate(parts))


def start_refused_failure(job: str, plan: PlannedAllocation) -> pb.Failure:
    """Say why an allocation cannot be synced."""
    return pb.Failure(
        kind=pb.FAILURE_KIND_COMMAND,
        job=job,
        worker=plan.allocation.worker,
        step="sync",
        message=plan.reason,
        help="run `maand deploy` without --sync-only once",
    )
