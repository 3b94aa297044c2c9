"""A bucket in memory for tests of runs: catalog, workers and hooks that do what they are told and remember what was asked.

bed = RunBed(tmp_path)
bed.add_job("api", workers=3, max_concurrent_upgrades=2)
ended = await bed.deploy()
bed.did                      # "copy api 10.0.0.1", "start api 10.0.0.1", "hook pre_deploy api 10.0.0.1,…", …
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from maand_catalog.rules.build.allocations import AllocationState as CatalogState
from maand_catalog.rules.build.allocations import owes_start
from maand_contracts.catalog.v1 import run_event_pb2 as pb
from maand_contracts.catalog.v1 import run_spec_pb2
from maand_executor.catalog_client import BuildReport, ClaimedRun, Purged, RenewedLease
from maand_executor.claims.run_endings import Ending, judge_ending
from maand_executor.claims.work_by_kind import do_the_work
from maand_executor.content.content_store import ContentStore
from maand_executor.content.templates import RenderedFile, TemplateWork
from maand_executor.hooks.request import EventRun
from maand_executor.output.journal import Journal
from maand_executor.rules.cancel import CancelLevel, CancelSignal
from maand_executor.rules.certificates import EndingCertificates
from maand_executor.rules.facts import (
    Allocation,
    AllocationMove,
    AllocationState,
    AllocationViews,
    BucketConfig,
    Hook,
    InvocationOutcome,
    Job,
    Namespace,
    PlannedFile,
    RolloutOrder,
    RunIdentity,
    Worker,
)
from maand_executor.rules.hook_outcomes import EventOutcome, InvocationResult
from maand_executor.settings import LeaseSettings, WorkSettings
from maand_executor.steps.context import RunContext
from maand_executor.steps.lease import Lease
from maand_executor.steps.report import RunReport
from tests.unit.executor.fake_catalog import FakeCatalog
from tests.unit.executor.fakes_workers import FakeRemote

BUCKET = "0197c0de-bbbb-7000-8000-000000000001"
RUN = RunIdentity(bucket_id=BUCKET, run_id="0197c0de-aaaa-7000-8000-000000000001", seq=1, fence=1)


class FleetCatalog(FakeCatalog):
    """What was built, and what runs made of it."""

    def __init__(self) -> None:
        super().__init__()
        self.config = BucketConfig(bucket_id=BUCKET, use_sudo=False)
        self.workers: dict[str, Worker] = {}
        self.jobs: dict[str, Job] = {}
        self.allocations: dict[str, Allocation] = {}
        self.deployed: dict[str, tuple[PlannedFile, ...]] = {}
        self.orders: dict[str, RolloutOrder] = {}
        self.values: dict[str, Namespace] = {}
        self.steps: list[str] = []
        self.moves: list[tuple[str, str]] = []
        self.build = BuildReport(changed=True, counts=dict.fromkeys(BUILD_COUNTS, 0), warnings=())
        self.build_failure: Exception | None = None
        self.ending = EndingCertificates()
        self.ending_asked = 0

    async def read_config(self, bucket_id: str) -> BucketConfig:
        return self.config

    async def list_workers(
        self, bucket_id: str, *, hosts: Sequence[str] = (), labels: Sequence[str] = (), include_removed: bool = False
    ) -> tuple[Worker, ...]:
        return tuple(worker for worker in self.workers.values() if include_removed or not worker.removed)

    async def list_jobs(self, bucket_id: str, *, names: Sequence[str] = (), include_removed: bool = False) -> tuple[Job, ...]:
        return tuple(job for _, job in sorted(self.jobs.items()) if include_removed or not job.removed)

    async def list_allocations(
        self, bucket_id: str, *, jobs: Sequence[str] = (), workers: Sequence[str] = (), include_removed: bool = False
    ) -> tuple[Allocation, ...]:
        return tuple(one for one in self.allocations.values() if include_removed or not one.removed)

    async def read_rollout_order(self, bucket_id: str, job: str) -> RolloutOrder:
        hosts = tuple(one.worker for one in self.allocations.values() if one.job == job and one.active)
        return self.orders.get(job) or RolloutOrder(workers=hosts)

    async def list_deployed_files(self, bucket_id: str, allocation_ids: Sequence[str]) -> Mapping[str, tuple[PlannedFile, ...]]:
        return {one: self.deployed[one] for one in allocation_ids if one in self.deployed}

    async def read_allocation_views(self, bucket_id: str, allocation_ids: Sequence[str]) -> AllocationViews:
        readable = frozenset(self.values) | {"vars/bucket"}
        return AllocationViews(namespaces=dict(self.values), readable=dict.fromkeys(allocation_ids, readable))

    async def read_ending_certificates(self, bucket_id: str) -> EndingCertificates:
        self.ending_asked += 1
        return self.ending

    async def list_steps(self, run: RunIdentity) -> tuple[str, ...]:
        return tuple(self.steps)

    async def record_steps(self, run: RunIdentity, names: Sequence[str]) -> None:
        self.steps += names

    async def move_allocations(
        self,
        run: RunIdentity,
        moves: Sequence[AllocationMove],
        *,
        step_names: Sequence[str] = (),
        post_deploy_owed_jobs: Sequence[str] = (),
        post_deploy_done_jobs: Sequence[str] = (),
    ) -> None:
        self.steps += step_names
        for move in moves:
            self._move(move)
        for job in (*post_deploy_owed_jobs, *post_deploy_done_jobs):
            self._owe(job, owed=job in post_deploy_owed_jobs)

    async def purge_allocations(self, run: RunIdentity, allocation_ids: Sequence[str], *, retain_days: int) -> Purged:
        for one in allocation_ids:
            del self.allocations[one]
        return Purged(allocations=len(allocation_ids))

    async def build_snapshot(self, run: RunIdentity, snapshot_id: str) -> BuildReport:
        if self.build_failure:
            raise self.build_failure
        return self.build

    def states(self, job: str) -> list[str]:
        """Return the states of a job's allocations, by index."""
        return [str(one.state) for one in self.allocations.values() if one.job == job]

    def change(self, job: str, worker: str, **changes: Any) -> None:
        """Change one allocation, as a build would."""
        key = f"{job}@{worker}"
        self.allocations[key] = replace(self.allocations[key], **changes)

    def _move(self, move: AllocationMove) -> None:
        before = self.allocations[move.allocation_id]
        owed = owes_start(before, CatalogState(move.to_state))  # type: ignore[arg-type]  # the catalog's own rule, on equal names
        changes: dict[str, Any] = {"state": move.to_state, "message": move.message, "start_owed": owed}
        if move.current_version:
            changes["current_version"] = move.current_version
            changed = move.current_version != before.current_version
            changes["previous_version"] = before.current_version if changed else before.previous_version
        if move.deployed_sha256:
            changes["deployed_sha256"] = move.deployed_sha256
            self.deployed[move.allocation_id] = move.deployed_files or ()
        self.allocations[move.allocation_id] = replace(before, **changes)
        self.moves.append((move.allocation_id, str(move.to_state)))

    def _owe(self, job: str, *, owed: bool) -> None:
        for key, one in self.allocations.items():
            if one.job == job:
                self.allocations[key] = replace(one, post_deploy_owed=owed)


