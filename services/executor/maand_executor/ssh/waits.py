"""Waits for something that others hold: told when they are long, given up when nothing of it becomes free for very long."""

import asyncio
import time
from collections.abc import Callable
from datetime import timedelta


class Wait:
    """One wait. `freed` counts how often something of what is waited for became free: while that goes on, a wait goes on."""

    def __init__(
        self, *, told_after: timedelta, given_up_after: timedelta, tell: Callable[[], None], freed: Callable[[], int]
    ) -> None:
        self._given_up_after = given_up_after.total_seconds()
        self._tell = tell
        self._freed = freed
        self._seen = freed()
        self._moved_at = time.monotonic()
        self._told_at = self._moved_at + told_after.total_seconds()

    async def wait_for(self, turn: "asyncio.Future[None]") -> bool:
        """Return whether the turn came; False when it was given up. A turn that nobody waits for any more is cancelled."""
        try:
            while not await self._until_something_is_due(turn):
                if time.monotonic() >= self._moved_at + self._given_up_after:
                    return False
            return True
        finally:
            turn.cancel()

    async def _until_something_is_due(self, turn: "asyncio.Future[None]") -> bool:
        due = min(self._told_at, self._moved_at + self._given_up_after)
        await asyncio.wait({turn}, timeout=max(0.0, due - time.monotonic()))
        now = time.monotonic()
        if not turn.done() and now >= self._told_at:
            self._told_at = float("inf")
            self._tell()
        if self._freed() != self._seen:
            self._seen, self._moved_at = self._freed(), now
        return turn.done()
