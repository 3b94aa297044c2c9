"""Acts on semaphores, one transaction each: take a place, pick up a grant, release, leave, take away, look.

Every act locks the semaphore's row, lets go of who is gone, does its own, and grants what became free: check and grant are one.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import delete, select, update

from maand_catalog.database.statements import in_chunks, select_page, upsert_into
from maand_catalog.database.transaction import Transaction
from maand_catalog.errors import FailedPrecondition, NotFound
from maand_catalog.rules.semaphores import (
    ROOM_LEASE,
    Claim,
    InvocationEnded,
    Scope,
    Semaphore,
    SemaphoreCapacity,
    SemaphoreNotHeld,
    State,
    earlier_calls_of,
    may_resume,
    settle_queue,
)
from maand_catalog.store.semaphores.locked_semaphore import (
    EVERYBODY,
    NOBODY,
    LockedSemaphore,
    is_invocation_alive,
    lock_for_ticket,
    lock_semaphore,
    lock_semaphores,
    lock_semaphores_of,
    read_claims,
    scope_from_row,
    semaphore_as_seen,
)
from maand_catalog.store.semaphores.statements import BY_ID, GRANTED_IN_ROOM, IDS, c, s
from maand_catalog.store.tables.semaphores import semaphores, waiting_rooms


@dataclass(frozen=True, kw_only=True)
class SlotRequest:
    """One call that wants a slot."""

    scope: Scope
    capacity: int
    invocation_id: str
    allocation_id: str
    worker: str
    run_id: str
    request_id: str
    call_id: str = ""
    room_id: str = ""


@dataclass(frozen=True, kw_only=True)
class PlaceInLine:
    """Where a call is in line: in whose claim of which semaphore."""

    scope: Scope
    invocation_id: str
    call_id: str


@dataclass(frozen=True, kw_only=True)
class Granted:
    """The caller holds a slot."""

    call_id: str
    fencing_token: int
    capacity: int


def take_place(tx: Transaction, ask: SlotRequest, *, waited: bool = False) -> Granted | None:
    """Grant a slot, or (None) let the call wait in line.

    A holder is answered at once. A repeat of a request, and another call of the same invocation, take over the place it has. A
    call that `waited` in line and asks again takes nothing from a newer call of its invocation.
    `InvocationEnded`, `SemaphoreCapacity`.
    """
    if not is_invocation_alive(tx, ask.invocation_id):
        raise InvocationEnded("this hook has ended, so it gets no slot")
    semaphore = lock_for_ticket(tx, ask.scope, ask.invocation_id)
    semaphore.settle()
    agree_on_capacity(semaphore, ask.capacity)
    mine = semaphore.find(ask.invocation_id)
    if waited and mine is not None and mine.state in (State.WAITING, State.GRANTED):
        return None
    if mine is not None and mine.has_slot:
        return hold_slot(semaphore, mine, ask)
    if mine is not None and (mine.state is State.WAITING or may_resume(mine, ask.request_id, semaphore.granted, waited=waited)):
        semaphore.move(mine, State.WAITING, call_id=ask.call_id, room_id=ask.room_id, request_id=ask.request_id)
    else:
        semaphore.remove([mine] if mine else [])
        semaphore.add(new_claim(semaphore, ask))
    semaphore.settle()
    mine = semaphore.find(ask.invocation_id)
    return hold_slot(semaphore, mine, ask) if mine is not None and mine.has_slot else None


def agree_on_capacity(semaphore: LockedSemaphore, capacity: int) -> None:
    """Set the capacity of an idle semaphore; refuse another one while it is in use."""
    if semaphore.capacity == capacity:
        return
    if not semaphore.is_idle:
        raise SemaphoreCapacity(semaphore.scope.name, semaphore.capacity)
    semaphore.capacity = capacity
    semaphore.set(capacity=capacity)


def new_claim(semaphore: LockedSemaphore, ask: SlotRequest) -> Claim:
    """Return the claim that goes to the end of the line."""
    return Claim(
        ticket=semaphore.seq,
        invocation_id=ask.invocation_id,
        allocation_id=ask.allocation_id,
        worker=ask.worker,
        run_id=ask.run_id,
        state=State.WAITING,
        since=semaphore.tx.now,
        request_id=ask.request_id,
        call_id=ask.call_id,
        room_id=ask.room_id,
        alive=True,
        awaited=True,
    )


def hold_slot(semaphore: LockedSemaphore, mine: Claim, ask: SlotRequest) -> Granted:
    """Let the caller know that it has its slot: from now on no older call that goes away gives it back."""
    earlier = earlier_calls_of(mine, ask.call_id)
    newest = {"call_id": ask.call_id, "room_id": ask.room_id, "request_id": ask.request_id}
    semaphore.move(mine, State.HELD, earlier_calls=earlier, **newest)
    return Granted(call_id=ask.call_id, fencing_token=mine.ticket, capacity=semaphore.capacity)


def pick_up_slots(tx: Transaction, room_id: str) -> list[Granted]:
    """Take every slot that was granted to a call of this waiting room: from now on it is held."""
    held = []
    for semaphore in lock_semaphores(tx, tx.connection.scalars(GRANTED_IN_ROOM, {"room": room_id}), NOBODY):
        for claim in [claim for claim in semaphore.holders() if claim.room_id == room_id and claim.state is State.GRANTED]:
            semaphore.move(claim, State.HELD)
            held.append(Granted(call_id=claim.call_id, fencing_token=claim.ticket, capacity=semaphore.capacity))
    return held


def leave_line(tx: Transaction, place: PlaceInLine) -> None:
    """Take a call that goes away out of the line, or give back the slot that none of its invocation's calls told of.

    Nothing happens to what a newer call took over.
    """
    semaphore = lock_semaphore(tx, place.scope, (place.invocation_id,))
    mine = semaphore.find(place.invocation_id) if semaphore else None
    if semaphore is None or mine is None or place.call_id not in mine.calls:
        return
    *earlier, newest = [call for call in mine.calls if call != place.call_id] or [""]
    if newest:
        semaphore.move(mine, mine.state, call_id=newest, earlier_calls=" ".join(earlier))
    elif mine.has_slot:
        semaphore.remove([mine])
    else:
        semaphore.move(mine, State.LEFT)
    semaphore.settle()


def release_slot(tx: Transaction, scope: Scope, invocation_id: str) -> None:
    """Give a slot back. `SemaphoreNotHeld`."""
    semaphore = lock_semaphore(tx, scope, (invocation_id,))
    mine = semaphore.find(invocation_id) if semaphore else None
    if semaphore is None or mine is None or not mine.has_slot:
        raise SemaphoreNotHeld(f"this invocation holds no slot of semaphore {scope.name}", help="acquire it first")
    semaphore.remove([mine])
    semaphore.settle()


def force_slot_free(tx: Transaction, scope: Scope, allocation_id: str) -> list[Claim]:
    """Take the slot of an allocation away, or of the only holder when none is named. `NotFound`, `FailedPrecondition`."""
    semaphore = lock_semaphore(tx, scope, NOBODY)
    holders = semaphore.holders() if semaphore else []
    taken = [claim for claim in holders if allocation_id in ("", claim.allocation_id)]
    if semaphore is None or not taken:
        raise NotFound(f"nobody holds semaphore {scope.name} that way", help="see who holds it: maand semaphore list")
    if not allocation_id and len(taken) > 1:
        raise FailedPrecondition(f"{len(taken)} hold semaphore {scope.name}", help="name the allocation to take it from")
    semaphore.remove(taken)
    semaphore.settle()
    return taken


def release_claims(tx: Transaction, invocation_ids: Sequence[str]) -> None:
    """Remove everything these invocations hold or wait for, and grant what became free."""
    for chunk in in_chunks(sorted(set(invocation_ids))):
        for semaphore in lock_semaphores_of(tx, chunk):
            ended = set(chunk)
            semaphore.remove([claim for claim in semaphore.claims if claim.invocation_id in ended])
            semaphore.settle()


def tend_semaphores(tx: Transaction, semaphore_ids: Iterable[str]) -> None:
    """Let go of who is gone from these semaphores, and grant what became free."""
    for semaphore in lock_semaphores(tx, semaphore_ids, EVERYBODY):
        semaphore.settle()


# -- waiting rooms ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Survey:
    """What a waiting room finds: its calls that are in line, and semaphores that need tending."""

    in_line: tuple[PlaceInLine, ...]
    untended: tuple[str, ...]


def renew_room(tx: Transaction, room_id: str, *, lease: timedelta = ROOM_LEASE) -> None:
    """Keep a room's waiters in line for another while; forget the rooms of processes that died."""
    until = {"lease_until": tx.now + lease}
    beyond = waiting_rooms.c.lease_until > tx.now + 2 * lease  # of a process that died before the clock jumped back
    tx.connection.execute(update(waiting_rooms).where(beyond).values(until))
    keep = upsert_into(tx.dialect, waiting_rooms).values(room_id=room_id, **until)
    tx.connection.execute(keep.on_conflict_do_update(index_elements=[waiting_rooms.c.room_id], set_=until))
    tx.connection.execute(delete(waiting_rooms).where(waiting_rooms.c.lease_until < tx.lapse_time))


