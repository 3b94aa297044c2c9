"""How this executor calls the catalog: a deadline on every call, and patience where the contract allows a repeat.

A catalog that restarts is away for a second or two. Reads, and writes that the contract says may be repeated, are tried again
on UNAVAILABLE with a growing pause, for `PATIENCE` at most; a run whose lease lapses meanwhile is ended by its lease.
"""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from typing import TypeVar

import grpc
import grpc.aio

from maand_wire.errors import RemoteError, remote_errors

Request = TypeVar("Request")
Response = TypeVar("Response")
Result = TypeVar("Result")

DEADLINE = timedelta(seconds=15)
"""Limit of an ordinary call; the slowest reads a page of 10,000 allocations in well under a second."""
LONG_DEADLINE = timedelta(seconds=60)
"""Limit of a call that moves or streams much."""
PATIENCE = timedelta(seconds=30)
"""How long a repeatable call is tried again."""
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 2.0


async def call(
    method: grpc.aio.UnaryUnaryMultiCallable[Request, Response],
    request: Request,
    *,
    repeatable: bool,
    deadline: timedelta = DEADLINE,
) -> Response:
    """Call once, or until it is through when it may be repeated. Raises `RemoteError` in the catalog's own words."""

    async def attempt() -> Response:
        with remote_errors():
            return await method(request, timeout=deadline.total_seconds())

    return await patiently(attempt) if repeatable else await attempt()


async def collect(
    method: grpc.aio.UnaryStreamMultiCallable[Request, Response], request: Request, *, deadline: timedelta = LONG_DEADLINE
) -> list[Response]:
    """Read a whole response stream; a stream that breaks is read again from its beginning."""

    async def attempt() -> list[Response]:
        return [response async for response in stream(method, request, deadline=deadline)]

    return await patiently(attempt)


async def stream(
    method: grpc.aio.UnaryStreamMultiCallable[Request, Response], request: Request, *, deadline: timedelta = LONG_DEADLINE
) -> AsyncIterator[Response]:
    """Yield responses of one call. Raises `RemoteError`."""
    with remote_errors():
        async for response in method(request, timeout=deadline.total_seconds()):
            yield response


async def patiently(attempt: Callable[[], Awaitable[Result]]) -> Result:
    """Repeat an attempt while the catalog is away."""
    give_up = time.monotonic() + PATIENCE.total_seconds()
    pause = FIRST_PAUSE
    while True:
        try:
            return await attempt()
        except RemoteError as error:
            if error.status is not grpc.StatusCode.UNAVAILABLE or time.monotonic() + pause > give_up:
                raise
        await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, not a secret
        pause = min(pause * 2, LONGEST_PAUSE)
