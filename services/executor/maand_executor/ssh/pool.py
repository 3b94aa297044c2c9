"""Connections to workers, opened once and shared by commands, copies and hooks.

    nobody connected --lease--> opening --> open, leased <--> open, idle --no room, or lost--> gone

At most `limit` are open, idle ones included, and no more in all pools of the process than it has file descriptors for (`Room`).
When another worker is wanted then, the connection that has been idle longest is closed; when none is idle, the lease waits, first
come, first served. Any number of leases share one connection; only the first of them logs in. Nothing closes an idle connection
but want of room: it costs 0.04 MiB here, a login 20 ms of CPU on the worker.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from typing import Any

import asyncssh
import structlog

from maand_executor.rules.meter import Meter
from maand_executor.ssh.connect import Destination
from maand_executor.ssh.errors import NothingFree
from maand_executor.ssh.execution import Tell, tell_nobody
from maand_executor.ssh.pacing import Slots
from maand_executor.ssh.settings import SshSettings
from maand_executor.ssh.waits import Wait

log = structlog.get_logger("maand.executor.ssh")

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

    def ask_for_signs_of_life(self, *, every: timedelta, count: int) -> None:
        """Change how soon the connection counts as lost when the server falls silent."""
        if self.is_open:
            self.connection.set_keepalive(every.total_seconds(), count)

    def end(self) -> None:
        """Hang up at once, or stop logging in."""
        if self.is_open:
            self.connection.abort()
        self._opening.cancel()


class Room:
    """How many connections all pools of a process may have open together: descriptors belong to the process, not to a bucket."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._pools: list[Pool] = []
        self._told = False

    def add(self, pool: "Pool") -> None:
        """Count a pool's connections from now on."""
        self._pools.append(pool)

    def remove(self, pool: "Pool") -> None:
        """Forget a pool that was closed, once or again."""
        if pool in self._pools:
            self._pools.remove(pool)

    def make(self) -> bool:
        """Make room for one more connection, if need be by closing the one idle longest in any pool. False: all are in use."""
        if self._is_free():
            return True
        for pool in self._pools:
            pool.forget_lost()
        if self._is_free():
            return True
        if not self._told:
            self._told = True
            words = "SSH connections are closed and opened again: the limit of file descriptors allows no more; raise `ulimit -n`"
            log.warning(words, connections=self.limit)
        idle = [(link.idle_since, number) for number, pool in enumerate(self._pools) for link in pool.idle]
        return bool(idle) and self._pools[min(idle)[1]].hang_up_idle()

    def look_again(self) -> None:
        """Let the first who waits in each pool look for room; whose own pool is full waits on."""
        for pool in self._pools:
            pool.wake_one()

    def _is_free(self) -> bool:
        return sum(pool.links for pool in self._pools) < self.limit


