"""The life of an allocation: one table of allowed moves, and what a build makes of an allocation that stays, leaves or returns.

                      ┌──────────── build: something newer is wanted ───────────┐
                      │                                                         ▼
    planned ──▶ deploying ──▶ promoted ◀──────────── promoted again ──────── pending
       │           │  ▲          │                                              │
       │           ▼  │          │        disabled and stopped                  │
       │         failed          ├──────────────▶ stopped ──▶ deploying         │
       │                         │        left the workspace and was stopped    │
       └─────────────────────────┴──────────────▶ removed ◀─────────────────────┘
                                                    └── build: it came back ──▶ planned

**pending** means: what the last build wants differs from what was wanted when the allocation was promoted. What is wanted is
its *target*: the job's version, the files that go to workers, its configuration (`vars/bucket`, `vars/bucket/job/<job>`,
`vars.toml`, its ports) and its certificates. What hooks write into KV is not part of it: the deploy's plan, which renders
templates, has the last word on whether anything changes on the worker.

The state says what happened last. Whether an allocation has to be *started* depends on what happened before that too: one that
was stopped, enabled again, and failed to start is `failed` and does not run. `start_owed` keeps it: from the moment a stop is
begun until the next promotion.
"""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from maand_catalog.errors import FailedPrecondition
from maand_catalog.rules.workspace.written_values import FIRST_VERSION


class AllocationState(StrEnum):
    """What is known of a job on a worker."""

    PLANNED = "planned"
    DEPLOYING = "deploying"
    PROMOTED = "promoted"
    PENDING = "pending"
    FAILED = "failed"
    STOPPED = "stopped"
    REMOVED = "removed"


S = AllocationState

ALLOWED_MOVES: dict[AllocationState, frozenset[AllocationState]] = {
    S.PLANNED: frozenset({S.DEPLOYING, S.PROMOTED, S.FAILED, S.STOPPED, S.REMOVED}),
    S.DEPLOYING: frozenset({S.PROMOTED, S.PENDING, S.FAILED, S.STOPPED, S.REMOVED}),
    S.PROMOTED: frozenset({S.DEPLOYING, S.PENDING, S.FAILED, S.STOPPED, S.REMOVED}),
    S.PENDING: frozenset({S.DEPLOYING, S.PROMOTED, S.FAILED, S.STOPPED, S.REMOVED}),
    S.FAILED: frozenset({S.DEPLOYING, S.PROMOTED, S.PENDING, S.STOPPED, S.REMOVED}),
    S.STOPPED: frozenset({S.DEPLOYING, S.PROMOTED, S.FAILED, S.REMOVED}),
    S.REMOVED: frozenset(),
}
"""Where a run may move an allocation from each state. Staying is always allowed; builds move by the functions below."""


class MoveNotAllowed(FailedPrecondition):
    """An allocation may not go from its state to the wanted one. List allocations, and decide from what they are in now."""

    code = "move_not_allowed"


@dataclass(frozen=True, kw_only=True, slots=True)
class Allocation:
    """One job on one worker. `position` is its index among the job's allocations that are not removed."""

    allocation_id: str
    job: str
    worker: str
    position: int
    new_version: str
    target_sha256: bytes
    state_since: datetime
    removed: bool = False
    disabled: bool = False
    current_version: str = FIRST_VERSION
    previous_version: str = FIRST_VERSION
    deployed_sha256: bytes = b""
    promoted_target_sha256: bytes = b""
    state: AllocationState = S.PLANNED
    message: str = ""
    run_id: str = ""
    post_deploy_owed: bool = False
    start_owed: bool = False
    held_ports: tuple[int, ...] = ()
    moves: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """What a build wants of one allocation."""

    job: str
    worker: str
    position: int
    disabled: bool
    version: str
    sha256: bytes


def allocation_id_of(bucket_id: str, job: str, worker: str) -> str:
    """Return the id of a job on a worker: the same for the same names, for ever."""
    return str(uuid.uuid5(uuid.UUID(bucket_id), f"{job}|{worker}"))


