"""A long-lived loop that ends by an exception is seen and begun again; one that cannot be, ends the process."""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest
from structlog.testing import capture_logs

from maand_wire.supervision import EndedByItself, RestartPauses, keep_running, until_asked_to_stop

QUICK = RestartPauses(first=timedelta(milliseconds=1), longest=timedelta(milliseconds=4))


class Loop:
    """A loop that meets one accident after the other, and then runs until it is cancelled."""

    def __init__(self, *accidents: BaseException) -> None:
        self.accidents = list(accidents)
        self.runs = asyncio.Event()
        self.was_cancelled = False

    async def __call__(self) -> None:
        if self.accidents:
            raise self.accidents.pop(0)
        self.runs.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.was_cancelled = True
            raise


async def end(task: "asyncio.Task[None]") -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_loop_that_ends_by_an_exception_is_logged_with_it_and_begins_again_after_a_growing_pause() -> None:
    loop = Loop(RuntimeError("one"), KeyError("two"), ExceptionGroup("three", [OSError("disk")]), RuntimeError("four"))
    with capture_logs() as logs:
        task = asyncio.create_task(keep_running("probe", loop, pauses=QUICK))
        await loop.runs.wait()
        await end(task)
    assert [line["pause_seconds"] for line in logs] == [0.001, 0.002, 0.004, 0.004]
    assert [repr(line["exc_info"]) for line in logs[:2]] == ["RuntimeError('one')", "KeyError('two')"]
    assert {(line["loop"], line["log_level"]) for line in logs} == {("probe", "error")}


async def test_a_cancelled_loop_ends_and_is_not_begun_again() -> None:
    loop = Loop()
    task = asyncio.create_task(keep_running("probe", loop, pauses=QUICK))
    await loop.runs.wait()
    with capture_logs() as logs:
        await end(task)
    assert loop.was_cancelled
    assert not logs


async def test_a_cancellation_that_nobody_asked_for_is_an_accident_like_any_other() -> None:
    loop = Loop(asyncio.CancelledError())
    task = asyncio.create_task(keep_running("probe", loop, pauses=QUICK))
    await loop.runs.wait()
    await end(task)


async def test_a_loop_may_be_ended_while_it_waits_to_begin_again() -> None:
    failed = asyncio.Event()

    async def fail() -> None:
        failed.set()
        raise RuntimeError

    task = asyncio.create_task(keep_running("probe", fail, pauses=RestartPauses(first=timedelta(hours=1))))
    with capture_logs() as logs:
        await failed.wait()
        await end(task)
    assert len(logs) == 1


async def test_a_loop_that_returns_is_over() -> None:
    async def nothing() -> None:
        return

    await keep_running("probe", nothing)


def test_pauses_double_up_to_the_longest_and_begin_anew_after_a_quiet_while() -> None:
    pauses, short, quiet = RestartPauses(), timedelta(seconds=2), timedelta(minutes=2)
    assert pauses.after(None, lasted=short) == timedelta(seconds=1)
    assert pauses.after(timedelta(seconds=1), lasted=short) == timedelta(seconds=2)
    assert pauses.after(timedelta(seconds=16), lasted=short) == timedelta(seconds=30)
    assert pauses.after(timedelta(seconds=30), lasted=short) == timedelta(seconds=30)
    assert pauses.after(timedelta(seconds=30), lasted=quiet) == timedelta(seconds=1)


async def breaks() -> None:
    raise RuntimeError("the server broke")


async def returns() -> None:
    return


async def is_cancelled() -> None:
    raise asyncio.CancelledError


@pytest.mark.parametrize("part", [breaks, returns, is_cancelled])
async def test_a_part_that_lasts_as_long_as_the_process_ends_the_wait_by_an_error(part: Callable[[], Awaitable[None]]) -> None:
    lasting = asyncio.ensure_future(part())
    assert isinstance(lasting, asyncio.Task)
    lasting.set_name("the server")
    with pytest.raises(EndedByItself, match="the server ended by itself") as raised:
        await until_asked_to_stop(lasting)
    assert isinstance(raised.value.__cause__, RuntimeError) == (part is breaks)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_the_wait_while_all_parts_last(number: signal.Signals) -> None:
    lasting = asyncio.create_task(asyncio.Event().wait())
    waiting = asyncio.create_task(until_asked_to_stop(lasting))  # type: ignore[arg-type]  # what it returns does not matter
    await asyncio.sleep(0)
    os.kill(os.getpid(), number)
    await waiting
    assert not lasting.done()
    lasting.cancel()
