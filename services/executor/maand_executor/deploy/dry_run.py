"""`--dry-run`: what a deploy would do, with reasons and diffs, and nothing else: no hooks, no SSH, nothing recorded."""

import asyncio
import difflib
import stat
from collections.abc import Iterator, Mapping, Sequence

from maand_contracts.catalog.v1 import run_event_pb2 as pb
from maand_contracts.catalog.v1.run_spec_pb2 import DeploySpec
from maand_executor.content.allocation_trees import CERTIFICATES, AllocationTree, planned_file_of_entry
from maand_executor.content.content_store import ContentDamaged, ContentStore, TreeEntry
from maand_executor.deploy.plan import JobPlan, plan_job
from maand_executor.deploy.state import RENDER
from maand_executor.errors import CannotRender
from maand_executor.output import events
from maand_executor.rules.decisions import (
    ROLLED_OUT,
    STOPS,
    Action,
    PlannedAllocation,
    PlanOptions,
    may_run,
    plan_inactive,
    plan_unrendered,
)
from maand_executor.rules.facts import Job, PlannedFile
from maand_executor.rules.waves import group_into_waves
from maand_executor.steps.context import RunContext
from maand_executor.steps.fleet import Fleet
from maand_wire.errors import RemoteError

LONGEST_TEXT = 256 * 1024
"""Files larger than this are named, not compared line by line."""
LONGEST_DIFF = 64 * 1024
"""Characters of one allocation's diff."""
UNRENDERED = "its files cannot be rendered before hooks ran"


async def show_deploy(context: RunContext, spec: DeploySpec, fleet: Fleet, jobs: Mapping[str, Job]) -> None:
    """Tell what would be done."""
    await DryRun(context, fleet, jobs, PlanOptions(force=spec.force, sync_only=spec.sync_only)).run()


class DryRun:
    """Plans as a deploy would, and knows of which jobs hooks would have run by then: what they store may change a plan."""

    def __init__(self, context: RunContext, fleet: Fleet, jobs: Mapping[str, Job], options: PlanOptions) -> None:
        self._context = context
        self._fleet = fleet
        self._jobs = jobs
        self._options = options
        self._stops = {name: plan_inactive_of(fleet, name) for name in jobs}
        self._with_hooks = {name for name, job in jobs.items() if hears_of_stops(job, self._stops[name])}

    async def run(self) -> None:
        """Tell of every job in the order of waves, then sum up."""
        for wave in group_into_waves(self._jobs.values()):
            for job in wave:
                await self._show_job(job)
        self._sum_up()

    async def _show_job(self, job: Job) -> None:
        if job.hooks_on("pre_deploy") and not job.removed:
            self._with_hooks.add(job.name)
        may_change = not job.removed and not self._with_hooks.isdisjoint((job.name, *job.demanded_jobs))
        plan = None if job.removed else await self._plan_or_none(job)
        plans = plan.plans if plan else ()
        if not plan and may_change:
            plans = tuple(plan_unrendered(one, self._options, UNRENDERED) for one in self._fleet.active_of_job(job.name))
        if any(one.action in ROLLED_OUT or one.action is Action.UNDECIDED for one in plans) and job.hooks:
            self._with_hooks.add(job.name)
        plans = (*self._stops[job.name], *plans)
        if plans:
            diffs = await diffs_of(self._context, plan) if plan else {}
            self._context.journal.report(events.job_planned(job.name, plans, may_change=may_change, diffs=diffs))
        for one in plans:
            self._context.report.count(one.action)
        if may_change:
            self._context.report.may_change(job.name)
            self._context.report.note(f"{job.name}: {self._name_hooks(job)} may still change this")

    async def _plan_or_none(self, job: Job) -> JobPlan | None:
        """Plan a job. A template that cannot be rendered is a failure, unless hooks of this deploy may store what is missing."""
        try:
            return await plan_job(self._context, self._fleet, job, self._fleet.active_of_job(job.name), self._options)
        except CannotRender as error:
            if self._with_hooks.isdisjoint((job.name, *job.demanded_jobs)):
                failure = pb.Failure(kind=pb.FAILURE_KIND_COMMAND, job=job.name, step=RENDER, message=str(error))
                self._context.report.fail([failure])
            else:
                self._context.report.note(f"{job.name} cannot be planned before its hooks ran: {error}")
        return None

    def _name_hooks(self, job: Job) -> str:
        if job.hooks_on("pre_deploy"):
            return "its pre_deploy hooks"
        others = [name for name in job.demanded_jobs if name in self._with_hooks]
        return f"hooks of {', '.join(others)}" if others else "its hooks that hear of stops"

    def _sum_up(self) -> None:
        report = self._context.report
        undecided = report.counts[Action.UNDECIDED]
        changed = sum(number for outcome, number in report.counts.items() if outcome not in (Action.SKIP, Action.UNDECIDED))
        report.changes = changed + undecided > 0
        said = [f"{changed} allocations would change"] if changed else []
        said += [f"{undecided} allocations may change, they cannot be planned before hooks ran"] if undecided else []
        report.message = ", ".join(said) or "nothing would change"


