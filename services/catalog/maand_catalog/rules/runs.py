"""The kinds of runs and the life of a run, as values and rules.

    pending ──► running ──► succeeded | failed | cancelled
       │  ▲        │
       │  │        ▼ the lease lapsed, or was given up
       │  └── interrupted ──► running (taken over, larger fence)
       │  resumed  │
       ▼           ▼
    failed (waited for the bucket too long), cancelled

A new epoch of the database (`store.runs.epochs`) fails every open run, interrupted ones too.

A running run belongs to one executor for as long as its lease lasts on the database's clock. Its *fence* rises with every claim;
what carries an older fence, or comes after the lease, is refused.

An exclusive run holds the bucket from its creation to its end: those that come later wait in order. A run started in a hook of
an exclusive run joins that hold: it has the same `hold`, the number of the run that holds.

|              | holds the bucket    | taken over | why not                                                            |
|--------------|---------------------|------------|--------------------------------------------------------------------|
| build        | yes                 | yes        |                                                                    |
| deploy       | unless a dry run    | yes        |                                                                    |
| hooks        | no                  | yes        | hooks are written to be repeated                                   |
| run_command  | no                  | no         | a person's shell command is not known to be safe to run twice      |
| health_check | no                  | yes        |                                                                    |
| job_control  | unless it reports   | yes        |                                                                    |
| worker_probe | when it adopts      | yes        |                                                                    |
| gc           | yes                 | yes        |                                                                    |

A takeover that ends without a new recorded step is *barren*. The next one waits a little longer each time, and after
`MOST_BARREN_TAKEOVERS` in a row the run fails: what kills its executors must not do so without end.
"""

import enum
from dataclasses import dataclass
from datetime import datetime, timedelta

from maand_catalog.errors import FailedPrecondition


class RunKind(enum.StrEnum):
    """What a run does. The words are those of the contract's `RunSpec`."""

    BUILD = "build"
    DEPLOY = "deploy"
    HOOKS = "hooks"
    RUN_COMMAND = "run_command"
    HEALTH_CHECK = "health_check"
    JOB_CONTROL = "job_control"
    WORKER_PROBE = "worker_probe"
    GC = "gc"


EXCLUSIVE = frozenset({RunKind.BUILD, RunKind.DEPLOY, RunKind.JOB_CONTROL, RunKind.GC})
TAKEN_OVER = frozenset(RunKind) - {RunKind.RUN_COMMAND}


def holds_bucket(kind: RunKind, *, only_looks: bool) -> bool:
    """Whether a run keeps other exclusive runs out.

    `only_looks`: a deploy's dry run, a job's status, any probe but one that adopts workers.
    """
    if kind in (RunKind.DEPLOY, RunKind.JOB_CONTROL, RunKind.WORKER_PROBE):
        return not only_looks
    return kind in EXCLUSIVE


class RunState(enum.StrEnum):
    """Where a run is in its life."""

    PENDING = "pending"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    INTERRUPTED = "interrupted"


class CancelLevel(enum.IntEnum):
    """How urgently a run is asked to stop."""

    NONE = 0
    AFTER_BATCH = 1
    NOW = 2


ENDED = frozenset({RunState.SUCCEEDED, RunState.FAILED, RunState.CANCELLED})
ACTIVE = frozenset(RunState) - ENDED

ALLOWED_MOVES: dict[RunState, frozenset[RunState]] = {
    RunState.PENDING: frozenset({RunState.RUNNING, RunState.FAILED, RunState.CANCELLED}),
    RunState.RUNNING: frozenset({RunState.SUCCEEDED, RunState.FAILED, RunState.CANCELLED, RunState.INTERRUPTED}),
    RunState.INTERRUPTED: frozenset({RunState.RUNNING, RunState.PENDING, RunState.FAILED, RunState.CANCELLED}),
    RunState.SUCCEEDED: frozenset(),
    RunState.FAILED: frozenset(),
    RunState.CANCELLED: frozenset(),
}


class StaleFence(FailedPrecondition):
    """The run has another owner, has ended, or its lease lapsed. Stop working on it; record nothing more."""

    code = "stale_fence"
    help = "stop working on this run: another executor has it, or it ended"


class RunEnded(FailedPrecondition):
    """The run has ended, there is nothing left to stop. Look at its result."""

    code = "run_ended"


class RunNotInterrupted(FailedPrecondition):
    """Only an interrupted run can be resumed. Wait for it, or start a new one."""

    code = "run_not_interrupted"


class BucketHeld(FailedPrecondition):
    """Another exclusive run is active in this bucket. Wait for it, cancel it, or allow time with `--lock-timeout`."""

    code = "bucket_held"


class ClaimEnd(enum.StrEnum):
    """Why a claim of a run is over although the run has not ended. The words are those of the contract's `ClaimEnd`."""

    LEASE_LOST = "lease_lost"
    EXECUTOR_DIED = "executor_died"
    CATALOG_AWAY = "catalog_away"
    EXECUTOR_STOPPED = "executor_stopped"
    GIVEN_UP = "given_up"

    def sentence(self, executor_id: str) -> str:
        """Say it for people."""
        return SENTENCES[self].format(executor=executor_id)


