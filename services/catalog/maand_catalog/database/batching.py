"""Doing many small things of one kind at once: what queued up while the last batch was carried out becomes the next batch.

The database's group commit already shares a transaction; a batch also shares the statements, so that 16 puts cost five
statements instead of eighty, and 16 gets one. Nobody waits for a batch to fill.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeAlias, TypeVar

from maand_catalog.database.transaction import Transaction

LARGEST_BATCH = 512
"""Items in a transaction at most: bounds how long the first of them waits for its outcome."""

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")
Outcomes: TypeAlias = Sequence[Outcome | Exception]


class Batcher(Generic[Item, Outcome]):
    """A queue in front of one function that carries out a whole batch; `transact` is `database.read` or `database.write`.

    The function answers in the order asked: an outcome each, or the exception that this one caller shall see.
    """

    def __init__(
        self,
        transact: Callable[[Callable[[Transaction], Outcomes[Outcome]]], Awaitable[Outcomes[Outcome]]],
        carry_out: Callable[[Transaction, Sequence[Item]], Outcomes[Outcome]],
    ) -> None:
        self._transact = transact
        self._carry_out = carry_out
        self._queued: list[tuple[Item, asyncio.Future[Outcome]]] = []
        self._draining: asyncio.Task[None] | None = None

    async def submit(self, item: Item) -> Outcome:
        """Carry out one item; a write is durable when this returns. Cancelling the caller does not undo what was begun."""
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._queued.append((item, future))
        if self._draining is None:
            self._draining = asyncio.create_task(self._drain(), name="catalog-batcher")
        return await future

    async def close(self) -> None:
        """Finish what is queued."""
        if self._draining is not None:
            await self._draining

    async def _drain(self) -> None:
        try:
            while self._queued:
                batch, self._queued = self._queued[:LARGEST_BATCH], self._queued[LARGEST_BATCH:]
                await self._commit([(item, future) for item, future in batch if not future.cancelled()])
        finally:
            self._draining = None

    async def _commit(self, batch: Sequence[tuple[Item, asyncio.Future[Outcome]]]) -> None:
        items = [item for item, _ in batch]
        outcomes: Outcomes[Outcome]
        try:
            outcomes = one_outcome_each(batch, await self._transact(lambda tx: self._carry_out(tx, items)) if items else ())
        except Exception as error:  # noqa: BLE001 - everyone in the batch must hear of it
            outcomes = [error] * len(batch)
        for (_, future), outcome in zip(batch, outcomes, strict=True):
            if future.done():
                continue
            if isinstance(outcome, Exception):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)


def one_outcome_each(items: Sequence[object], outcomes: Outcomes[Outcome]) -> Outcomes[Outcome]:
    """Return the outcomes. Raises when there is not one for each item: somebody would never be answered."""
    if len(outcomes) != len(items):
        raise RuntimeError(f"{len(items)} items were carried out with {len(outcomes)} outcomes")
    return outcomes
