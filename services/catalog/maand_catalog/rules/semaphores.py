"""The rules of semaphores: who holds, who waits, who is next. Pure; `store/semaphores` keeps them in tables.

A claim is one hook invocation in one semaphore:

    waiting ──room, and nobody ahead──▶ granted ──its waiting call picks it up──▶ held ──release, end of invocation──▶ gone
       └──its call goes away──▶ left ──the same request again, nobody behind it served──▶ waiting (its old place)

- waiting: in line, by ticket. Its catalog keeps it alive; a catalog that died lets its waiters go after `ROOM_LEASE`.
- granted: has a slot, and the call that waits for it does not know yet. It passes on when the call goes away first.
- held: has a slot, and its hook was told so.
- left: out of line; remembered for `LEFT_KEPT`, so that a repeated request finds its place again.

An invocation has one claim, however many of its calls ask: repeats of one request at any catalog, or requests side by side.

- In line, the newest call has the place: an older one that goes away takes nothing from it. An older one that goes on waiting
  asks every second: it is given the slot once the newer one was, and the place once the newer one is gone.
- Every call that was given the slot keeps it. Only of a call that went away is it known that its hook was told nothing; so the
  slot is free by itself when all of them went away, and otherwise by release or the end of the invocation.

The ticket is the fencing token. Tickets are granted in order, so every grant's token is larger than all earlier ones.
"""

import enum
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from maand_catalog.errors import FailedPrecondition, InvalidArgument, TimedOut, Unauthenticated
from maand_catalog.rules.namespaces import check_name

NAME_LIMIT = 128
LARGEST_CAPACITY = 64
DEFAULT_TIMEOUT = timedelta(seconds=600)
LONGEST_TIMEOUT = timedelta(seconds=3600)

ROOM_LEASE = timedelta(seconds=10)
"""How long waiters outlive their catalog. Renewed every third of it; a slower database does not cost anybody the place."""

LEFT_KEPT = timedelta(seconds=30)
"""How long a place is remembered for a repeat of the same request: longer than a client takes to find another replica."""

CALLS_KEPT = 8
"""How many calls that were given one slot are remembered: more than are ever on their way at once."""

FOR_GOOD = "*"
"""Among the calls of a claim: one that never goes away. It stands for those beyond `CALLS_KEPT`: a holder asks in a loop."""


class SemaphoreTimeout(TimedOut):
    """The slot was not granted in the time given. Whoever holds it is named by `semaphore status`; try again or wait longer."""

    code = "semaphore_timeout"
    help = "see who holds it (semaphore status), then try again or wait longer"


class SemaphoreCapacity(FailedPrecondition):
    """Others use the semaphore with another capacity. Ask for that one, or try again when nobody holds or waits."""

    code = "semaphore_capacity"

    def __init__(self, name: str, capacity: int) -> None:
        super().__init__(
            f"semaphore {name} is in use with capacity {capacity}",
            help=f"ask for capacity {capacity}, or wait until nobody holds or waits",
            facts={"capacity": capacity},
        )


class SemaphoreNotHeld(FailedPrecondition):
    """The caller holds no slot of that semaphore. Acquire it first; it may have ended with an earlier invocation."""

    code = "semaphore_not_held"


class InvocationEnded(Unauthenticated):
    """The hook that asks has ended, or its run lost its executor. Nothing is granted to it any more."""


class State(enum.StrEnum):
    """Where a claim is in its life; the module's diagram shows the moves."""

    WAITING = "waiting"
    GRANTED = "granted"
    HELD = "held"
    LEFT = "left"


SLOTTED = frozenset({State.GRANTED, State.HELD})


