"""The decision table of a deploy, one test row per cell."""

import pytest

from maand_executor.rules.decisions import Action, PlannedAllocation, PlanOptions, plan_allocation, runtime_digest
from maand_executor.rules.facts import Allocation, AllocationState, Job, PlannedFile, RestartPolicy

ALWAYS, RELOAD, NEVER = RestartPolicy.ALWAYS, RestartPolicy.RELOAD, RestartPolicy.NEVER
OLD = (PlannedFile(path="app.conf", mode=0o644, sha256=b"1" * 32), PlannedFile(path="Makefile", mode=0o644, sha256=b"m" * 32))
NEW = (PlannedFile(path="app.conf", mode=0o644, sha256=b"2" * 32), OLD[1])


def job(policy: RestartPolicy = ALWAYS, globs: tuple[str, ...] = ()) -> Job:
    return Job(name="api", restart_policy=policy, restart_globs=globs)


def allocation(
    *,
    promoted: bool = True,
    state: AllocationState = AllocationState.PROMOTED,
    current: str = "1.0.0",
    new: str = "1.0.0",
    disabled: bool = False,
    removed: bool = False,
    start_owed: bool = False,
) -> Allocation:
    return Allocation(
        allocation_id="id",
        job="api",
        worker="10.0.0.1",
        state=state,
        current_version=current,
        new_version=new,
        disabled=disabled,
        removed=removed,
        start_owed=start_owed,
        deployed_sha256=runtime_digest(OLD) if promoted else b"",
    )


def plan(of: Job, subject: Allocation, wanted: tuple[PlannedFile, ...], options: PlanOptions | None = None) -> PlannedAllocation:
    digest = runtime_digest(wanted)
    return plan_allocation(of, subject, wanted=wanted, digest=digest, deployed=OLD, options=options or PlanOptions())


PLANNED = allocation(promoted=False, state=AllocationState.PLANNED)
RE_ENABLED = allocation(state=AllocationState.STOPPED)
UNFINISHED = allocation(state=AllocationState.DEPLOYING)
FAILED = allocation(state=AllocationState.FAILED)
NEWER = allocation(new="1.1.0", state=AllocationState.PENDING)
SAME = allocation()
SYNC_ONLY, FORCE = PlanOptions(sync_only=True), PlanOptions(force=True)
FORCED_SYNC = PlanOptions(force=True, sync_only=True)


@pytest.mark.parametrize(
    ("row", "subject", "wanted", "cells"),
    [
        ("never promoted", PLANNED, NEW, ("start", "start", "start", "refuse")),
        ("re-enabled after being stopped", RE_ENABLED, OLD, ("start", "start", "start", "refuse")),
        ("digest changed", SAME, NEW, ("restart", "reload", "sync", "sync")),
        ("the last attempt did not finish", UNFINISHED, OLD, ("restart", "restart", "sync", "sync")),
        ("the last attempt failed", FAILED, OLD, ("restart", "restart", "sync", "sync")),
        ("the last attempt failed, digest changed", FAILED, NEW, ("restart", "restart", "sync", "sync")),
        ("only the version changed", NEWER, OLD, ("restart", "reload", "sync", "sync")),
        ("unchanged", SAME, OLD, ("skip", "skip", "skip", "skip")),
    ],
)
def test_an_active_allocation_is_decided_by_its_row_and_its_policy(
    row: str, subject: Allocation, wanted: tuple[PlannedFile, ...], cells: tuple[str, str, str, str]
) -> None:
    def action(policy: RestartPolicy, options: PlanOptions) -> str:
        return plan(job(policy), subject, wanted, options).action

    decided = (*(action(policy, PlanOptions()) for policy in (ALWAYS, RELOAD, NEVER)), action(ALWAYS, SYNC_ONLY))
    assert decided == cells, row