BUILD_COUNTS = ("jobs", "workers", "active_allocations", "added_allocations", "removed_allocations", "issued_certificates")


@dataclass
class FakeHooks:
    """Hooks that succeed unless told otherwise; `notices` are what each says.

    By `<event> <host>`: `fail`, the exit code of one that fails; `ended`, the outcome of one that ended otherwise.
    """

    did: list[str]
    fail: dict[str, int] = field(default_factory=dict)
    ended: dict[str, InvocationOutcome] = field(default_factory=dict)
    notices: tuple[str, ...] = ()
    requests: list[EventRun] = field(default_factory=list)
    on_event: Callable[[EventRun], None] = lambda _: None

    async def run_event(self, request: EventRun) -> EventOutcome:
        self.requests.append(request)
        hosts = [one.worker for one in request.allocations]
        self.did.append(f"hook {request.event} {request.job.name} {','.join(hosts)}")
        self.on_event(request)
        results = [self._result(request, one) for one in request.allocations]
        return EventOutcome(results=tuple(results))

    def _result(self, request: EventRun, allocation: Allocation) -> InvocationResult:
        code = self.fail.get(f"{request.event} {allocation.worker}", 0)
        failed_or_not = InvocationOutcome.FAILED if code else InvocationOutcome.SUCCEEDED
        return InvocationResult(
            hook=request.job.hooks_on(request.event)[0].name,
            allocation_id=allocation.allocation_id,
            worker=allocation.worker,
            outcome=self.ended.get(f"{request.event} {allocation.worker}", failed_or_not),
            notices=self.notices,
            exit_code=code,
        )


