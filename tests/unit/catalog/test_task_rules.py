"""What becomes of tasks whose executor is gone, and which moves there are."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from maand_catalog.rules.runs import CancelLevel, Run, RunKind, RunState
from maand_catalog.rules.tasks import ALLOWED_MOVES, OPEN, REPEATED, Task, TaskKind, TaskState, state_after_claim

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LATER = NOW + timedelta(seconds=15)

RUN = Run(
    run_id="run",
    bucket_id="bucket",
    seq=1,
    kind=RunKind.RUN_COMMAND,
    spec=b"",
    state=RunState.RUNNING,
    message="",
    requested_by="",
    created_at=NOW,
    started_at=NOW,
    finished_at=None,
    executor_id="owner",
    lease_until=LATER,
    fence=3,
    cancel=CancelLevel.NONE,
    last_sequence=0,
    result=b"",
    parent_run_id="",
    hold=None,
    lock_deadline=None,
    sealed_hook_env=b"",
    hook_env_key_id="",
)
TASK = Task(
    task_id="task",
    bucket_id="bucket",
    run_id="run",
    run_fence=3,
    name="login/1/1",
    kind=TaskKind.LOGIN,
    spec=b"",
    state=TaskState.RUNNING,
    executor_id="helper",
    fence=1,
    lease_until=NOW,
    outcomes=b"",
    sequence=0,
)


@pytest.mark.parametrize(
    ("kind", "cancel", "expected"),
    [
        (TaskKind.LOGIN, CancelLevel.NONE, TaskState.PENDING),
        (TaskKind.LOGIN, CancelLevel.AFTER_BATCH, TaskState.PENDING),
        (TaskKind.LOGIN, CancelLevel.NOW, TaskState.DROPPED),
        (TaskKind.COMMAND, CancelLevel.NONE, TaskState.LOST),
        (TaskKind.COMMAND, CancelLevel.NOW, TaskState.LOST),
    ],
)
def test_what_only_looks_is_done_again_and_a_command_is_lost(kind: TaskKind, cancel: CancelLevel, expected: TaskState) -> None:
    assert state_after_claim(replace(TASK, kind=kind), replace(RUN, cancel=cancel), NOW, died=True) is expected


@pytest.mark.parametrize(
    ("fence", "died", "expected"),
    [(3, True, TaskState.PENDING), (4, True, TaskState.LOST), (4, False, TaskState.PENDING), (9, True, TaskState.LOST)],
)
def test_a_task_is_not_claimed_without_end_when_its_executors_die(fence: int, died: bool, expected: TaskState) -> None:
    assert state_after_claim(replace(TASK, kind=TaskKind.HOOKS, fence=fence), RUN, NOW, died=died) is expected


@pytest.mark.parametrize("run", [replace(RUN, fence=4), replace(RUN, lease_until=NOW), replace(RUN, state=RunState.FAILED)])
def test_a_task_of_a_run_that_is_over_or_changed_hands_is_dropped(run: Run) -> None:
    assert state_after_claim(TASK, run, NOW, died=True) is TaskState.DROPPED


def test_a_claim_holds_a_task_while_its_fence_is_the_newest_and_its_lease_lasts() -> None:
    held = replace(TASK, lease_until=LATER)
    assert held.is_held_by(1, NOW)
    assert not held.is_held_by(2, NOW)
    assert not held.is_held_by(1, LATER)
    assert held.has_lapsed(LATER)


def test_open_tasks_move_and_ended_ones_stay() -> None:
    assert {state for state, moves in ALLOWED_MOVES.items() if moves} == OPEN
    assert set(ALLOWED_MOVES) == set(TaskState)


def test_only_what_changes_workers_is_not_repeated() -> None:
    assert set(TaskKind) - REPEATED == {TaskKind.COMMAND, TaskKind.LIFECYCLE}
