"""Health of a server, kept true: `grpc.health.v1` says SERVING while the service is ready, not any more when it begins to stop.

    starts ──▶ SERVING ◀──▶ NOT_SERVING ──▶ stops: NOT_SERVING, to the end
                 asked every second: is what this service needs there, do its loops live?

grpcio-health-checking's own servicer writes to the context from a coroutine; behind interceptors, which pass on async generators,
its `Watch` cannot answer. The rules are those of https://github.com/grpc/grpc/blob/master/doc/health-checking.md.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Any, NoReturn

import grpc
import grpc.aio
import structlog
from grpc_health.v1 import health_pb2, health_pb2_grpc

from maand_wire.errors import RemoteError, remote_errors

log = structlog.get_logger("maand.wire.health")

LOOK_EVERY = timedelta(seconds=1)
LONGEST_LOOK = timedelta(seconds=3)
"""A look that takes longer says that the service is not ready; the next one waits for it."""

LONGEST_CHECK = timedelta(seconds=1)
"""For the question whether another part serves: whoever asks wants to know soon."""

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


class Health(health_pb2_grpc.HealthServicer):
    """The health service of one server: the same answer for the server as a whole and for each of its services."""

    def __init__(self, service_names: Sequence[str]) -> None:
        self._names = frozenset(("", *service_names))
        self._ready = False
        self._stopping = False
        self._changed = asyncio.Event()

    async def Check(self, request: health_pb2.HealthCheckRequest, context: Any) -> health_pb2.HealthCheckResponse:
        """Answer for now; NOT_FOUND for a service that this server does not have."""
        if request.service not in self._names:
            raise RemoteError(grpc.StatusCode.NOT_FOUND, f'this server has no service "{request.service}"')
        return health_pb2.HealthCheckResponse(status=self._status)

    async def Watch(self, request: health_pb2.HealthCheckRequest, context: Any) -> AsyncIterator[health_pb2.HealthCheckResponse]:
        """Answer now and whenever it changes."""
        if request.service not in self._names:
            yield health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.SERVICE_UNKNOWN)
            await asyncio.Event().wait()
        while True:
            changed, status = self._changed, self._status
            yield health_pb2.HealthCheckResponse(status=status)
            while status == self._status:
                await changed.wait()
                changed = self._changed

    def announce(self, *, ready: bool) -> None:
        """Say whether the service is ready; nothing is said any more once it stops."""
        if ready == self._ready or self._stopping:
            return
        self._ready = ready
        log.log(logging.INFO if ready else logging.WARNING, f"health: {'ready' if ready else 'not ready'}")
        self._tell()

    def announce_stop(self) -> None:
        """Say to the end that this server is not to be used: new calls go elsewhere, those under way are finished."""
        self._stopping = True
        self._tell()

    async def keep(self, is_ready: Callable[[], Awaitable[bool]]) -> NoReturn:
        """Look again and again whether the service is ready, and announce it."""
        while True:
            look = asyncio.ensure_future(is_ready())
            try:
                await asyncio.wait({look}, timeout=LONGEST_LOOK.total_seconds())
                if not look.done():
                    self.announce(ready=False)
                self.announce(ready=await look)
            except BaseException:
                self.announce(ready=False)
                raise
            finally:
                look.cancel()
            await asyncio.sleep(LOOK_EVERY.total_seconds())

    @property
    def _status(self) -> int:
        return SERVING if self._ready and not self._stopping else NOT_SERVING

    def _tell(self) -> None:
        told, self._changed = self._changed, asyncio.Event()
        told.set()


async def check_serving(channel: grpc.aio.Channel) -> bool:
    """Ask the server at the other end of a channel whether it is ready; one that cannot be reached is not."""
    stub: Any = health_pb2_grpc.HealthStub(channel)  # its stubs type only the blocking form
    try:
        with remote_errors():
            answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=LONGEST_CHECK.total_seconds())
    except RemoteError:
        return False
    return bool(answer.status == SERVING)