SENTENCES = {
    ClaimEnd.LEASE_LOST: (
        "its lease was lost: executor {executor} did not renew it in time (it was frozen, was cut off from the catalog, or died)"
    ),
    ClaimEnd.EXECUTOR_DIED: "its executor {executor} died",
    ClaimEnd.CATALOG_AWAY: (
        "the catalog was away (stopped, frozen, or without its database) when executor {executor} was to renew the lease"
    ),
    ClaimEnd.EXECUTOR_STOPPED: "its executor {executor} was stopped",
    ClaimEnd.GIVEN_UP: "its executor {executor} gave it up",
}


MOST_BARREN_TAKEOVERS = 3
PAUSES = (timedelta(), timedelta(seconds=5), timedelta(seconds=20))
"""How long a run waits for its next claim after so many barren takeovers: none at first, a dead executor is nobody's fault."""


@dataclass(frozen=True, kw_only=True)
class WorkerFence:
    """What commands that change a worker carry: the worker refuses a smaller triple than the greatest it has seen."""

    epoch: int
    seq: int
    fence: int


@dataclass(frozen=True, kw_only=True)
class Run:
    """One operation, as stored. `spec` and `result` are contract messages, serialized: the store looks at neither."""

    run_id: str
    bucket_id: str
    seq: int
    kind: RunKind
    spec: bytes
    state: RunState
    message: str
    requested_by: str
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    executor_id: str
    lease_until: datetime | None
    fence: int
    cancel: CancelLevel
    last_sequence: int
    result: bytes
    parent_run_id: str
    hold: int | None
    lock_deadline: datetime | None
    sealed_hook_env: bytes
    hook_env_key_id: str
    traceparent: str = ""
    """Where the trace of whoever asked for it goes on; empty = nobody traces."""
    steps: int = 0
    steps_at_claim: int = 0
    barren_takeovers: int = 0

    @property
    def has_ended(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.state in ENDED

    @property
    def may_be_taken_over(self) -> bool:
        """Whether any executor may continue it without being asked to."""
        return self.kind in TAKEN_OVER

    def has_lapsed(self, now: datetime) -> bool:
        """Whether it is recorded as running while its lease is over."""
        return self.state is RunState.RUNNING and self.lease_until is not None and self.lease_until <= now

    def state_at(self, now: datetime) -> RunState:
        """Return the state as readers see it: a lapsed lease means interrupted, recorded or not."""
        return RunState.INTERRUPTED if self.has_lapsed(now) else self.state

    def is_held_by(self, fence: int, now: datetime) -> bool:
        """Whether the claim with this fence still owns it."""
        return self.state is RunState.RUNNING and self.fence == fence and not self.has_lapsed(now)

    def was_interrupted_by(self, now: datetime) -> bool:
        """Whether it lost an executor before: somebody continues it, or will."""
        claims_over = self.fence - (self.state_at(now) is RunState.RUNNING)
        return claims_over > 0 and not self.has_ended


@dataclass(frozen=True, kw_only=True)
class RunRequest:
    """What somebody asks for, validated, with the id it will get."""

    run_id: str
    bucket_id: str
    kind: RunKind
    spec: bytes
    holds_bucket: bool
    requested_by: str
    parent_run_id: str = ""
    request_id: str = ""
    lock_timeout: timedelta = timedelta()
    sealed_hook_env: bytes = b""
    hook_env_key_id: str = ""
    traceparent: str = ""


@dataclass(frozen=True, kw_only=True)
class EventRecord:
    """One event as stored: the name of what happened, and the contract's RunEvent without its sequence, serialized."""

    kind: str
    payload: bytes


FINISHED = "run_finished"
"""Name of the event that ends a run; there is one, and it is the last."""


def bucket_held_by(holder: Run, *, now: datetime) -> BucketHeld:
    """Return the error that says who holds the bucket, since when, from where."""
    since = (holder.started_at or holder.created_at).isoformat(timespec="seconds")
    state = holder.state_at(now)
    is_continued = holder.was_interrupted_by(now)
    how = f"{state} since {since}{', after it lost its executor' if is_continued else ''}"
    return BucketHeld(
        f"the bucket is held by {holder.kind} run {holder.run_id} of {holder.requested_by or 'somebody'} ({how})",
        help=f"wait for it (maand runs watch {holder.run_id}), cancel it, or allow time with --lock-timeout",
        facts={
            "run_id": holder.run_id,
            "kind": holder.kind,
            "requested_by": holder.requested_by,
            "since": since,
            "state": state,
            "continued": "yes" if is_continued else "no",
        },
    )


def count_barren_takeovers(run: Run, why: ClaimEnd) -> int:
    """Return how many takeovers in a row recorded no new step, now that the newest claim is over.

    The first owner is no takeover, and an executor that was stopped in an orderly way did nothing wrong.
    """
    if run.steps > run.steps_at_claim:
        return 0
    counts = run.fence > 1 and why is not ClaimEnd.EXECUTOR_STOPPED
    return run.barren_takeovers + counts


def pause_before_claim(barren_takeovers: int) -> timedelta:
    """Return how long a run that was interrupted waits for its next claim."""
    return PAUSES[min(barren_takeovers, len(PAUSES) - 1)]


def next_cancel_level(level: CancelLevel) -> CancelLevel:
    """Return the level after one more call to cancel: first after the batch, then now."""
    return CancelLevel(min(level + 1, CancelLevel.NOW))
