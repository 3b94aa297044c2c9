"""Bounds on connections, which uvicorn leaves open: heads that never end, bodies nobody reads any more, answers nobody reads.

waiting for a head ──request──▶ being answered ──answer──▶ waiting for a head
      │ too long, too much             │ unread too long
      ▼                                ▼
    closed                          aborted
"""

import asyncio
from typing import Any, NoReturn

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from maand_runtime_gateway.settings import RequestLimits

UNASKED_BYTES = 16 * 1024 * 1024
"""Most that a connection may send while no request of it is being answered: heads, and the rest of bodies already refused."""


class BoundedConnection(HttpToolsProtocol):
    """uvicorn's HTTP connection; one that sends and sends without asking anything is closed."""

    unasked_bytes = 0

    @property
    def is_answering(self) -> bool:
        """Whether a request was received whose answer is not complete."""
        cycle: RequestResponseCycle | None = self.cycle  # None before the first request, whatever uvicorn declares
        return cycle is not None and not cycle.response_complete

    def data_received(self, data: bytes) -> None:
        """Take what the client sent."""
        if self.is_answering:
            self.unasked_bytes = 0
        else:
            self.unasked_bytes += len(data)
            if self.unasked_bytes > UNASKED_BYTES:
                self.transport.abort()
                return
        super().data_received(data)


class Watch:
    """Looks at all connections from time to time and ends those that make no progress."""

    def __init__(self, state: ServerState, limits: RequestLimits) -> None:
        self._state = state
        self._limits = limits
        self._stuck_since: dict[Any, tuple[object, float]] = {}

    async def run(self) -> NoReturn:
        """Look until cancelled."""
        pause = min(self._limits.head_time, self._limits.write_time).total_seconds() / 4
        while True:
            await asyncio.sleep(pause)
            self.look(asyncio.get_running_loop().time())

    def look(self, now: float) -> None:
        """End what has been stuck for too long at this moment."""
        stuck = {connection: self._reason(connection) for connection in self._state.connections}
        self._stuck_since = {
            connection: self._stuck_since[connection] if self._seen(connection, reason) else (reason, now)
            for connection, reason in stuck.items()
            if reason is not None
        }
        for connection, (reason, since) in self._stuck_since.items():
            if now - since > self._allowed(reason):
                connection.transport.abort()

    def _seen(self, connection: Any, reason: object) -> bool:
        """Whether the connection was stuck for this same reason when it was looked at last."""
        return connection in self._stuck_since and self._stuck_since[connection][0] == reason

    def _reason(self, connection: Any) -> object:
        """Say what a connection is stuck with: an answer with so much unread, a head after so many requests, or nothing."""
        unread = connection.transport.get_write_buffer_size()
        if unread:
            return ("write", unread)
        idle = connection.timeout_keep_alive_task is not None  # uvicorn's own timer ends it
        return None if connection.is_answering or idle else ("head", id(connection.cycle))

    def _allowed(self, reason: Any) -> float:
        limit = self._limits.write_time if reason[0] == "write" else self._limits.head_time
        return limit.total_seconds()
