"""The task loops of a run's owner: they carry out tasks of its own run, while any of its wide work is shared.

jobs of a wave share work side by side:   lend(names, work) ─┐
                                          lend(names, work) ─┴─► two loops: claim the oldest task, carry it out, claim the next …

The loops belong to the run, not to one piece of work: a task they hold they see through, also when it is another job's.
Work of which every task must be under way at once brings a loop for each.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Generic, NoReturn, TypeVar

from maand_executor.rules.side_by_side import end_tasks
from maand_wire.supervision import keep_running

TASK_LOOPS = 2
"""Tasks of one run that its owner does at once: while the last workers of one are waited for, the next keeps the pool busy."""
Work = TypeVar("Work")
"""What is done for a task; the loops only pass it on to whoever claims."""


class TaskLoops(Generic[Work]):
    """Those of one run. `do_one` claims one task of the run, waiting a while for it, and carries it out."""

    def __init__(self, do_one: Callable[[Mapping[str, Work]], Awaitable[None]], *, left_to_others: timedelta) -> None:
        self.seen = 0
        """Greatest sequence of an ended task that was seen: tasks created from now on end later."""
        self._do_one = do_one
        self._left_to_others = left_to_others
        self._works: dict[str, Work] = {}
        self._users = 0
        self._under_way_at_once = 0
        """Tasks lent now that must not wait for one another."""
        self._splits = 0
        self._running: list[asyncio.Task[None]] = []

    def next_number(self) -> int:
        """Return a number for one more piece of shared work of the run, counted from 1."""
        self._splits += 1
        return self._splits

    @asynccontextmanager
    async def lend(self, names: Collection[str], work: Work, *, all_at_once: bool = False) -> AsyncIterator[None]:
        """Have loops at work until this and all other pieces of shared work are over. Tasks of these names are done by `work`.

        `all_at_once`: none of them may wait for another to end, whoever else helps.
        """
        self._works.update(dict.fromkeys(names, work))
        self._users += 1
        if self._users == 1:
            self._start(TASK_LOOPS, self._keep_busy)
        at_once = len(names) if all_at_once else 0
        self._under_way_at_once += at_once
        self._start(TASK_LOOPS + self._under_way_at_once - len(self._running), self._keep_busy_after_others)
        try:
            yield
        finally:
            self._users -= 1
            self._under_way_at_once -= at_once
            for name in names:
                self._works.pop(name, None)
            if not self._users:
                running, self._running = self._running, []
                await end_tasks(*running)

    def _start(self, count: int, loop: Callable[[], Awaitable[NoReturn]]) -> None:
        self._running += [asyncio.create_task(keep_running("task loop of a run", loop)) for _ in range(count)]

    async def _keep_busy_after_others(self) -> NoReturn:
        await asyncio.sleep(self._left_to_others.total_seconds())
        await self._keep_busy()

    async def _keep_busy(self) -> NoReturn:
        while True:
            await self._do_one(self._works)
