"""`maand job start|stop|restart|run|status`: one job's allocations, by hand, in rollout order and batches.

    batch: make <target> (or `job_control` hooks with TARGET) -> `after_allocation_started` -> health gate    (start, restart)

Refuses a worker whose `worker.json` names another bucket or worker. Nothing is copied, and what is recorded as promoted stays so.
A batch that ended well is recorded: whoever takes the run over goes on after it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from maand_contracts.catalog.v1 import run_event_pb2 as pb
from maand_contracts.catalog.v1 import run_spec_pb2 as spec_pb
from maand_executor.errors import InvalidRequest, JobCancelled
from maand_executor.output import events
from maand_executor.rules.cancel import CancelLevel
from maand_executor.rules.facts import Allocation, Job, RolloutOrder
from maand_executor.rules.hook_environment import lifecycle_variables
from maand_executor.rules.side_by_side import side_by_side
from maand_executor.rules.waves import BatchPosition, in_rollout_order, split_into_batches
from maand_executor.steps.context import RunContext
from maand_executor.steps.event_hooks import (
    LifecycleBatch,
    StepMemory,
    failures_of_unrun_hooks,
    failures_or_cancelled,
    remember_all,
    run_event_hooks,
)
from maand_executor.steps.failures import without_failures
from maand_executor.steps.fleet import Fleet, known_names, read_fleet
from maand_executor.steps.health_gate import HealthGate
from maand_executor.steps.lifecycle_steps import Act, LifecycleStep, LifecycleSteps


@dataclass(frozen=True, kw_only=True)
class Manner:
    """How one action is carried out. `phase` is DEPLOY_PHASE; `gate`: `batch`, `end` or none.

    `limit` is the manifest's key for the size of a batch; empty = all at once, for what only looks.
    """

    target: str
    phase: str = "update"
    limit: str = "max_concurrent_upgrades"
    gate: str = ""


MANNERS: Mapping[int, Manner] = {
    spec_pb.JOB_ACTION_START: Manner(target="start", phase="new", limit="max_concurrent_starts", gate="end"),
    spec_pb.JOB_ACTION_STOP: Manner(target="stop", phase="stop", limit="max_concurrent_stops"),
    spec_pb.JOB_ACTION_RESTART: Manner(target="restart", gate="batch"),
    spec_pb.JOB_ACTION_RUN: Manner(target=""),
    spec_pb.JOB_ACTION_STATUS: Manner(target="status", limit=""),
}


async def control_job(context: RunContext) -> None:
    """Do what was asked with the job's allocations."""
    spec = context.spec.job_control
    manner = manner_of(spec)
    fleet = await read_fleet(context)
    known_names("job", [spec.job], fleet.present_jobs())
    job = fleet.jobs[spec.job]
    order = await context.catalog.read_rollout_order(context.identity.bucket_id, job.name)
    chosen = in_rollout_order(select_allocations(fleet, job, spec.workers), order.workers)
    await JobControl(context, fleet, job, order, manner, await remember_all(context)).run(chosen)


def manner_of(spec: spec_pb.JobControlSpec) -> Manner:
    """Return how the action is carried out. Raises `InvalidRequest`."""
    manner = MANNERS.get(spec.action)
    if manner is None:
        raise InvalidRequest("no action was named", help="say start, stop, restart, run or status")
    if spec.action == spec_pb.JOB_ACTION_RUN:
        if not spec.target:
            raise InvalidRequest("no target was named", help="say which: maand job run <job> --target <target>")
        return replace(manner, target=spec.target)
    return manner


def select_allocations(fleet: Fleet, job: Job, workers: Sequence[str]) -> tuple[Allocation, ...]:
    """Return the active allocations meant. Raises `InvalidRequest` for a worker that has none, or a disabled one."""
    present = [one for one in fleet.of_job(job.name) if not one.removed]
    named = known_names(f"allocation of {job.name}", workers, [one.worker for one in present])
    for one in present:
        if one.worker in named and one.disabled:
            raise InvalidRequest(
                f"{job.name} on {one.worker} is disabled",
                help="enable it in workspace/disabled.json, then run `maand deploy --build`",
            )
    return tuple(one for one in present if one.active and (not named or one.worker in named))


