"""Calling with patience: what passes by itself is tried again, lists are read page by page.

A service that restarts or moves is away for a second or two. Whether a call may be repeated is the contract's to say, how long to
try is the caller's: both are passed in.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from datetime import timedelta
from typing import Any, TypeVar

import grpc

from maand_wire.errors import RemoteError, remote_errors

Result = TypeVar("Result")

PASSING = ("unavailable", "connection_closed")
"""Codes of what passes by itself while a service restarts; a certificate that is not trusted does not."""


def is_away(error: RemoteError) -> bool:
    """Tell whether nobody answered, for whatever reason: a server that stops ends the calls it has not answered as cancelled."""
    return error.status in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)


def is_passing(error: RemoteError) -> bool:
    """Tell whether nobody answered for a reason that passes by itself."""
    return is_away(error) and error.code in PASSING


def growing_pauses(*, first: timedelta, longest: timedelta, within: timedelta) -> Iterator[float]:
    """Give pauses in seconds, each up to twice the one before, until `within` from the first one on would be over.

    It does not count from before: a call may wait a long time for its answer until it is lost for the first time. Each is
    shortened by up to half at random, so that those who lost the same service do not come back all at once.
    """
    import random  # here, because the command line starts often, and its pauses are fixed

    give_up = time.monotonic() + within.total_seconds()
    pause = first.total_seconds()
    while time.monotonic() + pause <= give_up:
        yield pause * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, not a secret
        pause = min(pause * 2, longest.total_seconds())


async def retry_call(
    attempt: Callable[[], Awaitable[Result]], *, pauses: Iterable[float], when: Callable[[RemoteError], bool] = is_away
) -> Result:
    """Attempt until it is through, once more after each pause, while it fails with what `when` accepts.

    Raises the last `RemoteError` when the pauses are used up, and any other at once.
    """
    left = iter(pauses)
    while True:
        try:
            return await attempt()
        except RemoteError as error:
            pause = next(left, None) if when(error) else None
            if pause is None:
                raise
        await asyncio.sleep(pause)


async def call_rpc(
    method: Callable[..., Awaitable[Result]],
    request: Any,
    *,
    seconds: float,
    pauses: Iterable[float] = (),
    when: Callable[[RemoteError], bool] = is_away,
) -> Result:
    """Call a stub's method with a limit; where there are pauses, as `retry_call` does. RemoteError in the server's words."""

    async def attempt() -> Result:
        with remote_errors():
            return await method(request, timeout=seconds)

    return await retry_call(attempt, pauses=pauses, when=when)


async def read_pages(
    call: Callable[[Any], Awaitable[Any]], request: Any, items: str, *, limit: int | None = None
) -> AsyncIterator[Any]:
    """Give the `items` of every page that `call` answers a listing's request with, at most `limit`. The request is changed."""
    given = 0
    while True:
        response = await call(request)
        for item in getattr(response, items):
            if limit is not None and given >= limit:
                return
            given += 1
            yield item
        if not response.next_page_token:
            return
        request.page_token = response.next_page_token
