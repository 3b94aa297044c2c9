"""The end of hook invocations: of those that an executor names, and of all of a run, or of a task of it, whose claim is over.

Their tokens are dead and their semaphores free in the transaction that ends them.
"""

from collections.abc import Sequence

from sqlalchemy import ColumnElement, update

from maand_catalog.database.transaction import Transaction
from maand_catalog.rules.identity import InvocationEnd, InvocationOutcome
from maand_catalog.store.semaphores.slots import release_claims
from maand_catalog.store.tables.identity import invocations


def end_given_invocations(tx: Transaction, bucket_id: str, ends: Sequence[InvocationEnd]) -> None:
    """End invocations: tokens dead, semaphores free. One that ended before stays as it was, an unknown one is passed over."""
    for end in ends:
        tx.connection.execute(
            update(invocations)
            .where(
                invocations.c.invocation_id == end.invocation_id,
                invocations.c.bucket_id == bucket_id,
                invocations.c.ended_at.is_(None),
            )
            .values(ended_at=tx.now, outcome=end.outcome)
        )
    release_claims(tx, [end.invocation_id for end in ends])


def end_invocations_of_run(tx: Transaction, run_id: str, outcome: InvocationOutcome) -> None:
    """End every invocation of a run that has not ended, under whatever claim it began."""
    end_invocations_where(tx, invocations.c.run_id == run_id, outcome)


def end_invocations_of_task(tx: Transaction, run_id: str, task_id: str, outcome: InvocationOutcome) -> None:
    """End every invocation that began under a claim of a task and has not ended."""
    end_invocations_where(tx, (invocations.c.run_id == run_id) & (invocations.c.task_id == task_id), outcome)


def end_invocations_where(tx: Transaction, condition: ColumnElement[bool], outcome: InvocationOutcome) -> None:
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