class JobControl:
    """Carries one action out."""

    def __init__(
        self, context: RunContext, fleet: Fleet, job: Job, order: RolloutOrder, manner: Manner, memory: StepMemory
    ) -> None:
        self._context = context
        self._memory = memory
        self._fleet = fleet
        self._job = job
        self._order = order
        self._manner = manner
        self._health_gate = HealthGate(context, fleet, job)

    async def run(self, allocations: Sequence[Allocation]) -> None:
        """Take the batches one after another; a batch with a failure is the last, unless told to go on."""
        of_manifest = getattr(self._job, self._manner.limit) if self._manner.limit else 0
        size = self._context.spec.job_control.batch or of_manifest
        parts = split_into_batches(allocations, size)
        report = self._context.report
        for index, part in enumerate(parts):
            report.stopped_early |= self._context.cancel.level > CancelLevel.NOT_ASKED
            if report.stopped_early or (report.failures and not self._context.spec.keep_going):
                report.count("untouched", len(part))
                continue
            await self._take(part, BatchPosition(index=index, count=len(parts)))
        if self._manner.gate == "end" and not report.failures and not report.stopped_early:
            await self._gate_all(allocations)
        report.message = self._sentence(allocations)

    async def _take(self, part: Sequence[Allocation], position: BatchPosition) -> None:
        """Do a batch and count how it ended; one that a cancel broke off is not recorded as done."""
        report = self._context.report
        try:
            bad = await self._what_is_left_of(part, position)
        except JobCancelled:
            report.stopped_early = True
            report.count("cancelled", len(part))
            return
        report.count("failed", len(bad))
        report.count("succeeded", sum(one.worker not in bad for one in part))

    async def _gate_all(self, allocations: Sequence[Allocation]) -> None:
        """Look at the health of all of them; who is not healthy has not succeeded."""
        report = self._context.report
        try:
            failures = await self._health_gate.check(allocations, self._order, wait=True)
        except JobCancelled:
            report.stopped_early = True
            return
        report.fail(failures)
        bad = len({failure.worker for failure in failures})
        report.count("failed", bad)
        report.count("succeeded", -bad)

    async def _what_is_left_of(self, part: Sequence[Allocation], position: BatchPosition) -> set[str]:
        """Do what no earlier owner of the run recorded of a batch, and return the workers on which it failed."""
        todo = [one for one in part if not self._memory.done(self._step(one))]
        if not todo:
            return set()
        failures: list[pb.Failure] = []
        try:
            await self._batch(todo, position, failures)
        finally:  # a cancel in a later step takes nothing of what failed before
            self._context.report.fail(failures)
        well = allocations_without_failures(todo, failures)
        await side_by_side(well, lambda one: self._memory.record(self._step(one)))
        return {one.worker for one in todo if one not in well}

    def _step(self, allocation: Allocation) -> str:
        return f"{self._job.name}/{allocation.worker}/control:{self._manner.target}"

    def _sentence(self, allocations: Sequence[Allocation]) -> str:
        if not allocations:
            return f"nothing to do: {self._job.name} has no active allocations"
        what = f"{self._manner.target} of {self._job.name}"
        if self._context.report.failures:
            return f"{what} failed"
        return f"{what}: stopped" if self._context.report.stopped_early else f"{what}: done"

    async def _batch(self, part: Sequence[Allocation], position: BatchPosition, failures: list[pb.Failure]) -> None:
        """Take every step with those that got through the one before; `failures` is added to."""
        workers = [one.worker for one in part]
        self._context.journal.report(
            events.batch_started(
                job=self._job.name, phase=self._manner.target, index=position.index, count=position.count, workers=workers
            )
        )
        failures += await self._act(part, position)
        if not self._manner.gate:
            return
        failures += await self._hooks("after_allocation_started", allocations_without_failures(part, failures), position)
        if self._manner.gate == "batch":
            failures += await self._health_gate.check(allocations_without_failures(part, failures), self._order, wait=True)

    async def _act(self, part: Sequence[Allocation], position: BatchPosition) -> list[pb.Failure]:
        if self._job.hooks_on("job_control"):
            return await self._hooks("job_control", part, position)
        target = self._manner.target
        steps = [LifecycleStep(allocation=one, act=Act.MAKE, target=target) for one in part]
        workers = [self._fleet.worker(one.worker) for one in part]
        return await LifecycleSteps(self._job.name, steps).run(self._context, workers)

    async def _hooks(self, event: str, part: Sequence[Allocation], position: BatchPosition) -> list[pb.Failure]:
        batch = LifecycleBatch(
            phase=self._manner.phase, position=position, variables=lifecycle_variables(target=self._manner.target)
        )
        outcome = await run_event_hooks(self._context, self._fleet, self._job, event, part, order=self._order, batch=batch)
        failures = failures_or_cancelled(self._job.name, outcome)
        return failures + failures_of_unrun_hooks(self._job, event, outcome, part)


def allocations_without_failures(allocations: Sequence[Allocation], failures: Sequence[pb.Failure]) -> tuple[Allocation, ...]:
    """Return the allocations that no failure is about."""
    return without_failures(allocations, failures, worker_of=lambda one: one.worker)
