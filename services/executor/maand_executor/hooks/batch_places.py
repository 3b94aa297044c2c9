"""Places for hook processes, given to whole batches: inside a batch all hooks run side by side, whatever its size.

    ask -> in line, in the order of asking -> all places of the batch at once -> … -> given back

A batch that is wider than all places runs alone. A batch of a nested run asks for none: the hook that started the run holds a
place until the run ends, so a line for both would wait for itself.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class BatchPlaces:
    """Those of one executor."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        """Hook processes that run side by side, batches wider than that and nested runs aside."""
        self._taken = 0
        self._turn = asyncio.Lock()  # fair: a wide batch is not overtaken again and again by narrow ones
        self._freed = asyncio.Event()

    @property
    def taken(self) -> int:
        """Places that batches hold now."""
        return self._taken

    @asynccontextmanager
    async def hold(self, count: int) -> AsyncIterator[None]:
        """Hold places for a whole batch inside; waits until there is room for all of it."""
        async with self._turn:
            while not self._fits(count):
                self._freed.clear()
                await self._freed.wait()
            self._taken += count
        try:
            yield
        finally:
            self._taken -= count
            self._freed.set()

    def _fits(self, count: int) -> bool:
        return not self._taken or self._taken + count <= self.limit