def check_allocation_move(allocation: Allocation, to: AllocationState) -> None:
    """Refuse a move that the table does not have, or that the allocation's flags contradict."""
    where = f"{allocation.job} on {allocation.worker}"
    if to != allocation.state and to not in ALLOWED_MOVES[allocation.state]:
        raise MoveNotAllowed(f"{where} is {allocation.state} and cannot become {to}")
    if to is S.REMOVED and not allocation.removed:
        raise MoveNotAllowed(f"{where} is still in the workspace and cannot become removed")
    if to is S.STOPPED and to != allocation.state and not (allocation.disabled or allocation.removed):
        raise MoveNotAllowed(f"{where} is not disabled and cannot become stopped")


def place_allocation(bucket_id: str, target: Target, now: datetime) -> Allocation:
    """Return a job's first placement on a worker."""
    return Allocation(
        allocation_id=allocation_id_of(bucket_id, target.job, target.worker),
        job=target.job,
        worker=target.worker,
        position=target.position,
        disabled=target.disabled,
        new_version=target.version,
        target_sha256=target.sha256,
        state_since=now,
        message="placed, never deployed",
    )


def keep_allocation(before: Allocation, target: Target, now: datetime) -> Allocation:
    """Return an allocation that a build wants, again or still."""
    wanted = replace(
        before,
        position=target.position,
        removed=False,
        disabled=target.disabled,
        new_version=target.version,
        target_sha256=target.sha256,
    )
    if before.state is S.REMOVED:
        return readmit_allocation(wanted, now)
    if wanted.state is S.PROMOTED and wanted.target_sha256 != wanted.promoted_target_sha256:
        return with_state(wanted, S.PENDING, "something newer was built", now)
    if wanted.state is S.PENDING and wanted.target_sha256 == wanted.promoted_target_sha256:
        return with_state(wanted, S.PROMOTED, "what was built is what runs", now)
    if wanted.state is S.STOPPED and before.disabled and not wanted.disabled:
        return replace(wanted, message="enabled again; the next deploy starts it")
    return wanted


def readmit_allocation(wanted: Allocation, now: datetime) -> Allocation:
    """Begin anew with an allocation that had been removed: its files are gone from the worker."""
    fresh = replace(
        wanted,
        current_version=FIRST_VERSION,
        previous_version=FIRST_VERSION,
        deployed_sha256=b"",
        promoted_target_sha256=b"",
        post_deploy_owed=False,
    )
    return with_state(fresh, S.PLANNED, "came back into the workspace", now)


def retire_allocation(before: Allocation, now: datetime) -> Allocation:
    """Return an allocation whose job or worker left the workspace. What never was deployed needs no stop."""
    gone = replace(before, removed=True)
    if before.state is S.PLANNED:
        return with_state(gone, S.REMOVED, "left the workspace before it was ever deployed", now)
    if not before.removed:
        return replace(gone, message="left the workspace; the next deploy stops it")
    return gone


def owes_start(allocation: Allocation, to: AllocationState) -> bool:
    """Whether, after a run's move, the next deploy has to start it: a stop of it was begun, and it was not promoted since.

    A run that begins to change what is not meant to run stops it. How far it comes nobody knows before it says `stopped`.
    """
    if to is S.PROMOTED:
        return False
    stopping = to is S.DEPLOYING and (allocation.removed or allocation.disabled)
    return allocation.start_owed or stopping or to in (S.STOPPED, S.REMOVED)


def ports_held_after(allocation: Allocation, to: AllocationState, built: Sequence[int]) -> tuple[int, ...]:
    """Return the ports that what runs may hold after a run's move; `built` are those that the last build gave the job.

    An attempt may have started the new version, or left the old one running: until it is promoted, both count.
    """
    if to in (S.STOPPED, S.REMOVED):
        return ()
    if to is S.PROMOTED:
        return tuple(sorted(built))
    if to is S.DEPLOYING and not (allocation.removed or allocation.disabled):
        return tuple(sorted({*allocation.held_ports, *built}))
    return allocation.held_ports


def with_state(allocation: Allocation, to: AllocationState, message: str, now: datetime, *, run_id: str = "") -> Allocation:
    """Return the allocation in another state: the one place where a state changes."""
    return replace(
        allocation, state=to, state_since=now, message=message, run_id=run_id or allocation.run_id, moves=allocation.moves + 1
    )