def plan_inactive_of(fleet: Fleet, job: str) -> tuple[PlannedAllocation, ...]:
    """Return what would be done to the allocations of a job that are not meant to run."""
    inactive = [plan_inactive(one) for one in fleet.of_job(job) if not one.active]
    return tuple(plan for plan in inactive if plan.action in STOPS or plan.action is Action.RECORD)


def hears_of_stops(job: Job, stops: Sequence[PlannedAllocation]) -> bool:
    """Whether hooks of the job would run while these are stopped."""
    hooks = job.hooks_on("after_allocation_stopped") or (not job.has_makefile and job.hooks_on("job_control"))
    return bool(hooks) and any(plan.action in STOPS and may_run(plan.allocation) for plan in stops)


async def diffs_of(context: RunContext, plan: JobPlan) -> dict[str, str]:
    """Return a unified diff per changed allocation, masked."""
    changed = [one for one in plan.rolled_out if one.changed_paths]
    before = (
        await context.catalog.list_deployed_files(context.identity.bucket_id, [one.allocation.allocation_id for one in changed])
        if changed
        else {}
    )
    diffs: dict[str, str] = {}
    for one in changed:
        allocation_id = one.allocation.allocation_id
        files = {file.path: file for file in before.get(allocation_id, ())}
        tree = plan.trees[allocation_id]
        await fetch_compared_contents(context, one, files, tree)
        text = await asyncio.to_thread(diff_allocation, context.content, one, files, tree)
        diffs[allocation_id] = await context.journal.masked(text)
    return diffs


async def fetch_compared_contents(
    context: RunContext, plan: PlannedAllocation, before: Mapping[str, PlannedFile], tree: AllocationTree
) -> None:
    """Have the stored contents that are compared; what the catalog does not hold (rendered, certificates) is done without."""
    now = {entry.path: entry.sha256 for entry in tree.entries}
    wanted = [now.get(path, b"") for path in plan.changed_paths]
    await context.content.ensure(context.identity.bucket_id, [digest for digest in wanted if digest])
    for path in plan.changed_paths:
        if path in before and before[path].sha256 and not path.startswith(CERTIFICATES):
            try:
                await context.content.ensure(context.identity.bucket_id, [before[path].sha256])
            except RemoteError:
                continue


def diff_allocation(
    content: ContentStore, plan: PlannedAllocation, before: Mapping[str, PlannedFile], tree: AllocationTree
) -> str:
    """Compare what is on the worker with what would be, file by file."""
    entries = {entry.path: entry for entry in tree.entries}
    parts = [
        part
        for path in plan.changed_paths
        for part in diff_file(content, path, before.get(path), entries.get(path), secret=path in tree.secret_paths)
    ]
    text = "\n".join(parts)
    return text if len(text) <= LONGEST_DIFF else text[:LONGEST_DIFF] + "\n[diff cut]"


def diff_file(
    content: ContentStore, path: str, before: PlannedFile | None, after: TreeEntry | None, *, secret: bool = False
) -> Iterator[str]:
    """Compare one file; what is no text, or secret keys, is only named."""
    if path.startswith(CERTIFICATES):
        yield f"{path}: reissued"
        return
    if is_directory(before) or (after and after.directory):
        yield f"{path}: {describe_file(before)} -> {describe_file(planned_file_of_entry(after) if after else None)}"
        return
    old = [] if before is None else comparable_lines(stored_content(content, before.sha256))
    new = [] if after is None else comparable_lines(content_of_entry(content, after))
    if old is None:
        why = "it holds a secret, so " if secret else ""
        yield f"{path}: {why}what is on the worker now is not kept here, compare there"
        return
    if new is None:
        yield f"{path}: not text, or too long to compare"
        return
    compared = list(difflib.unified_diff(old, new, f"a/{path}", f"b/{path}", lineterm=""))
    yield from compared or [
        f"{path}: {describe_file(before)} -> {describe_file(planned_file_of_entry(after) if after else None)}"
    ]


def is_directory(file: PlannedFile | None) -> bool:
    """Whether a path is, or was, a directory."""
    return file is not None and stat.S_ISDIR(file.mode)


def describe_file(file: PlannedFile | None) -> str:
    """Say what a path is: its kind and mode."""
    if file is None:
        return "nothing"
    kind = {stat.S_IFDIR: "directory", stat.S_IFLNK: "symbolic link"}.get(stat.S_IFMT(file.mode), "file")
    return kind if kind == "symbolic link" else f"{kind} with mode {file.mode & 0o777:o}"


def content_of_entry(content: ContentStore, entry: TreeEntry) -> bytes | None:
    """Return what an entry will hold."""
    if entry.link_target:
        return entry.link_target.encode()
    return entry.data if entry.data is not None else stored_content(content, entry.sha256)


def stored_content(content: ContentStore, digest: bytes) -> bytes | None:
    """Return a content that is on disk as it was stored."""
    try:
        return content.read(digest)
    except (FileNotFoundError, ContentDamaged):
        return None


def comparable_lines(data: bytes | None) -> Sequence[str] | None:
    """Return a text's lines; None for what cannot be compared."""
    if data is None or len(data) > LONGEST_TEXT or b"\0" in data:
        return None
    return data.decode(errors="replace").splitlines()
