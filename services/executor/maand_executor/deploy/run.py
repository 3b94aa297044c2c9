"""A deploy from the first look to the last sentence.

facts -> plan what can be planned -> preflight of the workers that will be touched -> reconcile -> waves of jobs -> summary
"""

import shlex
from collections import Counter
from collections.abc import Iterable, Mapping

from maand_contracts.catalog.v1 import run_event_pb2 as pb
from maand_contracts.catalog.v1.run_spec_pb2 import DeploySpec
from maand_executor.content.staged_trees import StagedTrees
from maand_executor.deploy.affected_workers import check_affected_workers
from maand_executor.deploy.dry_run import show_deploy
from maand_executor.deploy.job import UNCHANGED, JobRollout
from maand_executor.deploy.plan import JobPlan, plan_job
from maand_executor.deploy.reconcile import JobStops, plan_stops
from maand_executor.deploy.state import RENDER, STOPPED, Deploy, EarlierWork, JobFailed, StartRefused
from maand_executor.errors import CannotRender, InvalidRequest, JobCancelled, RunFailed
from maand_executor.output import events
from maand_executor.rules.facts import Job
from maand_executor.rules.side_by_side import side_by_side
from maand_executor.rules.waves import blocking_job, group_into_waves
from maand_executor.runs.build import build_snapshot
from maand_executor.steps.certificates import check_certificates
from maand_executor.steps.context import RunContext
from maand_executor.steps.fleet import Fleet, read_fleet
from maand_executor.steps.preflight import Preflight
from maand_executor.steps.worker_files import WorkerFiles

PLANS_AT_ONCE = 4
"""Jobs planned side by side ahead of a deploy: while one is rendered, which takes a core, the others' files are fetched."""


async def run_deploy(context: RunContext) -> None:
    """Deploy what was built. Raises `RunFailed` when nothing can be begun; what fails later is in the report."""
    spec = context.spec.deploy
    if spec.build_snapshot_id:
        context = await build_first(context, spec)
    fleet = await read_fleet(context)
    jobs = fleet.jobs_named(spec.jobs)
    await refuse_ended_certificates(context, fleet, jobs)
    if spec.dry_run:
        await show_deploy(context, spec, fleet, jobs)
        return
    await DeployRun(await begin_deploy(context, spec, fleet, jobs)).run()


async def refuse_ended_certificates(context: RunContext, fleet: Fleet, jobs: Mapping[str, Job]) -> None:
    """Raise `RunFailed` when a certificate that would be deployed, or left as it is, has ended. Warn of what ends soon.

    With --build they are new by now, unless the CA is over too: then the build failed.
    """
    failures = await check_certificates(context, [one for name in jobs for one in fleet.active_of_job(name)])
    if failures:
        raise RunFailed(f"nothing was changed: {count_ended(len(failures))}", failures=failures)


def count_ended(number: int) -> str:
    """Say how many certificates are over."""
    return "a certificate has ended" if number == 1 else f"{number} certificates have ended"


async def build_first(context: RunContext, spec: DeploySpec) -> RunContext:
    """Build the snapshot that came with the deploy; return the context with the settings now in force."""
    if spec.dry_run:
        raise InvalidRequest("a dry run builds nothing", help="run `maand build` first, then `maand deploy --dry-run`")
    context.report.next_command = resume_command(spec, build=True, keep_going=context.spec.keep_going, sync_only=spec.sync_only)
    await build_snapshot(context, spec.build_snapshot_id)
    return context.with_config(await context.catalog.read_config(context.identity.bucket_id))


async def begin_deploy(context: RunContext, spec: DeploySpec, fleet: Fleet, jobs: dict[str, Job]) -> Deploy:
    """Put together what a deploy works with; steps recorded by an earlier owner of the run are not repeated."""
    steps = set(await context.catalog.list_steps(context.identity))
    earlier = EarlierWork(steps)
    for outcome, number in earlier.counts().items():
        context.report.count(outcome, number)
    return Deploy(
        context=context,
        spec=spec,
        fleet=fleet,
        jobs=jobs,
        preflight=Preflight(context),
        worker_files=WorkerFiles(context, fleet),
        staged_trees=StagedTrees(context.identity.bucket_id, context.content, context.staging_dir),
        steps=steps,
        earlier=earlier,
        dead={worker.name for worker in fleet.workers.values() if worker.lost},
    )


