"""Waiting for what tells nobody when it changes: files, processes, databases, counters of another part."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable


async def until(condition: Callable[[], object] | Callable[[], Awaitable[object]], *, seconds: float = 60) -> None:
    """Wait in an event loop until a condition, plain or a coroutine function, holds."""
    async with asyncio.timeout(seconds):
        while True:
            holds = condition()
            if await holds if inspect.isawaitable(holds) else holds:
                return
            await asyncio.sleep(0.01)


def wait_until(holds: Callable[[], bool], *, seconds: float = 60, what: str = "it", told: Callable[[], str] = str) -> None:
    """Wait until something holds, or fail with what is told by then."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"{what} did not happen within {seconds} s\n{told()}"
        time.sleep(0.02)
