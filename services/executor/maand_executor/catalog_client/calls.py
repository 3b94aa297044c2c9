"""How this executor calls the catalog: a deadline on every call, and patience where the contract allows a repeat.

A catalog that restarts is away for a second or two. Reads, and writes that the contract says may be repeated, are tried again
on UNAVAILABLE with a growing pause, for `PATIENCE` at most; a run whose lease lapses meanwhile is ended by its lease.
"""

from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from typing import Any, TypeVar

import grpc.aio

from maand_wire.calls import call_rpc, growing_pauses, read_pages, retry_call
from maand_wire.errors import remote_errors

Request = TypeVar("Request")
Response = TypeVar("Response")

DEADLINE = timedelta(seconds=15)
"""Limit of an ordinary call; the slowest reads a page of 10,000 allocations in well under a second."""
LONG_DEADLINE = timedelta(seconds=60)
"""Limit of a call that moves or streams much."""
PATIENCE = timedelta(seconds=30)
"""How long a repeatable call is tried again."""
FIRST_PAUSE, LONGEST_PAUSE = timedelta(milliseconds=50), timedelta(seconds=2)


async def call_catalog(
    method: grpc.aio.UnaryUnaryMultiCallable[Request, Response],
    request: Request,
    *,
    repeatable: bool,
    deadline: timedelta = DEADLINE,
) -> Response:
    """Call once, or until it is through when it may be repeated. Raises `RemoteError` in the catalog's own words."""
    return await call_rpc(method, request, seconds=deadline.total_seconds(), pauses=pauses_while_away() if repeatable else ())


async def read_stream(
    method: grpc.aio.UnaryStreamMultiCallable[Request, Response], request: Request, *, deadline: timedelta = LONG_DEADLINE
) -> list[Response]:
    """Read a whole response stream; a stream that breaks is read again from its beginning."""

    async def attempt() -> list[Response]:
        return [response async for response in open_stream(method, request, deadline=deadline)]

    return await retry_call(attempt, pauses=pauses_while_away())


async def list_all(method: grpc.aio.UnaryUnaryMultiCallable[Request, Any], request: Request, items: str) -> list[Any]:
    """Return the items of all pages of a listing."""

    async def read(page: Request) -> Any:
        return await call_catalog(method, page, repeatable=True)

    return [item async for item in read_pages(read, request, items)]


async def open_stream(
    method: grpc.aio.UnaryStreamMultiCallable[Request, Response], request: Request, *, deadline: timedelta = LONG_DEADLINE
) -> AsyncIterator[Response]:
    """Yield responses of one call. Raises `RemoteError`."""
    with remote_errors():
        async for response in method(request, timeout=deadline.total_seconds()):
            yield response


def pauses_while_away() -> Iterator[float]:
    """Give the pauses between attempts while the catalog is away."""
    return growing_pauses(first=FIRST_PAUSE, longest=LONGEST_PAUSE, within=PATIENCE)
