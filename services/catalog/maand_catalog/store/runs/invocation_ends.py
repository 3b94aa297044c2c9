"""The end of hook invocations that nobody ended one by one: of a run, or of a task of it, whose claim is over.

Their tokens are dead and their semaphores free in the transaction that ends the claim.
"""

from sqlalchemy import ColumnElement, update

from maand_catalog.database.transaction import Transaction
from maand_catalog.rules.identity import InvocationOutcome
from maand_catalog.store.semaphores.store import end_invocations as release_claims
from maand_catalog.store.tables.identity import invocations


def end_invocations_of_run(tx: Transaction, run_id: str, outcome: InvocationOutcome) -> None:
    """End every invocation of a run that has not ended, under whatever claim it began."""
    end_where(tx, invocations.c.run_id == run_id, outcome)


def end_invocations_of_task(tx: Transaction, run_id: str, task_id: str, outcome: InvocationOutcome) -> None:
    """End every invocation that began under a claim of a task and has not ended."""
    end_where(tx, (invocations.c.run_id == run_id) & (invocations.c.task_id == task_id), outcome)


def end_where(tx: Transaction, condition: ColumnElement[bool], outcome: InvocationOutcome) -> None:
    """End live invocations."""
    ended = (
        update(invocations)
        .where(condition, invocations.c.ended_at.is_(None))
        .values(ended_at=tx.now, outcome=outcome)
        .returning(invocations.c.invocation_id)
    )
    ids = list(tx.connection.execute(ended).scalars())
    if ids:
        release_claims(tx, ids)
