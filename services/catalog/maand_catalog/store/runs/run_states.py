"""Finding runs, and moving them: the one place where a run's state changes.

Statements that every call needs are made once, here and in the modules that follow: making one takes SQLAlchemy ten times as
long as running it.
"""

from dataclasses import fields
from typing import Any

from sqlalchemy import ColumnElement, Row, and_, bindparam, select, update

from maand_catalog.database.transaction import Transaction
from maand_catalog.errors import NotFound
from maand_catalog.rules.runs import ALLOWED_MOVES, ENDED, CancelLevel, Run, RunState, StaleFence
from maand_catalog.store.tables.runs import runs

RUN_COLUMNS = [runs.c[field.name] for field in fields(Run)]

GET_RUN = select(*RUN_COLUMNS).where(runs.c.run_id == bindparam("the_run"), runs.c.bucket_id == bindparam("the_bucket"))
GET_RUN_LOCKED = GET_RUN.with_for_update()

IS_HELD: ColumnElement[bool] = and_(
    runs.c.run_id == bindparam("the_run"),
    runs.c.bucket_id == bindparam("the_bucket"),
    runs.c.fence == bindparam("the_fence"),
    runs.c.state == RunState.RUNNING,
    runs.c.lease_until > bindparam("the_time"),
)
"""That a claim still owns its run, for the parameters of `claim_parameters`. Every write of an executor is guarded by it."""

CLAIMABLE_RUNS = "runs"
"""Topic: a run may have become claimable."""


class ImpossibleMove(RuntimeError):
    """A move of a run or a task that its table `ALLOWED_MOVES` does not have: a mistake in the catalog itself.

    Nobody asks for one, unlike for an allocation's, whose `MoveNotAllowed` is answered to an executor.
    """


def run_topic(run_id: str) -> str:
    """Return the topic of one run: its events, its state, what is wished of it."""
    return f"run:{run_id}"


def to_run(row: Row[Any]) -> Run:
    """Make the fact from its row."""
    values = dict(row._mapping)  # noqa: SLF001 - SQLAlchemy's documented name for a row as a mapping
    return Run(**{**values, "cancel": CancelLevel(values["cancel"])})


def get_run(tx: Transaction, bucket_id: str, run_id: str, *, locked: bool = False) -> Run:
    """Read one run, with its row locked when it is about to be changed. NotFound."""
    parameters = {"the_run": run_id, "the_bucket": bucket_id}
    row = tx.connection.execute(GET_RUN_LOCKED if locked else GET_RUN, parameters).one_or_none()
    if row is None:
        raise NotFound(f"there is no run {run_id[:60]} in this bucket", help="maand runs list shows the runs there are")
    return to_run(row)


def run_has_lapsed(tx: Transaction) -> ColumnElement[bool]:
    """Return the condition that a run is recorded as running while its lease is over."""
    return and_(runs.c.finished_at.is_(None), runs.c.state == RunState.RUNNING, runs.c.lease_until <= tx.lapse_time)


def claim_parameters(tx: Transaction, bucket_id: str, run_id: str, fence: int) -> dict[str, object]:
    """Return the parameters of `IS_HELD` for a claim."""
    return {"the_run": run_id, "the_bucket": bucket_id, "the_fence": fence, "the_time": tx.lapse_time}


def get_held_run(tx: Transaction, bucket_id: str, run_id: str, fence: int) -> Run:
    """Read and lock a run that the claim with this fence owns. NotFound, StaleFence."""
    run = get_run(tx, bucket_id, run_id, locked=True)
    if not run.is_held_by(fence, tx.lapse_time):
        raise stale_run_fence(run, fence, tx)
    return run


def stale_run_fence(run: Run, fence: int, tx: Transaction) -> StaleFence:
    """Return the error for a claim that does not own its run any more."""
    state = run.state_at(tx.lapse_time)
    return StaleFence(
        f"the claim {fence} of run {run.run_id} is over: it is {state} under claim {run.fence}",
        facts={"fence": run.fence, "state": state},
    )


def move_run(tx: Transaction, run: Run, to: RunState, **values: Any) -> None:
    """Move a run to another state, with what else changes, and wake who watches. The row must be locked."""
    if to not in ALLOWED_MOVES[run.state]:
        raise ImpossibleMove(f"run {run.run_id} cannot move from {run.state} to {to}")
    if to in ENDED:
        finished_at = max(tx.now, run.started_at or run.created_at)  # the clock may have been set back
        values = {"finished_at": finished_at, "sealed_hook_env": b"", "lock_deadline": None, **values}
    if to is not RunState.RUNNING:
        values = {"lease_until": None, **values}
        tx.notify(CLAIMABLE_RUNS)
    tx.connection.execute(update(runs).where(runs.c.run_id == run.run_id).values(state=to, **values))
    tx.notify(run_topic(run.run_id))
