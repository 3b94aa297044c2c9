"""How urgently a run is asked to stop, seen by everything that works for it.

    not asked -> after the batch -> now      (never back)

The lease raises the level when the catalog reports a wish; batch loops look at `level`, long waits use `wait`.
"""

import asyncio
from enum import IntEnum


class CancelLevel(IntEnum):
    """How urgently."""

    NOT_ASKED = 0
    AFTER_BATCH = 1
    NOW = 2


class CancelSignal:
    """One run's wish to stop. Raised by its lease, watched by its work."""

    def __init__(self) -> None:
        self._level = CancelLevel.NOT_ASKED
        self._reached = {CancelLevel.AFTER_BATCH: asyncio.Event(), CancelLevel.NOW: asyncio.Event()}

    @property
    def level(self) -> CancelLevel:
        """The level in force."""
        return self._level

    def raise_to(self, level: CancelLevel) -> None:
        """Make it at least this urgent; a lower level changes nothing."""
        self._level = max(self._level, level)
        for reached, event in self._reached.items():
            if reached <= self._level:
                event.set()

    async def wait(self, level: CancelLevel) -> None:
        """Return as soon as it is at least this urgent."""
        if level > CancelLevel.NOT_ASKED:
            await self._reached[level].wait()
