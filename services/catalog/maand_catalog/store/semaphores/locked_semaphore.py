"""Semaphores and claims as rows: locking, reading, and the one place that moves claims on."""

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Row

from maand_catalog.database.transaction import Transaction
from maand_catalog.rules.semaphores import Claim, QueueChanges, Scope, Semaphore, State, settle_queue
from maand_catalog.store.semaphores import statements as st
from maand_catalog.store.tables.semaphores import semaphore_claims

SPARE = 16
"""Waiters read beyond those that could be granted a slot, so that a few who are gone do not cost another query."""

FIELDS = tuple(each.name for each in fields(Claim))
STORED_FIELDS = tuple(name for name in FIELDS if name in semaphore_claims.c)


NOBODY: tuple[str, ...] = ()
EVERYBODY = None
"""Whom an act may concern, other than some invocations."""


def room_topic(room_id: str) -> str:
    """Return the topic that wakes a waiting room: one of its claims was granted."""
    return f"semaphore:{room_id}"


@dataclass(kw_only=True)
class LockedSemaphore:
    """A semaphore whose row is locked until the transaction ends, with the claims that matter. Changes are stored as made.

    What matters is who has a slot, who is next, and the invocations that the act concerns: with 1,000 in line, an act reads some
    twenty rows.
    """

    tx: Transaction
    semaphore_id: str
    scope: Scope
    capacity: int
    seq: int
    granted: int
    concerned: Sequence[str] | None
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

    def settle(self) -> None:
        """Let go of who is gone, and grant free slots to the next in line. Rooms of the granted are woken after the commit."""
        while self._settle_the_near():
            self._read()

    def _settle_the_near(self) -> bool:
        """Look after the claims that were read; whether the line became shorter, so that others are near now."""
        upkeep = settle_queue(self.capacity, self.claims, self.tx.now)
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
        if self.concerned is EVERYBODY:
            self.claims = read_claims(self.tx, [self.semaphore_id]).get(self.semaphore_id, [])
            return
        near = {"near_of": self.semaphore_id, "near": self.capacity + SPARE}
        asked = {"now": self.tx.lapse_time, **st.CONCERNED.parameters(self.tx.dialect, self.concerned), **near}
        self.claims = [claim_from_row(row) for row in self.tx.connection.execute(st.NEAR_CLAIMS[self.tx.dialect], asked)]

    def move(self, claim: Claim, state: State, **values: Any) -> Claim:
        """Move a claim to another state, or change something else about it. `since` is kept in the same one, and by a slot."""
        since = claim.since if state is claim.state or (claim.has_slot and state is State.HELD) else self.tx.now
        moved = replace(claim, state=state, since=since, **values)
        self.tx.connection.execute(st.MOVE, {**self._is(claim), "state": state, "since": since, **values})
        self.claims[self.claims.index(claim)] = moved
        return moved

    def add(self, claim: Claim) -> None:
        """Let a new claim into the line."""
        stored = {name: getattr(claim, name) for name in STORED_FIELDS}
        self.tx.connection.execute(st.ADD, {**stored, "semaphore_id": self.semaphore_id, "bucket_id": self.scope.bucket_id})
        self.claims.append(claim)

    def remove(self, claims: Iterable[Claim]) -> None:
        """Forget claims: their slots are free."""
        for claim in claims:
            self.tx.connection.execute(st.REMOVE, self._is(claim))
            self.claims.remove(claim)

    def set(self, **values: int) -> None:
        """Store values of the semaphore itself."""
        self.tx.connection.execute(st.SET, {"of": self.semaphore_id, **values})

    def _is(self, claim: Claim) -> dict[str, Any]:
        return {"of": self.semaphore_id, "number": claim.ticket}


def lock_for_ticket(tx: Transaction, scope: Scope, invocation_id: str) -> LockedSemaphore:
    """Lock a semaphore, creating it at its first use, and draw the next ticket for an invocation."""
    new = {"semaphore_id": str(uuid.uuid4()), **vars(scope), "capacity": 1, "seq": 1, "granted": 0}
    row = tx.connection.execute(st.DRAW_TICKET[tx.dialect], new).one()
    return to_locked_semaphore(tx, row, (invocation_id,))


def lock_semaphore(tx: Transaction, scope: Scope, concerned: Sequence[str]) -> LockedSemaphore | None:
    """Lock a semaphore for an act that concerns some invocations; None when it was never used."""
    asked = {f"the_{part}": value for part, value in vars(scope).items()}
    row = tx.connection.execute(st.LOCK_BY_SCOPE, asked).one_or_none()
    return to_locked_semaphore(tx, row, concerned) if row else None


def lock_semaphores(tx: Transaction, semaphore_ids: Iterable[str], concerned: Sequence[str] | None) -> list[LockedSemaphore]:
    """Lock several for an act that concerns some invocations, or everybody in them."""
    ids = sorted(set(semaphore_ids))
    rows = tx.connection.execute(st.LOCK_BY_ID[tx.dialect], st.IDS.parameters(tx.dialect, ids)).all() if ids else []
    return [to_locked_semaphore(tx, row, concerned) for row in rows]


def lock_semaphores_of(tx: Transaction, invocation_ids: Sequence[str]) -> list[LockedSemaphore]:
    """Lock every semaphore in which one of these invocations has a claim."""
    asked = st.CONCERNED.parameters(tx.dialect, invocation_ids)
    return lock_semaphores(tx, tx.connection.scalars(st.SEMAPHORES_OF[tx.dialect], asked), invocation_ids)


def to_locked_semaphore(tx: Transaction, row: Row[Any], concerned: Sequence[str] | None) -> LockedSemaphore:
    """Describe a semaphore whose row was just locked."""
    return LockedSemaphore(
        tx=tx,
        semaphore_id=row.semaphore_id,
        scope=scope_from_row(row),
        capacity=row.capacity,
        seq=row.seq,
        granted=row.granted,
        concerned=concerned,
    )


def read_claims(tx: Transaction, semaphore_ids: Sequence[str]) -> dict[str, list[Claim]]:
    """Return everyone in these semaphores, by ticket, with what is known of their lives."""
    claims: dict[str, list[Claim]] = {}
    asked = {"now": tx.lapse_time, **st.CLAIM_IDS.parameters(tx.dialect, semaphore_ids)}
    for row in tx.connection.execute(st.CLAIMS[tx.dialect], asked):
        claims.setdefault(row.semaphore_id, []).append(claim_from_row(row))
    return claims


def is_invocation_alive(tx: Transaction, invocation_id: str) -> bool:
    """Whether an invocation lives, and goes on to live until this transaction ends."""
    return bool(tx.connection.scalar(st.IS_ALIVE, {"invocation": invocation_id, "now": tx.lapse_time}))


def claim_from_row(row: Row[Any]) -> Claim:
    """Make the fact from its row."""
    return Claim(**{name: getattr(row, name) for name in FIELDS})


def scope_from_row(row: Row[Any]) -> Scope:
    """Return a semaphore row's scope."""
    return Scope(bucket_id=row.bucket_id, job=row.job, event=row.event, name=row.name)


def semaphore_as_seen(row: Row[Any], claims: Sequence[Claim], now: datetime) -> Semaphore:
    """Describe a semaphore as its next change would leave it: without those who are gone or left."""
    upkeep: QueueChanges = settle_queue(row.capacity, claims, now)
    there = [claim for claim in claims if claim.state is not State.LEFT and claim not in upkeep.gone and claim not in upkeep.left]
    return Semaphore(scope=scope_from_row(row), capacity=row.capacity, claims=tuple(there))