@dataclass(frozen=True, kw_only=True)
class Scope:
    """What a semaphore belongs to."""

    bucket_id: str
    job: str
    event: str
    name: str


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One invocation in a semaphore. `since`: in its present state.

    `alive`: its invocation has not ended and its run's lease lasts. `awaited`: the catalog that waits on its behalf is alive.
    `call_id`: its newest call, in the waiting room `room_id`. `earlier_calls`: ids of those that were given its slot before.
    """

    ticket: int
    invocation_id: str
    allocation_id: str
    worker: str
    run_id: str
    state: State
    since: datetime
    request_id: str
    call_id: str
    room_id: str
    alive: bool
    awaited: bool
    earlier_calls: str = ""

    @property
    def has_slot(self) -> bool:
        """Whether it occupies a slot."""
        return self.state in SLOTTED

    @property
    def calls(self) -> tuple[str, ...]:
        """The calls that it is for, newest last: the claim goes when the last of them goes away."""
        return (*self.earlier_calls.split(), self.call_id)


@dataclass(frozen=True, kw_only=True)
class Semaphore:
    """One semaphore with everyone in it, by ticket; those who left are not in it."""

    scope: Scope
    capacity: int = 1
    claims: tuple[Claim, ...] = ()

    @property
    def holders(self) -> tuple[Claim, ...]:
        """Whoever has a slot."""
        return tuple(claim for claim in self.claims if claim.has_slot)

    @property
    def waiters(self) -> tuple[Claim, ...]:
        """Whoever waits, next first."""
        return tuple(claim for claim in self.claims if claim.state is State.WAITING)

    @property
    def available(self) -> int:
        """Free slots."""
        return max(self.capacity - len(self.holders), 0)


@dataclass(frozen=True, kw_only=True)
class QueueChanges:
    """What time did to a queue, and what follows."""

    gone: tuple[Claim, ...]
    left: tuple[Claim, ...]
    granted: tuple[Claim, ...]

    def __bool__(self) -> bool:
        return bool(self.gone or self.left or self.granted)


def settle_queue(capacity: int, claims: Iterable[Claim], now: datetime) -> QueueChanges:
    """Say who is gone, who left the line, and whom to grant: as many waiters as there are free slots, strictly by ticket."""
    ordered = sorted(claims, key=lambda claim: claim.ticket)
    gone = [claim for claim in ordered if is_gone(claim, now)]
    left = [claim for claim in ordered if claim.state is State.WAITING and claim.alive and not claim.awaited]
    there = [claim for claim in ordered if claim not in gone and claim not in left]
    waiting = [claim for claim in there if claim.state is State.WAITING]
    room = capacity - sum(claim.has_slot for claim in there)
    return QueueChanges(gone=tuple(gone), left=tuple(left), granted=tuple(waiting[: max(room, 0)]))


def is_gone(claim: Claim, now: datetime) -> bool:
    """Whether a claim is over: its invocation ended, nobody took the slot it was granted, or it left long ago."""
    match claim.state:
        case State.GRANTED if not claim.awaited:
            return True
        case State.LEFT if now - claim.since > LEFT_KEPT:
            return True
        case _:
            return not claim.alive


def may_resume(claim: Claim, request_id: str, last_granted: int, *, waited: bool = False) -> bool:
    """Whether a call gets the old place back: it was its own, and nobody behind it was served meanwhile.

    Its own is the place of the request that it repeats and, for a call that `waited` all the time, that of its invocation.
    """
    is_its_own = waited or (bool(request_id) and claim.request_id == request_id)
    return is_its_own and claim.ticket > last_granted


def earlier_calls_of(claim: Claim, call_id: str) -> str:
    """Return the `earlier_calls` of a claim once this call is given its slot: those that may have told the hook already."""
    earlier = [call for call in claim.calls if call != call_id] if claim.state is State.HELD else []
    return " ".join(earlier) if len(earlier) <= CALLS_KEPT else FOR_GOOD


def check_semaphore_name(name: str) -> None:
    """Refuse a name that is empty, too long or holds control characters."""
    check_name("semaphore's name", name, NAME_LIMIT)


def checked_capacity(capacity: int) -> int:
    """Return the capacity asked for; 0 = 1."""
    if capacity > LARGEST_CAPACITY:
        raise InvalidArgument(f"a semaphore has 1 to {LARGEST_CAPACITY} slots, not {capacity}")
    return capacity or 1


def checked_timeout(timeout_seconds: int) -> timedelta:
    """Return how long to wait; 0 = the default."""
    if timeout_seconds > LONGEST_TIMEOUT.total_seconds():
        raise InvalidArgument(f"one waits at most {LONGEST_TIMEOUT.total_seconds():.0f} seconds, not {timeout_seconds}")
    return timedelta(seconds=timeout_seconds) if timeout_seconds else DEFAULT_TIMEOUT
