"""What a deploy does with each allocation, and why: the decision table of the specification as a pure function.

| Allocation                                  | always  | reload                                  | never | --sync-only |
|---------------------------------------------|---------|-----------------------------------------|-------|-------------|
| never promoted, or not since it was stopped | start   | start                                   | start | error       |
| digest changed                              | restart | restart when a glob matches else reload | sync  | sync        |
| the last attempt did not finish             | restart | restart                                 | sync  | sync        |
| only the version changed                    | restart | reload                                  | sync  | sync        |
| unchanged                                   | skip; with --force: restart / reload / sync                              |
| disabled, running                           | stop                                                                     |
| disabled, stopped                           | record                                                                   |
| removed, not yet stopped                    | remove                                                                   |

"Not since it was stopped" lasts until a start succeeded: an attempt that failed, was killed or is taken over leaves it
`deploying` or `failed`, and it still does not run. It begins with the stop: one that failed half way may have stopped it.

"The last attempt did not finish" is `deploying` or `failed`: what is on the worker, and what runs there, is not known to be what
was promoted. So it is brought up to date although the digests agree, and restarted where the digest changed as well.

The runtime digest is one number for everything that goes to a worker for one allocation: SHA-256 over the sorted (path, kind and
mode, content digest) of files, symbolic links and directories, certificates included. Hooks and the manifest never go to a worker
and are no part of it, so editing a hook restarts nothing. Directories that hold something and have
mode 0755 are implied by paths.

Where the digest differs, the lists of files decide: digests of older executors did not tell links from files.
"""

import hashlib
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from fnmatch import fnmatchcase

from maand_executor.rules.facts import Allocation, AllocationState, Job, PlannedFile, RestartPolicy


def runtime_digest(files: Iterable[PlannedFile]) -> bytes:
    """Return the digest of a set of files, whatever their order."""
    total = hashlib.sha256()
    for file in sorted(files, key=lambda file: file.path):
        mode = file.mode & PERMISSIONS if stat.S_ISREG(file.mode) else file.mode
        total.update(f"{file.path}\0{mode:o}\0".encode())
        total.update(file.sha256)
    return total.digest()


def digest_of_content(data: bytes) -> bytes:
    """Return the digest of one content."""
    return hashlib.sha256(data).digest()


def differing_paths(before: Iterable[PlannedFile], after: Iterable[PlannedFile]) -> tuple[str, ...]:
    """Return the paths that were added, removed, or differ in kind, mode or content, sorted."""
    old = {file.path: file for file in before}
    new = {file.path: file for file in after}
    return tuple(
        sorted(
            path
            for path in old.keys() | new.keys()
            if path not in old or path not in new or not is_same_file(old[path], new[path])
        )
    )


def is_same_file(old: PlannedFile, new: PlannedFile) -> bool:
    """Whether two are equal, as far as is known: where the kind of the older was not recorded, it is taken to be the newer's."""
    kind = stat.S_IFMT(old.mode)
    return (
        old.mode & PERMISSIONS == new.mode & PERMISSIONS
        and old.sha256 == new.sha256
        and (not kind or kind == stat.S_IFMT(new.mode))
    )


PERMISSIONS = 0o777
UNFINISHED = frozenset({AllocationState.DEPLOYING, AllocationState.FAILED})
STOPPED = frozenset({AllocationState.STOPPED, AllocationState.REMOVED})
NOT_FINISHED = "the last attempt did not finish"


class Action(StrEnum):
    """What to do with one allocation."""

    SKIP = "skip"
    START = "start"
    RESTART = "restart"
    RELOAD = "reload"
    SYNC = "sync"
    STOP = "stop"
    RECORD = "record"
    REMOVE = "remove"
    REFUSE = "refuse"
    """Cannot be done as asked; an error for the job."""
    UNDECIDED = "undecided"
    """Cannot be said before hooks ran; in a dry run only."""


STARTS = frozenset({Action.START})
UPDATES = frozenset({Action.RESTART, Action.RELOAD, Action.SYNC})
STOPS = frozenset({Action.STOP, Action.REMOVE})
ROLLED_OUT = STARTS | UPDATES


@dataclass(frozen=True, kw_only=True)
class PlanOptions:
    """How the operator asked for the deploy."""

    force: bool = False
    sync_only: bool = False


@dataclass(frozen=True, kw_only=True)
class PlannedAllocation:
    """The decision for one allocation."""

    allocation: Allocation
    action: Action
    reason: str
    digest: bytes = b""
    files: tuple[PlannedFile, ...] = field(default=(), repr=False)
    changed_paths: tuple[str, ...] = ()


