"""One deploy while it runs: what was asked, what was built, what is recorded as done, which workers are left out."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from maand_contracts.catalog.v1 import run_event_pb2 as pb
from maand_contracts.catalog.v1.run_spec_pb2 import DeploySpec
from maand_executor.content.staged_trees import StagedTrees
from maand_executor.errors import ExecutorError, JobCancelled
from maand_executor.hooks.request import is_once_in_a_run
from maand_executor.rules.cancel import CancelLevel
from maand_executor.rules.decisions import PlannedAllocation, PlanOptions
from maand_executor.rules.facts import Allocation, Job, RolloutOrder
from maand_executor.ssh.errors import StaleFence
from maand_executor.steps.context import RunContext
from maand_executor.steps.event_hooks import (
    LifecycleBatch,
    StepMemory,
    failures_of_unrun_hooks,
    failures_or_cancelled,
    run_event_hooks,
)
from maand_executor.steps.failures import BROKEN_WORKER, without_failures
from maand_executor.steps.fleet import Fleet
from maand_executor.steps.preflight import Preflight
from maand_executor.steps.worker_files import WorkerFiles

PROMOTED = "promoted"
STARTED = "promoted:started"
STOPPED = "stopped"
"""Names of steps: an allocation was updated, or started, and promoted; it was stopped."""

PROMOTIONS = (PROMOTED, STARTED)
VERBS = {STOPPED: "stopped", STARTED: "started", PROMOTED: "updated"}
"""What the steps did, for people, in the order of a deploy."""


class JobFailed(ExecutorError):
    """The rollout of one job ends here. Batches before it stay promoted; the failures say what to mend."""

    code = "job_failed"

    def __init__(self, message: str, failures: Sequence[pb.Failure]) -> None:
        super().__init__(message)
        self.failures = tuple(failures)


class StartRefused(JobFailed):
    """With --sync-only nothing is started, and something has to be. Deploy once without it."""

    code = "start_refused"


RENDER = "render"
"""Step of a failure that is about a template."""


NOT_REACHED = frozenset({pb.FAILURE_KIND_UNREACHABLE, pb.FAILURE_KIND_CONNECTION})

BROKEN_OFF = (asyncio.CancelledError, JobCancelled, StaleFence)
"""What ends a batch in its middle: what was begun is recorded as failed then. Where another executor has taken the run over, the
catalog refuses that record."""


def plans_without_failures(plans: Sequence[PlannedAllocation], failures: Iterable[pb.Failure]) -> tuple[PlannedAllocation, ...]:
    """Return the plans that no failure is about."""
    return without_failures(plans, failures, worker_of=lambda plan: plan.allocation.worker)


def step_name(job: str, worker: str, step: str) -> str:
    """Return the name under which a step is recorded."""
    return f"{job}/{worker}/{step}"


class EarlierWork:
    """What owners of the run before this one recorded as done, by job: the run's end tells the whole run."""

    def __init__(self, steps: Iterable[str]) -> None:
        self._by_job: dict[str, Counter[str]] = defaultdict(Counter)
        for name in steps:
            job, _, rest = name.partition("/")
            step = rest.partition("/")[2]
            if step in VERBS:
                self._by_job[job][step] += 1

    def counts(self) -> dict[str, int]:
        """Return how many allocations were promoted and stopped."""
        total = sum(self._by_job.values(), Counter())
        return {PROMOTED: sum(total[step] for step in PROMOTIONS), STOPPED: total[STOPPED]}

    def describe(self, job: str, now: Mapping[str, int]) -> str:
        """Say what was done to a job, now (steps by name) and before; empty = nothing."""
        whole = Counter(now) + self._by_job.get(job, Counter())
        return ", ".join(f"{whole[step]} {verb}" for step, verb in VERBS.items() if whole[step])


@dataclass(frozen=True, kw_only=True)
class Deploy:
    """One deploy."""

    context: RunContext
    spec: DeploySpec
    fleet: Fleet
    jobs: dict[str, Job]
    """Jobs in scope, removed ones included."""
    preflight: Preflight
    worker_files: WorkerFiles
    staged_trees: StagedTrees
    steps: set[str]
    """Recorded by any owner of the run."""
    earlier: "EarlierWork"
    """What owners before this one recorded."""
    left_out: set[str] = field(default_factory=set)
    """Workers that cannot be used and shall be skipped."""
    dead: set[str] = field(default_factory=set)
    """Workers that left the fleet and cannot be reached, or were given up: nothing is done on them."""
    jobs_with_hooks_run: set[str] = field(default_factory=set)
    """Jobs of which hooks were run: what they may have stored is not in plans that were made before."""

    @property
    def options(self) -> PlanOptions:
        """How allocations are planned."""
        return PlanOptions(force=self.spec.force, sync_only=self.spec.sync_only)

    def candidates(self, job: str) -> tuple[Allocation, ...]:
        """Return the active allocations of a job on workers that are not left out."""
        return tuple(one for one in self.fleet.active_of_job(job) if one.worker not in self.left_out)

    def was_promoted(self, allocation: Allocation) -> bool:
        """Whether this run promoted it already, before a takeover perhaps."""
        return any(step_name(allocation.job, allocation.worker, step) in self.steps for step in PROMOTIONS)

    @property
    def memory(self) -> StepMemory:
        """Remember every hook invocation of an event that a takeover must not repeat."""
        return StepMemory(done=self.steps.__contains__, record=self.record, every=True)

    @property
    def batch_memory(self) -> StepMemory:
        """Remember only hooks that run once in a run: a batch that was not promoted is repeated as a whole, hooks included."""
        return StepMemory(done=lambda name: is_once_in_a_run(name) and name in self.steps, record=self._record_once_in_a_run)

    async def run_hooks(
        self,
        job: Job,
        event: str,
        allocations: Sequence[Allocation],
        *,
        order: RolloutOrder,
        memory: StepMemory,
        batch: LifecycleBatch | None = None,
    ) -> list[pb.Failure]:
        """Run a job's hooks on an event and return what failed: in a lifecycle batch a failure for all who did not pass.

        Raises `JobCancelled` when a cancel left something undone.
        """
        if not allocations or not job.hooks_on(event):
            return []
        self.jobs_with_hooks_run.add(job.name)
        outcome = await run_event_hooks(
            self.context, self.fleet, job, event, allocations, order=order, batch=batch, memory=memory
        )
        failures = failures_or_cancelled(job.name, outcome)
        return failures + (failures_of_unrun_hooks(job, event, outcome, allocations) if batch else [])

    def stop_if_asked(self) -> None:
        """Raise `JobCancelled` when the run shall end after the batch that just ended."""
        if self.context.cancel.level > CancelLevel.NOT_ASKED:
            raise JobCancelled("stopped before its next batch")

    async def record(self, name: str) -> None:
        """Record a step as done for good."""
        await self.context.catalog.record_steps(self.context.identity, [name])
        self.steps.add(name)

    async def _record_once_in_a_run(self, name: str) -> None:
        if is_once_in_a_run(name):
            await self.record(name)


def may_be_left_out(deploy: Deploy, failure: pb.Failure) -> bool:
    """Whether --skip-unreachable leaves a worker out: one that cannot be reached, or one that left the fleet and is broken."""
    kinds = BROKEN_WORKER if deploy.fleet.worker(failure.worker).removed else NOT_REACHED
    return deploy.spec.skip_unreachable and failure.kind in kinds
