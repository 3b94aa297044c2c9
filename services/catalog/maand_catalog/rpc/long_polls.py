"""Calls that wait: registered on the bus before each look, so that nothing is missed in between."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import TypeVar

from maand_catalog.database.bus import Bus

T = TypeVar("T")

LONGEST_WAIT = timedelta(seconds=60)


async def until_found(
    bus: Bus, topic: str, look: Callable[[], Awaitable[T | None]], *, wait_seconds: int, look_every: timedelta
) -> T | None:
    """Look until something is found or the time is over; unwoken it looks this often, for what tells nobody."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + min(timedelta(seconds=wait_seconds), LONGEST_WAIT).total_seconds()
    with bus.subscribe(topic) as subscription:
        while True:
            found = await look()
            left = timedelta(seconds=deadline - loop.time())
            if found is not None or left <= timedelta():
                return found
            await subscription.wait(min(left, look_every))
