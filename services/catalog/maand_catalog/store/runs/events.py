"""What happened in a run: events numbered from 1, and steps that are done. Written under the fence, read by anyone."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Row, bindparam, insert, select, update

from maand_catalog.database.statements import in_chunks, one_of, select_page
from maand_catalog.database.transaction import Transaction
from maand_catalog.rules.runs import EventRecord, Run
from maand_catalog.store.runs.run_states import IS_HELD, claim_parameters, get_run, run_topic, stale_run_fence
from maand_catalog.store.runs.task_states import get_task, stale_task_fence
from maand_catalog.store.tables.runs import run_appends, run_events, run_steps, runs

CHUNK_EVENTS = 500
CHUNK_BYTES = 1024 * 1024
"""Events, and about how many bytes of them, that are read at once."""


ADVANCE = (
    update(runs)
    .where(IS_HELD)
    .values(last_sequence=runs.c.last_sequence + bindparam("the_count"))
    .returning(runs.c.last_sequence)
)
ADVANCE_AND_SAY = ADVANCE.values(message=bindparam("the_message"))
ADVANCE_STEPS = update(runs).where(IS_HELD).values(steps=runs.c.steps + bindparam("the_count")).returning(runs.c.steps)
FIND_APPEND = select(run_appends.c.last_sequence).where(
    run_appends.c.run_id == bindparam("the_run"), run_appends.c.request_id == bindparam("the_request")
)
INSERT_APPEND = insert(run_appends)
INSERT_EVENTS = insert(run_events)
INSERT_STEPS = insert(run_steps)
READ_EVENTS = (
    select(run_events.c.sequence, run_events.c.payload)
    .where(run_events.c.run_id == bindparam("the_run"), run_events.c.sequence > bindparam("after"))
    .order_by(run_events.c.sequence)
    .limit(CHUNK_EVENTS)
)


@dataclass(frozen=True, kw_only=True)
class StoredEvent:
    """One event with its number."""

    sequence: int
    payload: bytes


@dataclass(frozen=True, kw_only=True)
class EventChunk:
    """A run and the events that follow some point of it; `is_all` when there are no more right now."""

    run: Run
    events: tuple[StoredEvent, ...]
    is_all: bool


def append_events(
    tx: Transaction,
    bucket_id: str,
    run_id: str,
    fence: int,
    *,
    events: Sequence[EventRecord],
    doing: str,
    request_id: str,
    task_id: str = "",
) -> int:
    """Append events and return the number of the last one. NotFound, StaleFence. A repeat appends nothing.

    1. Advance the run's counter under the run's fence: this orders appends of one run, on any replica.
       Under a task, `fence` is the task's: then the claim that created the task must own the run, and this one the task.
    2. A known request id: give the numbers back, and answer as the first time.
    3. Insert the events.
    """
    run_fence = get_task(tx, bucket_id, task_id).run_fence if task_id else fence
    parameters = {**claim_parameters(tx, bucket_id, run_id, run_fence), "the_count": len(events)}
    advance = (ADVANCE_AND_SAY, {**parameters, "the_message": doing}) if doing else (ADVANCE, parameters)
    last = tx.connection.execute(*advance).scalar_one_or_none()
    if last is None:
        raise stale_run_fence(get_run(tx, bucket_id, run_id), run_fence, tx)
    if task_id:
        check_task_held(tx, bucket_id, run_id, task_id, fence)
    if request_id:
        if (first := find_append(tx, run_id, request_id)) is not None:
            tx.connection.execute(update(runs).where(runs.c.run_id == run_id).values(last_sequence=last - len(events)))
            return first
        note = {"run_id": run_id, "request_id": request_id, "bucket_id": bucket_id, "last_sequence": last}
        tx.connection.execute(INSERT_APPEND, note)
    insert_events(tx, bucket_id, run_id, first_sequence=last - len(events) + 1, events=events)
    return int(last)


def check_task_held(tx: Transaction, bucket_id: str, run_id: str, task_id: str, fence: int) -> None:
    """Raise `StaleFence` when the claim with this fence does not own this task of the run."""
    task = get_task(tx, bucket_id, task_id, locked=True)
    if task.run_id != run_id or not task.is_held_by(fence, tx.lapse_time):
        raise stale_task_fence(task, fence)


def append_own_event(tx: Transaction, run: Run, event: EventRecord) -> None:
    """Append an event of the catalog's own; the run's row must be locked."""
    advance = update(runs).where(runs.c.run_id == run.run_id).values(last_sequence=runs.c.last_sequence + 1)
    sequence = tx.connection.execute(advance.returning(runs.c.last_sequence)).scalar_one()
    insert_events(tx, run.bucket_id, run.run_id, first_sequence=sequence, events=[event])


def find_append(tx: Transaction, run_id: str, request_id: str) -> int | None:
    """Return what an earlier append with this request id answered."""
    return tx.connection.execute(FIND_APPEND, {"the_run": run_id, "the_request": request_id}).scalar_one_or_none()


def insert_events(tx: Transaction, bucket_id: str, run_id: str, *, first_sequence: int, events: Sequence[EventRecord]) -> None:
    """Insert events under consecutive numbers and wake who watches."""
    if not events:
        return
    rows = [
        {"run_id": run_id, "sequence": sequence, "bucket_id": bucket_id, "kind": event.kind, "payload": event.payload}
        for sequence, event in enumerate(events, start=first_sequence)
    ]
    tx.connection.execute(INSERT_EVENTS, rows)
    tx.notify(run_topic(run_id))


def read_last_event_kind(tx: Transaction, run_id: str) -> str | None:
    """Return what happened last in a run; None when nothing did."""
    query = select(run_events.c.kind).where(run_events.c.run_id == run_id).order_by(run_events.c.sequence.desc()).limit(1)
    return tx.connection.execute(query).scalar_one_or_none()


def read_events(tx: Transaction, bucket_id: str, run_id: str, *, after: int) -> EventChunk:
    """Read a run and the next events after a point, of one moment. NotFound."""
    run = get_run(tx, bucket_id, run_id)
    events: list[StoredEvent] = []
    size = 0
    with tx.connection.execute(READ_EVENTS, {"the_run": run_id, "after": after}) as rows:
        for sequence, payload in rows:
            events.append(StoredEvent(sequence=sequence, payload=payload))
            size += len(payload)
            if size >= CHUNK_BYTES:
                break
    newest = events[-1].sequence if events else after
    return EventChunk(run=run, events=tuple(events), is_all=newest >= run.last_sequence or not events)


def record_steps(tx: Transaction, bucket_id: str, run_id: str, fence: int, *, names: Sequence[str]) -> None:
    """Record steps as done, those recorded before left as they were: they are no progress. NotFound, StaleFence."""
    parameters = {**claim_parameters(tx, bucket_id, run_id, fence), "the_count": len(names)}
    last = tx.connection.execute(ADVANCE_STEPS, parameters).scalar_one_or_none()
    if last is None:
        raise stale_run_fence(get_run(tx, bucket_id, run_id), fence, tx)
    known = find_known_steps(tx, run_id, names)
    new = [name for name in names if name not in known]
    if known:
        tx.connection.execute(update(runs).where(runs.c.run_id == run_id).values(steps=last - len(known)))
    if new:
        rows = [
            {"run_id": run_id, "name": name, "bucket_id": bucket_id, "position": position, "fence": fence}
            for position, name in enumerate(new, start=last - len(names) + 1)
        ]
        tx.connection.execute(INSERT_STEPS, rows)


def find_known_steps(tx: Transaction, run_id: str, names: Sequence[str]) -> set[str]:
    """Return which of these steps are recorded already; the run's row must be locked."""
    known: set[str] = set()
    for some in in_chunks(names):
        query = select(run_steps.c.name).where(run_steps.c.run_id == run_id, one_of(tx, run_steps.c.name, some))
        known.update(tx.connection.execute(query).scalars())
    return known


def list_steps(
    tx: Transaction, bucket_id: str, run_id: str, *, after: Sequence[int] | None = None, limit: int | None = None
) -> Sequence[Row[tuple[int, str]]]:
    """List position and name of the steps recorded by every owner of a run, in order. NotFound."""
    get_run(tx, bucket_id, run_id)
    query = select(run_steps.c.position, run_steps.c.name).where(run_steps.c.run_id == run_id)
    return tx.connection.execute(select_page(query, run_steps.c.position, after=after, limit=limit)).all()