def plan_allocation(
    job: Job,
    allocation: Allocation,
    *,
    wanted: Sequence[PlannedFile],
    digest: bytes,
    deployed: Sequence[PlannedFile] = (),
    options: PlanOptions = PlanOptions(),
) -> PlannedAllocation:
    """Decide what happens to one allocation.

    `wanted` are the files that shall be on the worker, `digest` their runtime digest, `deployed` the files last promoted (empty
    when unknown: then every path counts as changed).
    """
    if allocation.removed or allocation.disabled:
        return plan_inactive(allocation)
    changed = differing_paths(deployed, wanted) if digest != allocation.deployed_sha256 else ()
    differs = digest != allocation.deployed_sha256 and (bool(changed) or not deployed)
    action, reason = decide_active(job, allocation, differs=differs, changed=changed, options=options)
    return PlannedAllocation(
        allocation=allocation, action=action, reason=reason, digest=digest, files=tuple(wanted), changed_paths=changed
    )


def plan_unrendered(allocation: Allocation, options: PlanOptions, why: str) -> PlannedAllocation:
    """Decide for an active allocation whose files cannot be rendered yet: what does not run has to be started in any case."""
    if why_start(allocation):
        action, reason = decide_start(allocation, options)
        return PlannedAllocation(allocation=allocation, action=action, reason=reason)
    return PlannedAllocation(allocation=allocation, action=Action.UNDECIDED, reason=why)


def plan_inactive(allocation: Allocation) -> PlannedAllocation:
    """Decide for an allocation that is not meant to run."""
    action, reason = decide_inactive(allocation)
    return PlannedAllocation(allocation=allocation, action=action, reason=reason)


def decide_inactive(allocation: Allocation) -> tuple[Action, str]:
    """Apply the last three rows of the table."""
    running = may_run(allocation)
    if allocation.removed:
        if allocation.state is AllocationState.REMOVED:
            return Action.SKIP, "removed and stopped before"
        return Action.REMOVE, "left the workspace" if running else "left the workspace, does not run"
    if running:
        return Action.STOP, "disabled"
    return Action.RECORD, f"disabled, target version {allocation.new_version} is remembered"


def may_run(allocation: Allocation) -> bool:
    """Whether something of the allocation may run on its worker."""
    if allocation.state in STOPPED:
        return False
    return bool(allocation.deployed_sha256) or allocation.state in UNFINISHED


def was_on_worker(allocation: Allocation) -> bool:
    """Whether anything was ever copied to the worker: deployed files may be left there, or what the job wrote."""
    return may_run(allocation) or bool(allocation.deployed_sha256) or allocation.start_owed


def decide_active(
    job: Job, allocation: Allocation, *, differs: bool, changed: Sequence[str], options: PlanOptions
) -> tuple[Action, str]:
    """Apply the first rows of the table to an active allocation."""
    if why_start(allocation):
        return decide_start(allocation, options)
    unfinished = allocation.state in UNFINISHED
    if differs:
        reason = f"{describe_changes(changed)}; {NOT_FINISHED}" if unfinished else describe_changes(changed)
        return choose_update(job, options, changed=changed, reason=reason, surely_restart=unfinished)
    if unfinished:
        return choose_update(job, options, reason=NOT_FINISHED, surely_restart=True)
    if allocation.current_version != allocation.new_version:
        return choose_update(job, options, reason=f"version {allocation.current_version} -> {allocation.new_version}")
    if options.force:
        return choose_update(job, options, reason="unchanged, forced")
    return Action.SKIP, "unchanged"


def decide_start(allocation: Allocation, options: PlanOptions) -> tuple[Action, str]:
    """Start what has to be started, unless the operator asked for copies only."""
    reason = why_start(allocation)
    return (Action.REFUSE, f"{reason}, and --sync-only starts nothing") if options.sync_only else (Action.START, reason)


def why_start(allocation: Allocation) -> str:
    """Say why what shall run has to be started first; nothing when it was started before."""
    if not allocation.deployed_sha256:
        return "never promoted"
    if allocation.state in STOPPED:
        return "enabled again after it was stopped"
    return "not promoted since it was stopped" if allocation.start_owed else ""


def choose_update(
    job: Job, options: PlanOptions, *, reason: str, changed: Sequence[str] = (), surely_restart: bool = False
) -> tuple[Action, str]:
    """Choose how a running allocation is brought up to date."""
    if options.sync_only or job.restart_policy is RestartPolicy.NEVER:
        return Action.SYNC, reason
    if job.restart_policy is RestartPolicy.ALWAYS or surely_restart:
        return Action.RESTART, reason
    matching = first_match(changed, job.restart_globs)
    return (Action.RESTART, f"{reason}; {matching} is in restart_globs") if matching else (Action.RELOAD, reason)


def first_match(paths: Sequence[str], globs: Sequence[str]) -> str | None:
    """Return the first path that matches a glob; `*` matches across `/`, as in a shell's `case`."""
    return next((path for path in paths if any(fnmatchcase(path, glob) for glob in globs)), None)


def describe_changes(changed: Sequence[str], *, at_most: int = 3) -> str:
    """Say which files changed, the first few by name."""
    more = f" and {len(changed) - at_most} more" if len(changed) > at_most else ""
    return f"changed: {', '.join(changed[:at_most])}{more}" if changed else "changed"
