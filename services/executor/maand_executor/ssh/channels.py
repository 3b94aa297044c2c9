"""Channels on pooled connections: who waits for one, what a refusal means, and when a fresh connection is tried.

Opening a channel starts nothing that matters (see `execution`), so it may be tried again; what runs on it may not.
Whoever gives up while a channel is being opened leaves it to be closed as soon as it arrives.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Protocol, TypeVar

import asyncssh

from maand_executor.rules.meter import Meter
from maand_executor.ssh.connect import Destination
from maand_executor.ssh.errors import ConnectionUnusable, NothingFree
from maand_executor.ssh.execution import Tell, tell_nobody
from maand_executor.ssh.pool import Link, Pool
from maand_executor.ssh.settings import SshSettings
from maand_executor.ssh.waits import Wait


class ClosableSession(Protocol):
    """What is opened on a channel."""

    def close(self) -> None:
        """Let go of the channel."""


Session = TypeVar("Session", bound=ClosableSession)
Start = Callable[[asyncssh.SSHClientConnection], Coroutine[Any, Any, Session]]
"""Asks a connection for a channel."""


class Channels:
    """Opens channels within the limits of each connection."""

    def __init__(self, pool: Pool, settings: SshSettings, meter: Meter) -> None:
        self._meter = meter
        self._pool = pool
        self._settings = settings
        self._abandoned: set[asyncio.Task[Any]] = set()

    @asynccontextmanager
    async def open(self, destination: Destination, start: Start[Session], tell: Tell = tell_nobody) -> AsyncIterator[Session]:
        """Give a channel on the shared connection; when that turns out dead, on a fresh one. A long wait is told.

        Raises what logging in raises, and `NothingFree`.
        """
        for last_try in (False, True):
            async with self._pool.lease(destination, tell) as link:
                try:
                    session = await self._start_on(link, start, tell)
                except ConnectionUnusable:
                    if last_try:
                        raise
                    continue
                try:
                    yield session
                finally:
                    link.slots.give_back()
                return

    async def _start_on(self, link: Link, start: Start[Session], tell: Tell) -> Session:
        """Open a channel as soon as there is a place for it; a refusal teaches how many places there are."""
        host, refusals = link.destination.host, 0
        wait = Wait(
            told_after=self._settings.long_wait,
            given_up_after=self._settings.longest_wait,
            tell=lambda: tell(f"waits for its turn on {host}: {link.slots.used} commands and copies are under way there"),
            freed=lambda: link.slots.freed,
        )
        while True:
            asked = time.monotonic()
            if not await link.slots.take(again=refusals > 0, wait=wait):
                seconds = self._settings.longest_wait.total_seconds()
                words = f"none of the {link.slots.used} commands and copies under way there ended within {seconds:g} s"
                raise NothingFree(host, words)
            self._meter.ssh_waited("channel", time.monotonic() - asked)
            opening = asyncio.create_task(start(link.connection), name=f"ssh channel to {host}")
            try:
                session = await self._try(link, opening)
            except Refused as refused:
                refusals += 1
                others = link.slots.learn_from_refusal()
                await self._pause(link, refused, refusals=refusals, others=others)
            except BaseException:
                self._abandon(link, opening)
                raise
            else:
                link.slots.learn_from_opening()
                return session

    def _abandon(self, link: Link, opening: asyncio.Task[Session]) -> None:
        """Close the channel when it arrives; until then it has its place, as it has one on the server."""

        def close(_: object) -> None:
            self._abandoned.discard(opening)
            if not opening.cancelled() and opening.exception() is None:
                opening.result().close()
            link.slots.give_back()

        self._abandoned.add(opening)
        opening.add_done_callback(close)

    async def _pause(self, link: Link, refused: "Refused", *, refusals: int, others: bool) -> None:
        """Wait before the next try; whoever gives up leaves the place to those who wait. Raises `ConnectionUnusable`."""
        if not others and refusals > self._settings.lone_refusals:
            self._pool.discard(link)  # we hold no channel there, so nothing is lost: a fresh connection may be allowed one
            link.slots.hand_out()
            raise ConnectionUnusable(link.destination.host, f"its SSH server refuses to run anything: {refused}") from refused
        try:
            await asyncio.sleep(self._settings.refusal_pause.total_seconds() * refusals)
        except asyncio.CancelledError:
            link.slots.hand_out()
            raise

    async def _try(self, link: Link, opening: asyncio.Task[Session]) -> Session:
        """Wait for a channel. One that is given up is opened all the same: cancelling it would leave it open on the server."""
        host = link.destination.host
        try:
            async with asyncio.timeout(self._settings.channel_timeout.total_seconds()):
                return await asyncio.shield(opening)
        except asyncssh.ChannelOpenError as error:
            if link.is_usable:
                raise Refused(error.reason) from error
            raise ConnectionUnusable(host, "the connection was lost") from error
        except (TimeoutError, OSError, asyncssh.Error) as error:
            if link.slots.used == 1:  # nobody else's channel is on it: others may well get answers on theirs
                self._pool.discard(link)
            raise ConnectionUnusable(host, f"its SSH server does not answer: {str(error) or 'too late'}") from error


class Refused(Exception):
    """The server did not open the channel. Tried again when another one is closed; seen by nobody."""
