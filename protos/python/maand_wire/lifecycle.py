"""Running a service process until somebody asks it to stop."""

import asyncio
import signal


class EndedByItself(Exception):
    """A part of the service that lasts as long as the process ended without being asked to. Start the service again."""


async def until_asked_to_stop(*lasting: "asyncio.Task[None]") -> None:
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


def raise_what_ended(lasting: "tuple[asyncio.Task[None], ...]") -> None:
    """Raise why the first task that is over is over."""
    ended = next(task for task in lasting if task.done())
    raise EndedByItself(f"{ended.get_name()} ended by itself") from (None if ended.cancelled() else ended.exception())
