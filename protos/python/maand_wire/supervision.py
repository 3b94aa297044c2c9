"""Keeping a service at work until it is asked to stop: a loop that ends by an exception is logged and begun again after a pause.

    loop runs ──exception──▶ logged ──▶ pause: 1 s, 2 s, 4 s … 30 s ──▶ loop runs …      (1 s again after a quiet minute)
        │ cancelled, or returned
        ▼
      over

A task that nobody awaits would keep its exception to itself: the process would go on, healthy to look at, without the work that
the loop did. So whatever a service does for as long as it lives runs below `keep_running`, or ends the process when it ends
(`until_asked_to_stop`).
"""

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta

import structlog

log = structlog.get_logger("maand.wire.supervision")


@dataclass(frozen=True, kw_only=True)
class RestartPauses:
    """How long to wait before a loop is begun again: twice as long after each exception, anew after a quiet while."""

    first: timedelta = timedelta(seconds=1)
    longest: timedelta = timedelta(seconds=30)
    forgotten_after: timedelta = timedelta(minutes=1)

    def after(self, pause: timedelta | None, *, lasted: timedelta) -> timedelta:
        """Return the pause that follows the last `pause` (None: there was none), when the loop `lasted` that long."""
        if pause is None or lasted >= self.forgotten_after:
            return self.first
        return min(pause * 2, self.longest)


PAUSES = RestartPauses()


async def keep_running(name: str, loop: Callable[[], Awaitable[None]], *, pauses: RestartPauses = PAUSES) -> None:
    """Run a loop until it returns or this task is cancelled; begin it again whenever it ends by an exception.

    What the loop owns must bear that: it is called anew, whatever it was doing. A cancellation that this task was not asked for
    (a library that cancels its own call) is an accident like any other.
    """
    pause: timedelta | None = None
    while True:
        began = time.monotonic()
        try:
            return await loop()
        except asyncio.CancelledError as stray:
            if is_being_cancelled():
                raise
            error: BaseException = stray
        except Exception as accident:  # noqa: BLE001 - logged just below, with its traceback
            error = accident
        pause = pauses.after(pause, lasted=timedelta(seconds=time.monotonic() - began))
        log.error("loop ended by an exception, begins again", loop=name, pause_seconds=pause.total_seconds(), exc_info=error)
        del error  # its traceback holds the loop's frames
        await asyncio.sleep(pause.total_seconds())


def is_being_cancelled() -> bool:
    """Tell whether somebody asked the task that runs now to end."""
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0


class EndedByItself(Exception):
    """A part of the service that lasts as long as the process ended without being asked to. Start the service again."""


async def until_asked_to_stop(*lasting: asyncio.Task[None]) -> None:
    """Return at the first SIGTERM or SIGINT.

    Raises when one of the tasks that are to last ends before: its own exception, or `EndedByItself`. The caller stops what else
    runs and ends the process with an error; whoever started it, starts it again.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    asked = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({asked, *lasting}, return_when=asyncio.FIRST_COMPLETED)
        if not asked.done():
            raise_what_ended(lasting)
    finally:
        asked.cancel()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


def raise_what_ended(lasting: tuple[asyncio.Task[None], ...]) -> None:
    """Raise why the first task that is over is over."""
    ended = next(task for task in lasting if task.done())
    raise EndedByItself(f"{ended.get_name()} ended by itself") from (None if ended.cancelled() else ended.exception())
