"""Brakes that keep a crowd of workers, one worker, or this machine from being overrun: logins, channels, copies.

Logins per second, channels per connection, copies at once. Logins under way at once are bounded besides, in `connect`.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta

from maand_executor.rules.side_by_side import end_tasks
from maand_executor.ssh.waits import Wait


class StartPace:
    """Spaces starts: a burst of one second's worth at once, then so many per second, in the order asked.

    It keeps one number, the time at which the bucket of tokens would be full again; nothing runs in the background.
    """

    def __init__(self, per_second: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._interval = 1.0 / max(1, per_second)
        self._burst_seconds = 1.0
        self._clock = clock
        self._full_at = clock()

    def reserve(self) -> float:
        """Take the next start and return how many seconds to wait for it."""
        now = self._clock()
        self._full_at = max(self._full_at, now) + self._interval
        return max(0.0, self._full_at - self._burst_seconds - now)

    async def wait(self) -> None:
        """Return when the next start is due."""
        delay = self.reserve()
        if delay > 0:
            await asyncio.sleep(delay)


class Slots:
    """Places for channels on one connection: first come, first served; fewer once the server refused one, and slowly more again.

    A refusal may be chance: sshd counts a session that ended until it read that we closed it. So after `until_one_more` channels
    that the server opened in a row, one more place is tried, up to the first limit; a server that really allows fewer refuses one
    channel in so many.
    """

    def __init__(self, limit: int, *, until_one_more: int = 100) -> None:
        self.limit = limit
        self.used = 0
        self._most = limit
        self._until_one_more = until_one_more
        self.freed = 0
        """How often a place became free."""
        self._opened_in_a_row = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def take(self, *, again: bool = False, wait: Wait | None = None) -> bool:
        """Return when a place is free, and hold it; False when the `wait` for it was given up.

        `again`, after a refusal: before those who wait.
        """
        if self.used < self.limit and (again or not self._waiting):
            self.used += 1
            return True
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if again:
            self._waiting.appendleft(place)
        else:
            self._waiting.append(place)
        came = False
        try:
            if wait is None:
                await place
            came = wait is None or await wait.wait_for(place)
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():
                self.give_back()
            raise
        finally:
            if not came and place in self._waiting:
                self._waiting.remove(place)
        return came

    def give_back(self) -> None:
        """Let go of a place."""
        self.used -= 1
        self.freed += 1
        self.hand_out()

    def learn_from_opening(self) -> None:
        """Note that the server opened a channel; every so many, one more at once is tried."""
        if self.limit == self._most:
            return
        self._opened_in_a_row += 1
        if self._opened_in_a_row >= self._until_one_more:
            self._opened_in_a_row = 0
            self.limit += 1
            self.hand_out()

    def learn_from_refusal(self) -> bool:
        """Give back the place of a refused channel and ask for no more than are open now. False: none is, so none will be.

        The place is handed to nobody: whoever was refused takes one `again` after a pause, or calls `hand_out` when it does not.
        """
        self.used -= 1
        self._opened_in_a_row = 0
        others = self.used
        # The server had this many open when it refused one more, so it allows no more than these. Of several refusals the least
        # counts. One place always stays: with none, nobody would ever find out that the server allows channels again.
        self.limit = max(1, min(self.limit, others))
        return others > 0

    def hand_out(self) -> None:
        """Let those who wait have what is free."""
        while self._waiting and self.used < self.limit:
            place = self._waiting.popleft()
            if not place.done():
                self.used += 1
                place.set_result(None)


class CopyPlaces:
    """Places for copies, first come, first served.

    A place is for reading files and sending them. A copy in which nothing moves for the time of `stall` does neither, so it gives
    its place to the next and goes on without one: workers that hang hold up nobody else's copies.
    """

    def __init__(self, count: int, *, stall: timedelta) -> None:
        self._free = asyncio.Semaphore(count)
        self._stall = stall

    @asynccontextmanager
    async def take(self, moved: Callable[[], int]) -> AsyncIterator[None]:
        """Hold a place for as long as the block runs and bytes move; `moved` tells how many did."""
        await self._free.acquire()
        stalling = asyncio.create_task(self._until_stalled(moved))
        stalling.add_done_callback(lambda _: self._free.release())
        try:
            yield
        finally:
            await end_tasks(stalling)

    async def _until_stalled(self, moved: Callable[[], int]) -> None:
        before = -1
        while (now := moved()) != before:
            before = now
            await asyncio.sleep(self._stall.total_seconds())