class DeployRun:
    """Carries a deploy through."""

    def __init__(self, deploy: Deploy) -> None:
        self._deploy = deploy
        self._context = deploy.context
        self._report = deploy.context.report
        self._plans: Mapping[str, JobPlan] = {}
        self._failed: set[str] = set()
        self._not_stopped: dict[str, str] = {}
        """Jobs that are rolled out although not everything of them could be stopped (--keep-going), and what is said of it."""
        self._cancelled: set[str] = set()
        self._done: dict[str, Counter[str]] = {}
        self._start_refused = False
        self._files_to_mend = False

    async def run(self) -> None:
        """Do it, and say how it went in the report."""
        self._name_next_command()
        self._plans = await self._plan_ahead()
        self._plans = await check_affected_workers(self._deploy, self._plans)
        await self._reconcile()
        await self._roll_out()
        self._summarise()

    async def _plan_ahead(self) -> dict[str, JobPlan]:
        """Plan jobs that no hook of their own changes in every deploy: then an unchanged fleet is not contacted at all.

        What hooks store after this, while something is stopped or for a demanded job, makes `_ready_plan` drop the plan.
        """
        plannable = [job for job in self._present_jobs() if not job.hooks_on("pre_deploy")]
        plans = await side_by_side(plannable, self._plan_or_none, limit=PLANS_AT_ONCE)
        return {plan.job.name: plan for plan in plans if plan is not None}

    async def _plan_or_none(self, job: Job) -> JobPlan | None:
        candidates = tuple(one for one in self._deploy.candidates(job.name) if not self._deploy.was_promoted(one))
        try:
            return await plan_job(self._context, self._deploy.fleet, job, candidates, self._deploy.options)
        except CannotRender:
            return None  # planned again when its turn comes: a job before it may store what is missing

    def _present_jobs(self) -> list[Job]:
        return [job for job in self._deploy.jobs.values() if not job.removed]

    async def _reconcile(self) -> None:
        for wave in reversed(group_into_waves(self._deploy.jobs.values())):
            await side_by_side(wave, self._stop_job, limit=self._context.config.max_parallel_jobs)

    async def _stop_job(self, job: Job) -> None:
        plans = plan_stops(self._deploy, job.name)
        if not plans:
            return
        try:
            await JobStops(self._deploy, job).run(plans)
            if job.removed:
                self._finish(job.name, pb.JOB_OUTCOME_SUCCEEDED, "removed")
            self._done[job.name] = Counter({STOPPED: len(plans)})
        except JobFailed as failure:
            if job.removed or not self._context.spec.keep_going:
                self._fail(job.name, failure)
            else:
                self._report.fail(failure.failures)
                self._not_stopped[job.name] = str(failure)
        except JobCancelled as cancelled:
            self._cancel(job.name, cancelled)

    async def _roll_out(self) -> None:
        parts = group_into_waves(self._present_jobs())
        for wave in parts:
            names = [job.name for job in wave]
            self._context.journal.report(events.wave_started(wave=wave[0].deployment_seq, waves=len(parts), jobs=names))
            await side_by_side(wave, self._roll_out_job, limit=self._context.config.max_parallel_jobs)

    async def _roll_out_job(self, job: Job) -> None:
        if job.name in self._failed | self._cancelled:
            return
        if blocked_by := blocking_job(job, self._failed):
            self._block(job.name, blocked_by)
            return
        if blocked_by := blocking_job(job, self._cancelled):
            self._cancel(job.name, JobCancelled(f"{blocked_by}, which it demands, was not finished"))
            return
        try:
            done = await JobRollout(self._deploy, job, ready_plan=self._ready_plan(job)).run()
        except JobFailed as failure:
            self._fail(job.name, failure)
        except RunFailed as failure:
            self._fail(job.name, JobFailed(str(failure), failure.failures))
        except JobCancelled as cancelled:
            self._cancel(job.name, cancelled)
        else:
            self._succeed(job.name, done)

    def _ready_plan(self, job: Job) -> JobPlan | None:
        """Return the plan made ahead, unless hooks have run since of a job whose values it may hold: its own, a demanded one."""
        if self._deploy.jobs_with_hooks_run.isdisjoint((job.name, *job.demanded_jobs)):
            return self._plans.get(job.name)
        return None

    def _succeed(self, job: str, done: Mapping[str, int]) -> None:
        self._done[job] = self._done.get(job, Counter()) + Counter(done)
        said = self._describe(job)
        if job in self._not_stopped:
            self._finish(job, pb.JOB_OUTCOME_FAILED, "; ".join(filter(None, (self._not_stopped[job], said))))
            return
        outcome = pb.JOB_OUTCOME_SUCCEEDED if said else pb.JOB_OUTCOME_SKIPPED
        self._finish(job, outcome, said or UNCHANGED)

    def _describe(self, job: str) -> str:
        """Say what this run did to a job, whoever owned it; empty = nothing."""
        return self._deploy.earlier.describe(job, self._done.get(job, {}))

    def _fail(self, job: str, failure: JobFailed) -> None:
        self._failed.add(job)
        self._report.fail(failure.failures)
        self._start_refused |= isinstance(failure, StartRefused)
        self._files_to_mend |= any(is_mended_in_workspace(one) for one in failure.failures)
        self._name_next_command()
        self._finish(job, pb.JOB_OUTCOME_FAILED, str(failure))

    def _name_next_command(self) -> None:
        self._report.next_command = resume_command(
            self._deploy.spec,
            build=self._files_to_mend,
            keep_going=self._context.spec.keep_going,
            sync_only=self._deploy.spec.sync_only and not self._start_refused,
        )

    def _block(self, job: str, blocked_by: str) -> None:
        self._failed.add(job)
        message = f"blocked: {blocked_by}, which it demands, failed"
        self._report.fail([pb.Failure(kind=pb.FAILURE_KIND_BLOCKED, job=job, message=message)])
        self._report.count("blocked", len(self._deploy.candidates(job)))
        self._finish(job, pb.JOB_OUTCOME_BLOCKED, message)

    def _cancel(self, job: str, cancelled: JobCancelled) -> None:
        self._cancelled.add(job)
        self._report.stopped_early = True
        self._finish(job, pb.JOB_OUTCOME_CANCELLED, str(cancelled))

    def _finish(self, job: str, outcome: "pb.JobOutcome.ValueType", message: str) -> None:
        self._context.journal.report(events.job_finished(job=job, outcome=outcome, message=message))

    def _summarise(self) -> None:
        said = {job: self._describe(job) for job in sorted(self._deploy.jobs)}
        self._report.changes = any(said.values())
        if failed := self._failed | self._not_stopped.keys():
            self._report.message = f"failed: {', '.join(sorted(failed))}"
        elif self._cancelled:
            self._report.message = f"stopped; not finished: {', '.join(sorted(self._cancelled))}"
        else:
            self._report.next_command = ""
            self._report.message = "; ".join(f"{job}: {words}" for job, words in said.items() if words) or UNCHANGED


def is_mended_in_workspace(failure: pb.Failure) -> bool:
    """Whether a file of the workspace failed, a hook or a template: without a build the next deploy runs the same file again."""
    return failure.step == RENDER or failure.step.startswith("hook_")


def resume_command(spec: DeploySpec, *, build: bool, keep_going: bool, sync_only: bool) -> str:
    """Return the command that goes on where this deploy ends.

    With --build where a mended file has to be taken in, without --sync-only where something has to be started.
    """
    flags: Iterable[tuple[bool, str]] = (
        (build, "--build"),
        (spec.force, "--force"),
        (sync_only, "--sync-only"),
        (spec.skip_unreachable, "--skip-unreachable"),
        (keep_going, "--keep-going"),
    )
    words = [
        "maand",
        "deploy",
        *(["--jobs", ",".join(spec.jobs)] if spec.jobs else []),
        *(flag for wanted, flag in flags if wanted),
    ]
    return shlex.join(words)
