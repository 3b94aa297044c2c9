"""What every handler asks of a request: ids that look like ids, texts of a sane size, pages; and how long calls wait.

A call that waits is registered on the bus before each look, so that nothing is missed in between.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import TypeVar

from maand_catalog.database.bus import Bus
from maand_catalog.errors import InvalidArgument, LimitExceeded

ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


def checked_id(value: str, field: str) -> str:
    """Return a UUID in its canonical form; InvalidArgument for anything else."""
    if not ID.fullmatch(value):
        raise InvalidArgument(f"{field} is not a UUID in canonical form", facts={"field": field})
    return value


def checked_text(value: str, field: str, *, longest: int, required: bool = False) -> str:
    """Return a text of at most `longest` characters without control characters; tabs and line ends are let through."""
    if required and not value:
        raise InvalidArgument(f"{field} is missing", facts={"field": field})
    if len(value) > longest:
        raise LimitExceeded(f"{field} is longer than {longest} characters", facts={"field": field, "limit": longest})
    if CONTROL.search(value):
        raise InvalidArgument(f"{field} contains control characters", facts={"field": field})
    return value


def page_limit(page_size: int, *, usual: int, most: int = 1000) -> int:
    """Return how many to list: the usual number for 0, and never more than the most."""
    return min(page_size or usual, most)


def number_token(page_token: str) -> int | None:
    """Read a page token that is a number; None for the first page."""
    if not page_token:
        return None
    if not (page_token.isascii() and page_token.isdecimal()) or len(page_token) > 18:
        raise InvalidArgument("page_token is not one of ours", help="pass next_page_token of the page before, unchanged")
    return int(page_token)


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
