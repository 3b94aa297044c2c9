"""The bus: nothing that is said between a look and the next wait is missed."""

import asyncio
from datetime import timedelta

import pytest

from maand_catalog.database.bus import Bus
from maand_catalog.errors import Unavailable

LONG, SHORT = timedelta(seconds=20), timedelta(milliseconds=20)


async def seconds(waiting: asyncio.Future[None] | asyncio.Task[None]) -> float:
    loop = asyncio.get_running_loop()
    before = loop.time()
    await waiting
    return loop.time() - before


async def test_what_was_said_before_the_wait_ends_it_at_once() -> None:
    bus = Bus()
    with bus.subscribe("a") as subscription:
        bus.deliver(["a"])
        assert await seconds(asyncio.ensure_future(subscription.wait(LONG))) < 1


async def test_everybody_on_a_topic_is_woken_and_nobody_else() -> None:
    bus = Bus()
    with bus.subscribe("a") as one, bus.subscribe("a") as two, bus.subscribe("b") as other:
        waits = [asyncio.create_task(each.wait(LONG)) for each in (one, two)]
        waiting = asyncio.create_task(other.wait(LONG))
        await asyncio.sleep(0)
        bus.deliver(["a", "nobody"])
        await asyncio.gather(*waits)
        assert not waiting.done()
        waiting.cancel()


async def test_one_message_wakes_once() -> None:
    bus = Bus()
    with bus.subscribe("a") as subscription:
        bus.deliver(["a", "a"])
        await subscription.wait(LONG)
        assert await seconds(asyncio.ensure_future(subscription.wait(SHORT))) >= 0.01


async def test_where_messages_may_be_lost_a_wait_is_never_long() -> None:
    bus = Bus(re_read_after=SHORT)
    with bus.subscribe("a") as subscription:
        assert await seconds(asyncio.ensure_future(subscription.wait(LONG))) < 5


async def test_after_a_gap_everybody_looks_again() -> None:
    bus = Bus()
    with bus.subscribe("a") as one, bus.subscribe("b") as two:
        bus.deliver_all()
        await asyncio.gather(one.wait(LONG), two.wait(LONG))


async def test_a_closed_bus_lets_nobody_wait() -> None:
    bus = Bus()
    with bus.subscribe("a") as subscription:
        waiting = asyncio.create_task(subscription.wait(LONG))
        await asyncio.sleep(0)
        bus.close()
        with pytest.raises(Unavailable):
            await waiting
        with pytest.raises(Unavailable):
            await subscription.wait(LONG)


async def test_who_left_is_forgotten() -> None:
    bus = Bus()
    with bus.subscribe("a"), bus.subscribe("a"):
        pass
    assert not bus._subscriptions