@pytest.mark.parametrize("wanted", [OLD, NEW])
@pytest.mark.parametrize("new", ["1.0.0", "1.1.0"])
@pytest.mark.parametrize("policy", list(RestartPolicy))
@pytest.mark.parametrize("state", [state for state in AllocationState if state is not AllocationState.REMOVED])
def test_what_was_not_promoted_since_it_was_stopped_is_started_whatever_was_tried_since(
    state: AllocationState, policy: RestartPolicy, new: str, wanted: tuple[PlannedFile, ...]
) -> None:
    subject = allocation(state=state, start_owed=True, new=new)

    assert plan(job(policy, ("app.conf",)), subject, wanted).action is Action.START
    assert plan(job(policy), subject, wanted, FORCE).action is Action.START
    assert plan(job(policy), subject, wanted, FORCED_SYNC).action is Action.REFUSE


@pytest.mark.parametrize("policy", list(RestartPolicy))
@pytest.mark.parametrize("state", [AllocationState.DEPLOYING, AllocationState.FAILED])
def test_what_never_started_is_started_whatever_was_tried_before(state: AllocationState, policy: RestartPolicy) -> None:
    subject = allocation(state=state, promoted=False)

    assert plan(job(policy), subject, OLD).action is Action.START
    assert plan(job(policy), subject, OLD, SYNC_ONLY).action is Action.REFUSE


@pytest.mark.parametrize(
    ("policy", "options", "action"),
    [
        (ALWAYS, FORCE, Action.RESTART),
        (RELOAD, FORCE, Action.RELOAD),
        (NEVER, FORCE, Action.SYNC),
        (ALWAYS, FORCED_SYNC, Action.SYNC),
    ],
)
def test_force_rolls_out_what_is_unchanged(policy: RestartPolicy, options: PlanOptions, action: Action) -> None:
    assert plan(job(policy), SAME, OLD, options).action is action


@pytest.mark.parametrize(
    ("globs", "action"),
    [(("app.conf",), Action.RESTART), (("*.conf",), Action.RESTART), (("bin/*",), Action.RELOAD), ((), Action.RELOAD)],
)
def test_a_changed_path_in_restart_globs_turns_reload_into_restart(globs: tuple[str, ...], action: Action) -> None:
    assert plan(job(RELOAD, globs), SAME, NEW).action is action


@pytest.mark.parametrize(
    ("subject", "action"),
    [
        (allocation(disabled=True), Action.STOP),
        (allocation(disabled=True, state=AllocationState.PENDING), Action.STOP),
        (allocation(disabled=True, promoted=False, state=AllocationState.FAILED), Action.STOP),
        (allocation(disabled=True, state=AllocationState.FAILED, start_owed=True), Action.STOP),
        (allocation(disabled=True, state=AllocationState.DEPLOYING, start_owed=True), Action.STOP),
        (allocation(disabled=True, state=AllocationState.STOPPED), Action.RECORD),
        (allocation(disabled=True, state=AllocationState.STOPPED, start_owed=True), Action.RECORD),
        (allocation(disabled=True, promoted=False, state=AllocationState.PLANNED, start_owed=True), Action.RECORD),
        (allocation(disabled=True, promoted=False, state=AllocationState.PLANNED), Action.RECORD),
        (allocation(removed=True), Action.REMOVE),
        (allocation(removed=True, promoted=False, state=AllocationState.PLANNED), Action.REMOVE),
        (allocation(removed=True, state=AllocationState.STOPPED), Action.REMOVE),
        (allocation(removed=True, state=AllocationState.REMOVED), Action.SKIP),
        (allocation(removed=True, disabled=True), Action.REMOVE),
    ],
)
def test_an_inactive_allocation_is_stopped_once(subject: Allocation, action: Action) -> None:
    assert plan(job(), subject, NEW).action is action


def test_a_plan_names_what_changed_and_why() -> None:
    planned = plan(job(), SAME, NEW)
    assert planned.changed_paths == ("app.conf",)
    assert planned.reason == "changed: app.conf"
    assert planned.digest == runtime_digest(NEW)


def test_what_changed_after_a_failed_attempt_says_both() -> None:
    assert plan(job(), FAILED, NEW).reason == "changed: app.conf; the last attempt did not finish"


def test_a_version_change_says_from_what_to_what() -> None:
    assert plan(job(), NEWER, OLD).reason == "version 1.0.0 -> 1.1.0"