def close_room(tx: Transaction, room_id: str) -> None:
    """Let a room's waiters go: their calls end with this process."""
    tx.connection.execute(delete(waiting_rooms).where(waiting_rooms.c.room_id == room_id))


def survey_room(tx: Transaction, room_id: str) -> Survey:
    """Look at every semaphore in which the room waits for somebody."""
    ids = list(tx.connection.scalars(select(c.semaphore_id).where(c.room_id == room_id, c.state != State.HELD).distinct()))
    rows = {row.semaphore_id: row for row in tx.connection.execute(BY_ID[tx.dialect], IDS.parameters(tx.dialect, ids))}
    claims = read_claims(tx, ids)
    in_line = [
        PlaceInLine(scope=scope_from_row(rows[of]), invocation_id=claim.invocation_id, call_id=claim.call_id)
        for of, queue in claims.items()
        for claim in queue
        if claim.room_id == room_id and claim.state in (State.WAITING, State.GRANTED)
    ]
    untended = [of for of, queue in claims.items() if settle_queue(rows[of].capacity, queue, tx.now)]
    return Survey(in_line=tuple(in_line), untended=tuple(untended))


# -- looking ------------------------------------------------------------------------------------------------------------------


def get_semaphore(tx: Transaction, scope: Scope) -> Semaphore:
    """Return a semaphore with everyone in it; one never used has capacity 1 and nobody in it."""
    wanted = select(semaphores).where(*(s[part] == value for part, value in vars(scope).items()))
    row = tx.connection.execute(wanted).one_or_none()
    if row is None:
        return Semaphore(scope=scope)
    return semaphore_as_seen(row, read_claims(tx, [row.semaphore_id]).get(row.semaphore_id, []), tx.now)


def list_semaphores(
    tx: Transaction, bucket_id: str, *, after: Sequence[str] | None = None, limit: int | None = None
) -> list[Semaphore]:
    """Return the semaphores that have claims, by job, event and name; claims that are over are left out of them."""
    used = select(c.semaphore_id).where(c.bucket_id == bucket_id)
    wanted = select(semaphores).where(s.semaphore_id.in_(used))
    rows = tx.connection.execute(select_page(wanted, s.job, s.event, s.name, after=after, limit=limit)).all()
    claims = read_claims(tx, [row.semaphore_id for row in rows])
    return [semaphore_as_seen(row, claims.get(row.semaphore_id, []), tx.now) for row in rows]
