"""Semaphores and claims as rows: locking, reading, and the one place that moves claims on."""

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from sqlalchemy import ColumnElement, Row, and_, delete, false, func, or_, select, update

from maand_catalog.runs import RunState
from maand_catalog.semaphores import SLOTTED, Claim, Scope, Semaphore, State, Upkeep, look_after
from maand_catalog.store.tables_identity import invocations
from maand_catalog.store.tables_runs import runs
from maand_catalog.store.tables_semaphores import semaphore_claims, semaphores, waiting_rooms
from maand_catalog.store.transaction import Transaction
from maand_catalog.store.upserts import upsert

SPARE = 16
"""Waiters read beyond those that could be granted a slot, so that a few who are gone do not cost another query."""

s = semaphores.c
c = semaphore_claims.c


def room_topic(room_id: str) -> str:
    """Return the topic that wakes a waiting room: one of its claims was granted."""
    return f"semaphore:{room_id}"


@dataclass(kw_only=True)
class LockedSemaphore:
    """A semaphore whose row is locked until the transaction ends, with the claims that matter. Changes are stored as made.

    What matters is who has a slot, who is next, and whom the act concerns: with 1,000 in line, an act reads some twenty rows.
    """

    tx: Transaction
    semaphore_id: str
    scope: Scope
    capacity: int
    seq: int
    granted: int
    concerned: ColumnElement[bool] | None
    claims: list[Claim] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._read()

    @property
    def is_idle(self) -> bool:
        """Whether nobody holds or waits."""
        return all(claim.state is State.LEFT for claim in self.claims)

    def holders(self) -> list[Claim]:
        """Return whoever has a slot."""
        return [claim for claim in self.claims if claim.has_slot]

    def find(self, invocation_id: str) -> Claim | None:
        """Return the invocation's claim."""
        return next((claim for claim in self.claims if claim.invocation_id == invocation_id), None)

    def look_after(self) -> None:
        """Let go of who is gone, and grant free slots to the next in line. Rooms of the granted are woken after the commit."""
        while self._look_after_the_near():
            self._read()

    def _look_after_the_near(self) -> bool:
        """Look after the claims that were read; whether the line became shorter, so that others are near now."""
        upkeep = look_after(self.capacity, self.claims, self.tx.now)
        self.remove(upkeep.gone)
        for claim in upkeep.left:
            self.move(claim, State.LEFT)
        for claim in upkeep.granted:
            self.move(claim, State.GRANTED)
            self.granted = max(self.granted, claim.ticket)
            self.tx.notify(room_topic(claim.room_id))
        if upkeep.granted:
            self.set(granted=self.granted)
        return bool(upkeep.left) or any(claim.state is State.WAITING for claim in upkeep.gone)

    def _read(self) -> None:
        near = None if self.concerned is None else or_(self.concerned, is_near(self.semaphore_id, self.capacity))
        self.claims = read_claims(self.tx, [self.semaphore_id], near).get(self.semaphore_id, [])

    def move(self, claim: Claim, state: State, **values: Any) -> Claim:
        """Move a claim to another state, with what else changes."""
        since = claim.since if state is State.HELD and claim.state is State.GRANTED else self.tx.now
        moved = replace(claim, state=state, since=since, **values)
        self.tx.connection.execute(update(semaphore_claims).where(self._is(claim)).values(state=state, since=since, **values))
        self.claims[self.claims.index(claim)] = moved
        return moved

    def add(self, claim: Claim) -> None:
        """Let a new claim into the line."""
        stored = {field.name: getattr(claim, field.name) for field in fields(claim) if field.name in c}
        stored |= {"semaphore_id": self.semaphore_id, "bucket_id": self.scope.bucket_id}
        self.tx.connection.execute(semaphore_claims.insert().values(stored))
        self.claims.append(claim)

    def remove(self, claims: Iterable[Claim]) -> None:
        """Forget claims: their slots are free."""
        for claim in claims:
            self.tx.connection.execute(delete(semaphore_claims).where(self._is(claim)))
            self.claims.remove(claim)

    def set(self, **values: int) -> None:
        """Store values of the semaphore itself."""
        self.tx.connection.execute(update(semaphores).where(s.semaphore_id == self.semaphore_id).values(values))

    def _is(self, claim: Claim) -> Any:
        return and_(c.semaphore_id == self.semaphore_id, c.ticket == claim.ticket)


def lock_for_ticket(tx: Transaction, scope: Scope, invocation_id: str) -> LockedSemaphore:
    """Lock a semaphore, creating it at its first use, and draw the next ticket for an invocation."""
    new = {"semaphore_id": str(uuid.uuid4()), **vars(scope), "capacity": 1, "seq": 1, "granted": 0}
    draw = upsert(tx, semaphores).values(new)
    draw = draw.on_conflict_do_update(index_elements=[s.bucket_id, s.job, s.event, s.name], set_={"seq": s.seq + 1})
    return locked(tx, tx.connection.execute(draw.returning(*semaphores.c)).one(), c.invocation_id == invocation_id)


