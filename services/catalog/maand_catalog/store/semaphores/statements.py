"""The statements of semaphores, made once: building one costs as much as carrying it out, and an acquire needs six.

Parameters: `now`, those of `IDS`, `CLAIM_IDS` and `CONCERNED`, `near_of` (the semaphore) and `near` (how many).
"""

from sqlalchemy import and_, bindparam, delete, false, func, insert, or_, select, update

from maand_catalog.database.metadata import UtcMicros
from maand_catalog.database.statements import DIALECTS, OneOf, upsert_into
from maand_catalog.rules.runs import RunState
from maand_catalog.rules.semaphores import SLOTTED, State
from maand_catalog.store.tables.identity import invocations
from maand_catalog.store.tables.runs import runs
from maand_catalog.store.tables.semaphores import semaphore_claims, semaphores, waiting_rooms

s = semaphores.c
c = semaphore_claims.c
line = semaphore_claims.alias("line")
now = bindparam("now", type_=UtcMicros())

LIVES = and_(
    invocations.c.ended_at.is_(None),
    runs.c.state == RunState.RUNNING,
    runs.c.fence == invocations.c.fence,
    runs.c.lease_until > now,
)
"""An invocation that has not ended, and is still its run's owner's."""

IS_ALIVE = (
    select(LIVES)
    .join(runs, runs.c.run_id == invocations.c.run_id)
    .where(invocations.c.invocation_id == bindparam("invocation"))
    .with_for_update(read=True, of=invocations)
)
"""Whether an invocation lives; it goes on to until the transaction ends: whoever ends it waits for us."""

IDS = OneOf("ids", s.semaphore_id)
CLAIM_IDS = OneOf("ids", c.semaphore_id)
CONCERNED = OneOf("concerned", c.invocation_id)

KNOWN_CLAIMS = (
    select(
        semaphore_claims,
        func.coalesce(LIVES, false()).label("alive"),
        func.coalesce(waiting_rooms.c.lease_until > now, false()).label("awaited"),
    )
    .outerjoin(invocations, invocations.c.invocation_id == c.invocation_id)
    .outerjoin(runs, runs.c.run_id == invocations.c.run_id)
    .outerjoin(waiting_rooms, waiting_rooms.c.room_id == c.room_id)
    .order_by(c.ticket)
)
"""Everybody, by ticket, with what is known of their lives."""

CLAIMS = {dialect: KNOWN_CLAIMS.where(CLAIM_IDS.condition(dialect)) for dialect in DIALECTS}
"""Everybody in some semaphores."""

NEAREST = select(line.c.ticket).where(line.c.semaphore_id == bindparam("near_of"), line.c.state == State.WAITING)

NEAR = or_(c.state.in_(SLOTTED), c.ticket.in_(NEAREST.order_by(line.c.ticket).limit(bindparam("near"))))
"""Who has a slot, and the first in line."""

NEAR_CLAIMS = {
    dialect: KNOWN_CLAIMS.where(c.semaphore_id == bindparam("near_of"), or_(CONCERNED.condition(dialect), NEAR))
    for dialect in DIALECTS
}
"""Whoever is near in one semaphore, and those whom an act concerns."""

SEMAPHORES_OF = {dialect: select(c.semaphore_id).where(CONCERNED.condition(dialect)) for dialect in DIALECTS}

GRANTED_IN_ROOM = select(c.semaphore_id).where(c.room_id == bindparam("room"), c.state == State.GRANTED)

LOCK_BY_SCOPE = (
    select(semaphores)
    .where(*(s[part] == bindparam(f"the_{part}") for part in ("bucket_id", "job", "event", "name")))
    .with_for_update()
)

BY_ID = {dialect: select(semaphores).where(IDS.condition(dialect)).order_by(s.semaphore_id) for dialect in DIALECTS}

LOCK_BY_ID = {dialect: by_id.with_for_update() for dialect, by_id in BY_ID.items()}
"""In one order everywhere, so that nobody waits in a circle."""

ADD = insert(semaphore_claims)
MOVE = update(semaphore_claims).where(c.semaphore_id == bindparam("of"), c.ticket == bindparam("number"))
REMOVE = delete(semaphore_claims).where(c.semaphore_id == bindparam("of"), c.ticket == bindparam("number"))
SET = update(semaphores).where(s.semaphore_id == bindparam("of"))


SCOPE = [s.bucket_id, s.job, s.event, s.name]

DRAW_TICKET = {
    dialect: upsert_into(dialect, semaphores)
    .on_conflict_do_update(index_elements=SCOPE, set_={"seq": s.seq + 1})
    .returning(*semaphores.c)
    for dialect in DIALECTS
}
"""Locks a semaphore, creates it at its first use, and draws the next ticket."""
