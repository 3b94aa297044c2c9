"""What every handler asks of a request: ids that look like ids, texts of a sane size, pages; and how long calls wait.

A call that waits is registered on the bus before each look, so that nothing is missed in between.
"""

import asyncio
import base64
import json
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

from maand_catalog.database.bus import Bus
from maand_catalog.errors import InvalidArgument, LimitExceeded
from maand_wire.enums import enum_word

T = TypeVar("T")

ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
SURROGATE = re.compile(r"[\ud800-\udfff]")
CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
"""C0 and C1, but for tabs and line ends."""


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


@dataclass(frozen=True, kw_only=True)
class Page:
    """A page that was asked for: at most `limit` items, from behind the one whose sort key is `after` (None: from the first)."""

    limit: int
    after: tuple[Any, ...] | None

    def cut(self, found: Sequence[T], key: Callable[[T], Sequence[Any]]) -> tuple[Sequence[T], str]:
        """Return the page and the next one's token, from up to `limit + 1` items found; no token when nothing follows."""
        if len(found) <= self.limit:
            return found, ""
        return found[: self.limit], page_token(key(found[self.limit - 1]))


def asked_page(request: Any, *key: type, usual: int, most: int = 1_000) -> Page:
    """Read `page_size` (0 = the usual number, never more than the most) and `page_token`, whose sort key has these types."""
    return Page(limit=min(request.page_size or usual, most), after=read_page_token(request.page_token, key))


def page_token(key: Sequence[Any]) -> str:
    """Return a sort key as the opaque token of the page that follows it."""
    return base64.urlsafe_b64encode(json.dumps(list(key)).encode()).decode()


def read_page_token(token: str, types: Sequence[type]) -> tuple[Any, ...] | None:
    """Read a token; None for the first page. InvalidArgument for what no page of this listing gave."""
    if not token:
        return None
    try:
        key = json.loads(base64.b64decode(token, altchars=b"-_", validate=True))
    except (ValueError, RecursionError):
        key = None
    if not isinstance(key, list) or len(key) != len(types) or not all(map(fits_type, key, types)):
        raise InvalidArgument("page_token is not one of ours", help="pass next_page_token of the page before, unchanged")
    return tuple(key)


def fits_type(part: Any, expected: type) -> bool:
    """Whether one part of a sort key has its type, and is a number or text that a database can compare with."""
    if type(part) is not expected:
        return False
    if isinstance(part, str):
        return "\0" not in part and not SURROGATE.search(part)
    return not isinstance(part, int) or abs(part) < 2**63


def checked_word(enum: Any, number: int, field: str) -> str:
    """Return an enum value as its word; InvalidArgument for one that is not set or that this catalog does not know."""
    word = enum_word(enum, number) if number in enum.values() else ""
    if not word:
        raise InvalidArgument(
            f"{field} names none of {', '.join(enum_word(enum, each) for each in enum.values() if each)}", facts={"field": field}
        )
    return word


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