class Pool:
    """The connections of one bucket."""

    def __init__(
        self,
        open_connection: Open,
        *,
        limit: int,
        settings: SshSettings,
        room: Room,
        clock: Callable[[], float] = time.monotonic,
        meter: Meter | None = None,
    ) -> None:
        self._meter = meter or Meter()
        self.limit = max(1, limit)
        self._open_connection = open_connection
        self._settings = settings
        self._room = room
        self._clock = clock
        self._links: dict[Destination, Link] = {}
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._next_told_at = 0.0
        self._freed = 0
        room.add(self)

    @property
    def links(self) -> int:
        """How many connections are open or being opened."""
        return len(self._links)

    @property
    def idle(self) -> list[Link]:
        """Those that are open and that nobody uses."""
        return [link for link in self._links.values() if not link.leases and link.is_open]

    @property
    def open_connections(self) -> int:
        """How many are connected now."""
        return sum(link.is_open for link in self._links.values())

    @asynccontextmanager
    async def lease(self, destination: Destination, tell: Tell = tell_nobody) -> AsyncIterator[Link]:
        """Give an open connection for as long as the block runs. Raises what logging in raises, and `NothingFree`."""
        asked = time.monotonic()
        link = await self._link_to(destination, tell)
        link.leases += 1
        try:
            await link.opened()
            self._meter.ssh_waited("connection", time.monotonic() - asked)
            if link.leases == 1:
                link.ask_for_signs_of_life(every=self._settings.keepalive_interval, count=self._settings.keepalive_count)
            yield link
        finally:
            link.leases -= 1
            link.idle_since = self._clock()
            if not link.leases:
                self._freed += 1
                link.ask_for_signs_of_life(every=self._settings.idle_keepalive_interval, count=1)
                self._room.look_again()

    def discard(self, link: Link) -> None:
        """Hang up a connection that does not answer: the next lease logs in anew."""
        link.end()
        self._forget(link)

    def hang_up_idle(self) -> bool:
        """Close the connection that has been idle longest. False: none is idle."""
        idle = self.idle
        if idle:
            self.discard(min(idle, key=lambda link: link.idle_since))
        return bool(idle)

    def forget_lost(self) -> None:
        """Count no longer what broke while nobody looked."""
        for link in [link for link in self._links.values() if not link.is_usable]:
            self._forget(link)

    async def close(self) -> None:
        """Hang up everything."""
        links = list(self._links.values())
        for link in links:
            self.discard(link)
        self._room.remove(self)
        for link in links:
            with suppress(Exception, asyncio.CancelledError):
                await link.connection.wait_closed()

    async def _link_to(self, destination: Destination, tell: Tell) -> Link:
        wait: Wait | None = None
        while True:
            link = self._links.get(destination)
            if link is not None and link.is_usable:
                if wait is not None:
                    self._room.look_again()
                return link
            if link is not None:
                self._forget(link)
            if self._make_room():
                return self._begin(destination)
            ahead, wait = wait is not None, wait or self._make_wait(destination, tell)
            await self._turn(destination, wait, ahead=ahead)

    def _begin(self, destination: Destination) -> Link:
        opening = asyncio.create_task(self._open_connection(destination), name=f"ssh login to {destination.host}")
        slots = Slots(self._settings.channels_per_connection, until_one_more=self._settings.channels_until_one_more)
        link = self._links[destination] = Link(destination, opening, slots)
        opening.add_done_callback(lambda _: self._settled(link))
        return link

    def _settled(self, link: Link) -> None:
        """Clean up when a login ended, well or not; perhaps nobody waits for it any more."""
        if not link.is_usable:
            self._forget(link)
        elif not link.leases:
            self._room.look_again()

    def _make_room(self) -> bool:
        if self.links >= self.limit:
            self.forget_lost()
        if self.links >= self.limit and not self.hang_up_idle():
            return False
        return self._room.make() or not self._links  # a pool without any would have nobody who wakes its waiters

    async def _turn(self, destination: Destination, wait: Wait, *, ahead: bool) -> None:
        """Wait for a turn to look for room; who looked in vain waits ahead of the others. Raises `NothingFree`."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if ahead:
            self._waiting.appendleft(turn)
        else:
            self._waiting.append(turn)
        try:
            came = await wait.wait_for(turn)
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._room.look_again()
            raise
        if not came:
            seconds = self._settings.longest_wait.total_seconds()
            raise NothingFree(destination.host, f"none of {self.links} SSH connections became free within {seconds:g} s")

    def _make_wait(self, destination: Destination, tell: Tell) -> Wait:
        """Make a wait for room. Its run is told of it, and the log of one in so many seconds."""

        def tell_of_wait() -> None:
            words = "waits for an SSH connection: as many are in use as max_ssh_sessions or the limit of file descriptors allows"
            tell(f"{words} ({self.links})")
            if self._clock() >= self._next_told_at:
                self._next_told_at = self._clock() + self._settings.long_wait.total_seconds()
                waiting = sum(not turn.done() for turn in self._waiting)
                log.warning(words, worker=destination.host, in_use=self.links, waiting=waiting)

        settings = self._settings
        return Wait(
            told_after=settings.long_wait, given_up_after=settings.longest_wait, tell=tell_of_wait, freed=lambda: self._freed
        )

    def wake_one(self) -> None:
        """Let the first who waits look for room."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return

    def _forget(self, link: Link) -> None:
        if self._links.get(link.destination) is link:
            del self._links[link.destination]
            self._room.look_again()
