"""The life of a task, as values and rules: a part of one run's wide work that any executor may do.

    pending ──► running ──► finished
       ▲  │        │  ├───► lost       lapsed or given up, and not to be repeated
       └──┼────────┘  │               (lapsed or given up, and may be repeated for workers of which nothing is known)
          └───────────┴───► dropped   not wanted any more

Two claims guard it: the task's own lease and fence, and the claim of the run's owner that created it. When either is over, what
is written under the task is refused.
"""

import enum
from dataclasses import dataclass
from datetime import datetime

from maand_catalog.rules.runs import CancelLevel, Run


class TaskKind(enum.StrEnum):
    """What a task does. The words are those of the contract's `TaskSpec`."""

    COMMAND = "command"
    PROBE = "probe"
    PREFLIGHT = "preflight"
    LOGIN = "login"
    LIFECYCLE = "lifecycle"
    HOOKS = "hooks"


class TaskState(enum.StrEnum):
    """Where a task is in its life."""

    PENDING = "pending"
    RUNNING = "running"
    FINISHED = "finished"
    LOST = "lost"
    DROPPED = "dropped"


REPEATED = frozenset(TaskKind) - {TaskKind.COMMAND, TaskKind.LIFECYCLE}
"""What only looks may be done again by another executor, and so may hooks, which are written for it.

A person's shell command is not known to be safe to run twice; nor is a Makefile's target, and the next deploy mends what it left.
"""

MOST_CLAIMS = 4
"""A task whose executors die with it is lost after so many claims, as a run is given up: what ends them must not end them all."""

OPEN = frozenset({TaskState.PENDING, TaskState.RUNNING})

ALLOWED_MOVES: dict[TaskState, frozenset[TaskState]] = {
    TaskState.PENDING: frozenset({TaskState.RUNNING, TaskState.DROPPED}),
    TaskState.RUNNING: frozenset({TaskState.FINISHED, TaskState.PENDING, TaskState.LOST, TaskState.DROPPED}),
    TaskState.FINISHED: frozenset(),
    TaskState.LOST: frozenset(),
    TaskState.DROPPED: frozenset(),
}


@dataclass(frozen=True, kw_only=True)
class Task:
    """One part of a run's work, as stored. `spec` and `outcomes` are contract messages, serialized; `sequence` 0 = not ended."""

    task_id: str
    bucket_id: str
    run_id: str
    run_fence: int
    name: str
    kind: TaskKind
    spec: bytes
    state: TaskState
    executor_id: str
    fence: int
    lease_until: datetime | None
    outcomes: bytes
    sequence: int

    @property
    def is_open(self) -> bool:
        """Whether something may still happen to it."""
        return self.state in OPEN

    def has_lapsed(self, now: datetime) -> bool:
        """Whether it is recorded as running while its lease is over."""
        return self.state is TaskState.RUNNING and self.lease_until is not None and self.lease_until <= now

    def is_held_by(self, fence: int, now: datetime) -> bool:
        """Whether the claim with this fence still owns it."""
        return self.state is TaskState.RUNNING and self.fence == fence and not self.has_lapsed(now)


@dataclass(frozen=True, kw_only=True)
class NewTask:
    """A task to be created, validated, with the id it will get."""

    task_id: str
    name: str
    kind: TaskKind
    spec: bytes


def state_after_claim(task: Task, run: Run, now: datetime, *, died: bool) -> TaskState:
    """Return what becomes of a running task whose executor is gone: done again, lost, or not wanted any more.

    `died`: the executor did not give it up in an orderly way.
    """
    if not run.is_held_by(task.run_fence, now):
        return TaskState.DROPPED
    if task.kind not in REPEATED or (died and task.fence >= MOST_CLAIMS):
        return TaskState.LOST
    return TaskState.DROPPED if run.cancel is CancelLevel.NOW else TaskState.PENDING
