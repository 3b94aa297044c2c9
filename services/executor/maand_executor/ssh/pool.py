"""Connections to workers, opened once and shared by commands, copies and hooks.

    nobody connected --lease--> opening --> open, leased <--> open, idle --no room, or lost--> gone

At most `limit` are open. When another worker is wanted then, the connection that has been idle longest is closed; when none is
idle, the lease waits, first come, first served. Any number of leases share one connection; only the first of them logs in.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any

import asyncssh

from maand_executor.meter import Meter
from maand_executor.ssh.connect import Destination
from maand_executor.ssh.pacing import Slots

Open = Callable[[Destination], Coroutine[Any, Any, asyncssh.SSHClientConnection]]


class Link:
    """One connection of the pool: being opened, open, or lost."""

    def __init__(self, destination: Destination, opening: asyncio.Task[asyncssh.SSHClientConnection], slots: Slots) -> None:
        self.destination = destination
        self.slots = slots
        self.leases = 0
        self.idle_since = 0.0
        self._opening = opening

    @property
    def connection(self) -> asyncssh.SSHClientConnection:
        """The open connection."""
        return self._opening.result()

    async def opened(self) -> None:
        """Wait until it is open, or raise why it cannot be; a waiter that gives up does not stop the others' login."""
        await asyncio.shield(self._opening)

    @property
    def is_usable(self) -> bool:
        """Whether leases may share it: not known to be lost."""
        if not self._opening.done():
            return True
        return not self._opening.cancelled() and self._opening.exception() is None and not self.connection.is_closed()

    @property
    def is_open(self) -> bool:
        """Whether it is connected now."""
        return self._opening.done() and self.is_usable

    def end(self) -> None:
        """Hang up at once, or stop logging in."""
        if self.is_open:
            self.connection.abort()
        self._opening.cancel()


class Pool:
    """The connections of one bucket."""

    def __init__(
        self,
        open_connection: Open,
        *,
        limit: int,
        channels: int,
        clock: Callable[[], float] = time.monotonic,
        meter: Meter | None = None,
    ) -> None:
        self._meter = meter or Meter()
        self.limit = max(1, limit)
        self._open_connection = open_connection
        self._channels = channels
        self._clock = clock
        self._links: dict[Destination, Link] = {}
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def open_connections(self) -> int:
        """How many are connected now."""
        return sum(link.is_open for link in self._links.values())

    @asynccontextmanager
    async def lease(self, destination: Destination) -> AsyncIterator[Link]:
        """Give an open connection for as long as the block runs. Raises what logging in raises."""
        asked = time.monotonic()
        link = await self._link_to(destination)
        link.leases += 1
        try:
            await link.opened()
            self._meter.ssh_waited("connection", time.monotonic() - asked)
            yield link
        finally:
            link.leases -= 1
            link.idle_since = self._clock()
            if not link.leases:
                self._wake_one()

    def discard(self, link: Link) -> None:
        """Hang up a connection that does not answer: the next lease logs in anew."""
        link.end()
        self._forget(link)

    async def close(self) -> None:
        """Hang up everything."""
        links = list(self._links.values())
        for link in links:
            self.discard(link)
        for link in links:
            with suppress(Exception, asyncio.CancelledError):
                await link.connection.wait_closed()

    async def _link_to(self, destination: Destination) -> Link:
        waited = False
        while True:
            link = self._links.get(destination)
            if link is not None and link.is_usable:
                if waited:
                    self._wake_one()
                return link
            if link is not None:
                self._forget(link)
            if self._make_room():
                return self._begin(destination)
            await self._room(ahead=waited)
            waited = True

    def _begin(self, destination: Destination) -> Link:
        opening = asyncio.create_task(self._open_connection(destination), name=f"ssh login to {destination.host}")
        link = self._links[destination] = Link(destination, opening, Slots(self._channels))
        opening.add_done_callback(lambda _: self._settled(link))
        return link

    def _settled(self, link: Link) -> None:
        """Clean up when a login ended, well or not; perhaps nobody waits for it any more."""
        if not link.is_usable:
            self._forget(link)
        elif not link.leases:
            self._wake_one()

    def _make_room(self) -> bool:
        for link in [link for link in self._links.values() if not link.is_usable]:
            self._forget(link)
        if len(self._links) < self.limit:
            return True
        idle = [link for link in self._links.values() if not link.leases and link.is_open]
        if not idle:
            return False
        self.discard(min(idle, key=lambda link: link.idle_since))
        return True

    async def _room(self, *, ahead: bool) -> None:
        """Wait for a turn to look for room; who looked in vain waits ahead of the others."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if ahead:
            self._waiting.appendleft(turn)
        else:
            self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._wake_one()
            raise

    def _wake_one(self) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return

    def _forget(self, link: Link) -> None:
        if self._links.get(link.destination) is link:
            del self._links[link.destination]
            self._wake_one()