class RenewingCatalog:
    """Renews whatever it is asked to."""

    async def renew_lease(self, run: RunIdentity, *, deadline: timedelta) -> RenewedLease:
        return RenewedLease(lease=timedelta(hours=1), cancel=CancelLevel.NOT_ASKED)


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a run ended."""

    ending: Ending
    result: pb.RunResult
    events: Sequence[pb.RunEvent]

    @property
    def word(self) -> str:
        """Its state."""
        return self.ending.word

    def jobs(self) -> dict[str, str]:
        """Return how each job ended."""
        name = pb.JobOutcome.Name
        finished = (event for event in self.events if event.HasField("job_finished"))
        return {event.job: name(event.job_finished.outcome).removeprefix("JOB_OUTCOME_").lower() for event in finished}


class RunBed:
    """One bucket, and what happened in it."""

    def __init__(self, directory: Path) -> None:
        self.did: list[str] = []
        self.catalog = FleetCatalog()
        self.remote = FakeRemote(self.did)
        self.hooks = FakeHooks(self.did)
        self.cancel = CancelSignal()
        self._directory = directory

    def add_workers(self, count: int) -> None:
        """Have workers 10.0.0.1 to 10.0.0.<count>."""
        for number in range(count):
            host = f"10.0.0.{number + 1}"
            self.catalog.workers.setdefault(host, Worker(name=host, worker_id=f"id-{host}", position=number))

    def add_job(
        self, name: str, *, workers: int = 1, files: Mapping[str, str] | None = None, hooks: Sequence[str] = (), **facts: Any
    ) -> Job:
        """Have a job on the first workers; `hooks` are events, each with its own hook."""
        self.add_workers(workers)
        job = Job(name=name, version="1.0.0", hooks=tuple(hook_on(name, event) for event in hooks), **facts)
        self.catalog.jobs[name] = job
        self.write(name, files or {"Makefile": "start:\n"})
        for index in range(workers):
            host = f"10.0.0.{index + 1}"
            key = f"{name}@{host}"
            self.catalog.allocations[key] = Allocation(allocation_id=key, job=name, worker=host, index=index, new_version="1.0.0")
        return job

    def write(self, job: str, files: Mapping[str, str]) -> None:
        """Build other content for a job."""
        self.catalog.add_job(job, files)

    async def deploy(self, *, keep_going: bool = False, steps: Sequence[str] = (), **spec: Any) -> Ended:
        """Deploy; with `steps`, as the next owner of a run whose earlier owner recorded them."""
        asked = run_spec_pb2.RunSpec(deploy=run_spec_pb2.DeploySpec(**spec), keep_going=keep_going)
        return await self.run(asked, steps=steps)

    async def run(self, spec: run_spec_pb2.RunSpec, *, steps: Sequence[str] = ()) -> Ended:
        """Carry a run out, to its judged end."""
        self.did.clear()
        self.catalog.steps = list(steps)
        self.catalog.events.clear()
        journal = Journal(RUN, self.catalog, pause=timedelta(milliseconds=1))
        report = RunReport()
        error: BaseException | None = None
        try:
            await do_the_work(self.context(spec, journal, report))
        except Exception as raised:  # noqa: BLE001 - every ending is judged
            error = raised
        ending = judge_ending(error, report)
        await journal.close()
        return Ended(ending=ending, result=report.result(), events=tuple(self.catalog.events))

    def context(self, spec: run_spec_pb2.RunSpec, journal: Journal, report: RunReport) -> RunContext:
        """Put a context together."""
        catalog: Any = self.catalog
        remote: Any = self.remote
        hooks: Any = self.hooks
        claim = ClaimedRun(identity=RUN, kind="", spec=spec, lease=timedelta(hours=1))
        staging = self._directory / "staging"
        staging.mkdir(exist_ok=True)
        return RunContext(
            identity=RUN,
            kind="",
            spec=spec,
            config=self.catalog.config,
            catalog=catalog,
            remote=remote,
            hooks=hooks,
            content=ContentStore(self._directory / "blobs", catalog),
            templates=RendersHere(),
            lease=Lease(RenewingCatalog(), claim, self.cancel, LeaseSettings()),
            cancel=self.cancel,
            journal=journal,
            report=report,
            settings=WorkSettings(),
            staging_dir=staging,
        )


class RendersHere:
    """Renders templates in this process."""

    async def render(self, work: TemplateWork) -> Mapping[str, Sequence[RenderedFile]]:
        """Render."""
        files = work.render()
        return {one.allocation.allocation_id: [next(files) for _ in work.modes] for one in work.subjects}

    async def close(self) -> None:
        """Nothing is held."""


def hook_on(job: str, event: str) -> Hook:
    """Make a hook for one event."""
    name = f"hook_{event}"
    return Hook(name=name, job=job, path=f"_hooks/{name}.py", runtime="python", executed_on=(event,))


def promoted(*states: str) -> bool:
    """Whether all of these are promoted."""
    return set(states) == {str(AllocationState.PROMOTED)}
