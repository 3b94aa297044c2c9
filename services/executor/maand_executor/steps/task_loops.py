"""The hands of a run's owner: they carry out tasks of its own run, while any of its wide work is shared.

jobs of a wave share work side by side:   lend(names, work) ─┐
                                          lend(names, work) ─┴─► two hands: claim the oldest task, carry it out, claim the next …

Hands belong to the run, not to one piece of work: whatever task they hold, they see it through, also when it is another job's.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, NoReturn

from maand_contracts.catalog.v1 import task_pb2
from maand_executor.rules.facts import Worker
from maand_wire.supervision import keep_running

if TYPE_CHECKING:
    from maand_executor.steps.context import RunContext

HANDS = 2
"""Tasks of one run that its owner does at once: while the last workers of one are waited for, the next keeps the pool busy."""

Tell = Callable[[task_pb2.WorkerOutcome], None]
TaskWork = Callable[["RunContext", task_pb2.TaskSpec, Sequence[Worker], Tell], Awaitable[None]]
"""Does the work of a task on these of its workers, and tells how it ended on each as soon as that is known."""
Works = Mapping[str, TaskWork]
"""By name of the task."""


class Hands:
    """Those of one run. `do_one` claims one task of the run, waiting a while for it, and carries it out."""

    def __init__(self, do_one: Callable[[Works], Awaitable[None]]) -> None:
        self.seen = 0
        """Greatest sequence of an ended task that was seen: tasks created from now on end later."""
        self._do_one = do_one
        self._works: dict[str, TaskWork] = {}
        self._users = 0
        self._splits = 0
        self._running: list[asyncio.Task[None]] = []

    def next_number(self) -> int:
        """Return a number for one more piece of shared work of the run, counted from 1."""
        self._splits += 1
        return self._splits

    @asynccontextmanager
    async def lend(self, names: Collection[str], work: TaskWork) -> AsyncIterator[None]:
        """Have hands at work until this and all other pieces of shared work are over. Tasks of these names are done by `work`."""
        self._works.update(dict.fromkeys(names, work))
        self._users += 1
        if self._users == 1:
            self._running = [asyncio.create_task(keep_running("hand of a run", self._keep_busy)) for _ in range(HANDS)]
        try:
            yield
        finally:
            self._users -= 1
            for name in names:
                self._works.pop(name, None)
            if not self._users:
                running, self._running = self._running, []
                await end(running)

    async def _keep_busy(self) -> NoReturn:
        while True:
            await self._do_one(self._works)


async def end(tasks: "Sequence[asyncio.Task[None]]") -> None:
    """Cancel tasks that still run, and wait until they are over."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
