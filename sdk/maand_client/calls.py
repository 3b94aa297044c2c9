"""How this client calls a catalog: a limit on every call, patience where the contract allows a repeat, errors by meaning.

A stream has no limit: it is followed through lost connections. Whoever leaves the iteration ends the stream.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import grpc
import grpc.aio

from maand_client.errors import errors_by_meaning
from maand_wire.calls import growing_pauses, is_passing, read_pages
from maand_wire.channels import bearer_header
from maand_wire.errors import RemoteError, remote_errors

Request = TypeVar("Request")
Response = TypeVar("Response")
Item = TypeVar("Item")

DEADLINE = timedelta(seconds=30)
"""Limit of an ordinary call; the slowest, a page of 10,000 allocations, takes well under a second."""
PATIENCE = timedelta(seconds=30)
"""How long a service may be away before a caller is told: a rolling restart of a cluster takes less."""
FIRST_PAUSE, LONGEST_PAUSE = timedelta(milliseconds=50), timedelta(seconds=2)

STOOD = timedelta(seconds=5)
"""A stream that lived this long was a good one: patience begins anew when it is lost."""

SERVED = timedelta(seconds=25)
"""A call that took this long was lost by a service that served it: to find that nobody is there takes 20 s at most."""

LOST = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED, grpc.StatusCode.UNKNOWN)
"""What a call ends with when its server goes."""


@dataclass(frozen=True, kw_only=True)
class Calls:
    """One channel to a catalog, whose bucket is meant, and how the caller shows who it is."""

    channel: grpc.aio.Channel
    bucket_id: str = ""
    token: Callable[[], str | None] = lambda: None
    patience: timedelta = PATIENCE

    async def once(
        self, method: grpc.aio.UnaryUnaryMultiCallable[Request, Response], request: Request, *, limit: timedelta = DEADLINE
    ) -> Response:
        """Make a call that must not be repeated. MaandError."""
        with errors_by_meaning():
            return await self._attempt(method, request, limit)

    async def repeated(
        self, method: grpc.aio.UnaryUnaryMultiCallable[Request, Response], request: Request, *, limit: timedelta = DEADLINE
    ) -> Response:
        """Make a call that may be repeated, until it is through or patience is over. MaandError.

        Patience begins when the call is lost for the first time, and anew when it was served for long before it was lost again:
        a semaphore is waited for through the restart of one catalog after the other.
        """
        pauses = self._pauses()
        with errors_by_meaning():
            while True:
                began = time.monotonic()
                try:
                    return await self._attempt(method, request, limit)
                except RemoteError as error:
                    if time.monotonic() - began > SERVED.total_seconds():
                        pauses = self._pauses()
                    pause = next(pauses, None) if is_lost(error) else None
                    if pause is None:
                        raise
                await asyncio.sleep(pause)

    async def listed(
        self,
        method: grpc.aio.UnaryUnaryMultiCallable[Request, Any],
        request: Request,
        items: str,
        *,
        limit: int | None = None,
    ) -> list[Any]:
        """Return the items of all pages, at most `limit`. MaandError."""

        async def read(page: Request) -> Any:
            return await self.repeated(method, page)

        return [item async for item in read_pages(read, request, items, limit=limit)]

    async def followed(self, attach: Callable[[], AsyncGenerator[Item, None]]) -> AsyncGenerator[Item, None]:
        """Give what a stream gives until its server ends it; when it is lost, `attach` anew, which goes on after the last item.

        Raises `Unavailable` when nobody was there for as long as patience lasts, and any refusal at once.
        """
        pauses = self._pauses()
        with errors_by_meaning():
            while True:
                began = time.monotonic()
                try:
                    async with aclosing(attach()) as items:
                        async for item in items:
                            yield item
                            pauses = self._pauses()
                except RemoteError as error:
                    if time.monotonic() - began > STOOD.total_seconds():
                        pauses = self._pauses()
                    pause = next(pauses, None) if is_lost(error) else None
                    if pause is None:
                        raise
                else:
                    return
                await asyncio.sleep(pause)

    async def stream(
        self,
        method: grpc.aio.UnaryStreamMultiCallable[Request, Response],
        request: Request,
        *,
        begun: Callable[[dict[str, str]], None] | None = None,
    ) -> AsyncGenerator[Response, None]:
        """Yield what one stream carries; `begun` gets its headers first. RemoteError: `followed` decides what it means."""
        call = method(request, metadata=self.metadata())
        try:
            with remote_errors():
                if begun is not None:
                    begun(text_headers(await call.initial_metadata()))
                async for response in call:
                    yield response
        finally:
            call.cancel()

    def metadata(self) -> Sequence[tuple[str, str]]:
        """Return what shows who calls; a token file is read anew for every call, so that a rotated token is found."""
        token = self.token()
        return (bearer_header(token),) if token else ()

    async def _attempt(
        self, method: grpc.aio.UnaryUnaryMultiCallable[Request, Response], request: Request, limit: timedelta
    ) -> Response:
        with remote_errors():
            return await method(request, timeout=limit.total_seconds(), metadata=self.metadata())

    def _pauses(self) -> Iterator[float]:
        return growing_pauses(first=FIRST_PAUSE, longest=LONGEST_PAUSE, within=self.patience)


def is_lost(error: RemoteError) -> bool:
    """Tell whether a call ended because its server went, not because of what it was asked."""
    return error.status in LOST and (is_passing(error) or error.status is not grpc.StatusCode.UNAVAILABLE)


def text_headers(metadata: grpc.aio.Metadata) -> dict[str, str]:
    """Return the headers whose values are text."""
    return {key: value for key, value in metadata if isinstance(value, str)}