def lock_semaphore(tx: Transaction, scope: Scope, concerned: ColumnElement[bool]) -> LockedSemaphore | None:
    """Lock a semaphore for an act that concerns some claims; None when it was never used."""
    row = tx.connection.execute(select(semaphores).where(in_scope(scope)).with_for_update()).one_or_none()
    return locked(tx, row, concerned) if row else None


def lock_semaphores(
    tx: Transaction, semaphore_ids: Iterable[str], concerned: ColumnElement[bool] | None
) -> list[LockedSemaphore]:
    """Lock several, in one order everywhere, so that nobody waits in a circle. `concerned` None = read everybody."""
    wanted = select(semaphores).where(s.semaphore_id.in_(sorted(set(semaphore_ids)))).order_by(s.semaphore_id)
    return [locked(tx, row, concerned) for row in tx.connection.execute(wanted.with_for_update()).all()]


def locked(tx: Transaction, row: Row[Any], concerned: ColumnElement[bool] | None) -> LockedSemaphore:
    """Describe a semaphore whose row was just locked."""
    return LockedSemaphore(
        tx=tx,
        semaphore_id=row.semaphore_id,
        scope=scope_of(row),
        capacity=row.capacity,
        seq=row.seq,
        granted=row.granted,
        concerned=concerned,
    )


def is_near(semaphore_id: str, capacity: int) -> ColumnElement[bool]:
    """Keep who has a slot, and as many waiters as could be granted one, and some more."""
    line = select(c.ticket).where(c.semaphore_id == semaphore_id, c.state == State.WAITING)
    return or_(c.state.in_(SLOTTED), c.ticket.in_(line.order_by(c.ticket).limit(capacity + SPARE)))


def read_claims(
    tx: Transaction, semaphore_ids: Sequence[str], where: ColumnElement[bool] | None = None
) -> dict[str, list[Claim]]:
    """Return who is in these semaphores, by ticket, with what is known of their lives."""
    wanted = (
        select(
            semaphore_claims,
            func.coalesce(lives(tx), false()).label("alive"),
            func.coalesce(waiting_rooms.c.lease_until > tx.now, false()).label("awaited"),
        )
        .outerjoin(invocations, invocations.c.invocation_id == c.invocation_id)
        .outerjoin(runs, runs.c.run_id == invocations.c.run_id)
        .outerjoin(waiting_rooms, waiting_rooms.c.room_id == c.room_id)
        .where(c.semaphore_id.in_(semaphore_ids))
        .order_by(c.ticket)
    )
    wanted = wanted if where is None else wanted.where(where)
    claims: dict[str, list[Claim]] = {}
    for row in tx.connection.execute(wanted):
        claims.setdefault(row.semaphore_id, []).append(to_claim(row))
    return claims


def is_alive(tx: Transaction, invocation_id: str) -> bool:
    """Whether an invocation lives, and goes on to live until this transaction ends: whoever ends it waits for us."""
    wanted = (
        select(lives(tx)).join(runs, runs.c.run_id == invocations.c.run_id).where(invocations.c.invocation_id == invocation_id)
    )
    return bool(tx.connection.scalar(wanted.with_for_update(read=True, of=invocations)))


def lives(tx: Transaction) -> ColumnElement[bool]:
    """Return the condition on an invocation and its run: not ended, and still its run's owner's."""
    return and_(
        invocations.c.ended_at.is_(None),
        runs.c.state == RunState.RUNNING,
        runs.c.fence == invocations.c.fence,
        runs.c.lease_until > tx.now,
    )


def to_claim(row: Row[Any]) -> Claim:
    """Make the fact from its row."""
    return Claim(**{field.name: getattr(row, field.name) for field in fields(Claim)})


def scope_of(row: Row[Any]) -> Scope:
    """Return a semaphore row's scope."""
    return Scope(bucket_id=row.bucket_id, job=row.job, event=row.event, name=row.name)


def in_scope(scope: Scope) -> Any:
    """Return the condition that finds a semaphore by its scope."""
    return and_(s.bucket_id == scope.bucket_id, s.job == scope.job, s.event == scope.event, s.name == scope.name)


def as_seen(row: Row[Any], claims: Sequence[Claim], now: Any) -> Semaphore:
    """Describe a semaphore as its next change would leave it: without those who are gone or left."""
    upkeep: Upkeep = look_after(row.capacity, claims, now)
    there = [claim for claim in claims if claim.state is not State.LEFT and claim not in upkeep.gone and claim not in upkeep.left]
    return Semaphore(scope=scope_of(row), capacity=row.capacity, claims=tuple(there))
