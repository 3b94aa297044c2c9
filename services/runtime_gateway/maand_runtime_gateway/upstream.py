"""The two services behind the gateway: one shared channel each. The only module that speaks gRPC."""

import dataclasses
import secrets
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import grpc
import grpc.aio

from maand_contracts.catalog.v1 import job_pb2_grpc, kv_pb2_grpc, secret_pb2_grpc, semaphore_pb2_grpc
from maand_contracts.executor.v1 import remote_pb2_grpc
from maand_runtime_gateway.settings import Deadlines, GatewaySettings
from maand_wire.calls import growing_pauses, read_pages, retry_call
from maand_wire.channels import open_channel
from maand_wire.endpoints import Endpoint
from maand_wire.errors import RemoteError, remote_errors
from maand_wire.health import check_serving

ResponseT = TypeVar("ResponseT")

Metadata = Sequence[tuple[str, str]]

FIRST_PAUSE, LONGEST_PAUSE = timedelta(milliseconds=50), timedelta(seconds=1)
"""Between attempts while the catalog is away."""


@dataclass(frozen=True, kw_only=True)
class Caller:
    """The hook on whose behalf calls are made: its identity as metadata, and the id that it gave its request, if any."""

    metadata: Metadata
    request_id: str = ""

    @property
    def repeat_id(self) -> str:
        """An id by which the catalog knows a repeat of this request: the hook's own, else a new one."""
        return self.request_id or secrets.token_hex(16)


class Upstream:
    """Catalog and executor as the gateway calls them. A failed call is a `RemoteError`."""

    def __init__(self, settings: GatewaySettings) -> None:
        self.deadlines: Deadlines = settings.deadlines
        self._catalog = open_hook_channel(settings.catalog)
        self._executor = open_hook_channel(settings.executor)
        self.kv = kv_pb2_grpc.KvServiceStub(self._catalog)
        self.secrets = secret_pb2_grpc.SecretServiceStub(self._catalog)
        self.semaphores = semaphore_pb2_grpc.SemaphoreServiceStub(self._catalog)
        self.jobs = job_pb2_grpc.JobServiceStub(self._catalog)
        self.remote = remote_pb2_grpc.RemoteServiceStub(self._executor)

    async def call(
        self,
        rpc: Callable[..., Awaitable[ResponseT]],
        request: Any,
        caller: Caller,
        *,
        own_timeout: float | None = None,
    ) -> ResponseT:
        """Make one call for a hook, once; `own_timeout` is what the hook asked for, seconds, and extends the deadline."""
        margin = self.deadlines.catalog if own_timeout is None else self.deadlines.margin
        with remote_errors():
            return await rpc(request, timeout=(own_timeout or 0) + margin.total_seconds(), metadata=caller.metadata)

    async def call_catalog(self, rpc: Callable[..., Awaitable[ResponseT]], request: Any, caller: Caller) -> ResponseT:
        """Make a call that the contract allows to repeat, once more while the catalog is away."""
        return await self.while_away(lambda: self.call(rpc, request, caller))

    async def while_away(self, attempt: Callable[[], Awaitable[ResponseT]]) -> ResponseT:
        """Attempt again while the catalog is away: it restarts or moves, which passes within seconds and is no hook's business.

        Raises the last `RemoteError` when it was away for longer than `Deadlines.patience`, and any other at once.
        """
        pauses = growing_pauses(first=FIRST_PAUSE, longest=LONGEST_PAUSE, within=self.deadlines.patience)
        return await retry_call(attempt, pauses=pauses)

    async def pages(self, rpc: Callable[..., Awaitable[Any]], request: Any, items: str, caller: Caller) -> list[Any]:
        """Return the items of all pages of a listing, for a hook."""

        async def read(page: Any) -> Any:
            return await self.call_catalog(rpc, page, caller)

        return [item async for item in read_pages(read, request, items)]

    async def catalog_serves(self) -> bool:
        """Ask the catalog's health service."""
        return await check_serving(self._catalog)

    async def close(self) -> None:
        """Close both channels; calls still running are cancelled."""
        await self._catalog.close()
        await self._executor.close()


def open_hook_channel(endpoint: Endpoint) -> grpc.aio.Channel:
    """Open a channel without credentials of the gateway's own: every call carries the hook's token and no other."""
    return open_channel(dataclasses.replace(endpoint, token_file=None))


@contextmanager
def with_help(help: str, *, when: bool) -> Iterator[None]:  # noqa: A002 - the contract's word
    """Add the remedy that only this API knows to a refusal that brought none of its own words for HTTP."""
    try:
        yield
    except RemoteError as error:
        if when and error.status is grpc.StatusCode.PERMISSION_DENIED:
            error.help = help
        raise
