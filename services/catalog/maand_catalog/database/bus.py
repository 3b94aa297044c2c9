"""Who wakes whom: a change notifies a topic, whoever waits for that topic looks again.

A wake-up carries no data: it means "read your row again". So a spurious one costs a read, and a lost one (only possible
between PostgreSQL replicas) costs until the next re-read, never a hang.

    subscription registered  ->  row read  ->  wait  ->  woken, or time to re-read  ->  row read …

Replicas tell one another through PostgreSQL: one channel, and the topic as its payload. Who listens is `listener`.
"""

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta

from maand_catalog.database.failures import catalog_stops

RE_READ_AFTER = timedelta(seconds=1)
"""Longest wait without a look at the row when notifications may be lost."""


class Subscription:
    """One waiter's interest in a topic. Register first, read the row, then wait: nothing is missed in between."""

    def __init__(self, bus: "Bus", longest_wait: timedelta | None) -> None:
        self._bus = bus
        self._woken = asyncio.Event()
        self._longest_wait = longest_wait

    def wake(self) -> None:
        """Let the waiter look again, now or when it next waits."""
        self._woken.set()

    async def wait(self, timeout: timedelta) -> None:  # noqa: ASYNC109 - a wait for at most this long that never raises
        """Return when the topic was notified since the last wait, after `timeout`, or when it is time to re-read.

        Raises `Unavailable` once the bus is closed: nobody waits in a process that stops.
        """
        self._bus.check_open()
        limit = timeout if self._longest_wait is None else min(timeout, self._longest_wait)
        try:
            async with asyncio.timeout(max(limit.total_seconds(), 0)):
                await self._woken.wait()
        except TimeoutError:
            pass
        self._woken.clear()
        self._bus.check_open()


class Bus:
    """Subscriptions of one process by topic. All methods belong to the event loop's thread."""

    def __init__(self, *, re_read_after: timedelta | None = None) -> None:
        self._subscriptions: dict[str, set[Subscription]] = defaultdict(set)
        self._re_read_after = re_read_after
        self._is_closed = False

    @contextmanager
    def subscribe(self, topic: str) -> Iterator[Subscription]:
        """Register interest in a topic for as long as the block runs."""
        subscription = Subscription(self, self._re_read_after)
        self._subscriptions[topic].add(subscription)
        try:
            yield subscription
        finally:
            self._subscriptions[topic].discard(subscription)
            if not self._subscriptions[topic]:
                del self._subscriptions[topic]

    def deliver(self, topics: Iterable[str]) -> None:
        """Wake everyone who subscribed to one of these topics."""
        for topic in topics:
            for subscription in self._subscriptions.get(topic, ()):
                subscription.wake()

    def deliver_all(self) -> None:
        """Wake everyone: notifications may have been lost."""
        self.deliver(list(self._subscriptions))

    def close(self) -> None:
        """End every wait, now and from now on: the process stops."""
        self._is_closed = True
        self.deliver_all()

    def check_open(self) -> None:
        """Raise `Unavailable` once the bus is closed."""
        if self._is_closed:
            raise catalog_stops()


CHANNEL = "maand"


def notification_payload(replica: str, topic: str) -> str:
    """Return the text of a notification: who says it, and the topic."""
    return f"{replica} {topic}"
