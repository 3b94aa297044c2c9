"""The brakes: starts per second, places per connection, places for copies."""

import asyncio
from collections.abc import Callable
from datetime import timedelta

import pytest

from maand_executor.ssh.pacing import CopyPlaces, Slots, StartPace
from tests.waiting import until


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_one_seconds_worth_starts_at_once_and_the_rest_at_the_rate() -> None:
    pace = StartPace(10, clock=Clock())

    delays = [round(pace.reserve(), 6) for _ in range(13)]

    assert delays == [*[0.0] * 10, 0.1, 0.2, 0.3]


def test_what_was_not_used_is_saved_up_to_one_second() -> None:
    clock = Clock()
    pace = StartPace(10, clock=clock)
    for _ in range(20):
        pace.reserve()
    clock.now += 60

    assert [pace.reserve() for _ in range(10)] == [0.0] * 10
    assert pace.reserve() == pytest.approx(0.1)


async def test_places_are_handed_out_in_the_order_asked() -> None:
    slots = Slots(2)
    order: list[int] = []

    async def work(number: int) -> None:
        await slots.take()
        order.append(number)
        await asyncio.sleep(0)
        slots.give_back()

    await asyncio.gather(*(work(number) for number in range(6)))

    assert order == list(range(6))
    assert slots.used == 0


async def test_giving_up_a_wait_leaves_no_place_taken() -> None:
    slots = Slots(1)
    await slots.take()
    waiting = asyncio.create_task(slots.take())
    served = asyncio.create_task(slots.take())
    await asyncio.sleep(0)

    waiting.cancel()
    slots.give_back()
    await asyncio.wait_for(served, 60)

    assert slots.used == 1


async def test_giving_up_in_the_moment_of_being_served_passes_the_place_on() -> None:
    slots = Slots(1)
    await slots.take()
    unlucky = asyncio.create_task(slots.take())
    next_one = asyncio.create_task(slots.take())
    await asyncio.sleep(0)

    slots.give_back()
    unlucky.cancel()
    await asyncio.wait_for(next_one, 60)

    assert slots.used == 1


async def test_a_refusal_lowers_the_limit_to_what_is_open() -> None:
    slots = Slots(8)
    for _ in range(5):
        await slots.take()

    assert slots.learn_from_refusal()
    assert (slots.limit, slots.used) == (4, 4)


async def test_a_refusal_with_nothing_open_teaches_that_one_is_the_least() -> None:
    slots = Slots(8)
    await slots.take()

    assert not slots.learn_from_refusal()
    assert (slots.limit, slots.used) == (1, 0)


async def test_who_was_refused_goes_before_those_who_wait_and_holds_nobody_up() -> None:
    slots = Slots(8)
    await slots.take()
    slots.limit = 1
    waiting = asyncio.create_task(slots.take())
    await asyncio.sleep(0)

    assert not slots.learn_from_refusal()
    await asyncio.wait_for(slots.take(again=True), 60)
    slots.give_back()

    await asyncio.wait_for(waiting, 60)


async def test_who_was_refused_and_gives_up_leaves_the_place_to_those_who_wait() -> None:
    slots = Slots(1)
    await slots.take()
    waiting = asyncio.create_task(slots.take())
    await asyncio.sleep(0)

    assert not slots.learn_from_refusal()
    slots.hand_out()

    await asyncio.wait_for(waiting, 60)


async def test_a_refusal_that_was_chance_is_made_up_for_slowly() -> None:
    slots = Slots(8, until_one_more=10)
    for _ in range(8):
        await slots.take()
    slots.learn_from_refusal()
    assert slots.limit == 7

    for _ in range(9):
        slots.learn_from_opening()
    assert slots.limit == 7
    slots.learn_from_opening()
    assert slots.limit == 8
    for _ in range(100):
        slots.learn_from_opening()
    assert slots.limit == 8, "never more than at first"


async def test_channels_that_open_after_a_refusal_are_counted_anew() -> None:
    slots = Slots(8, until_one_more=10)
    for _ in range(4):
        await slots.take()
    slots.learn_from_refusal()
    for _ in range(9):
        slots.learn_from_opening()
    await slots.take(again=True) if slots.used < slots.limit else None
    slots.learn_from_refusal()
    limit = slots.limit

    for _ in range(9):
        slots.learn_from_opening()

    assert slots.limit == limit


async def test_one_place_more_goes_to_the_first_who_waits() -> None:
    slots = Slots(2, until_one_more=1)
    await slots.take()
    await slots.take()
    slots.learn_from_refusal()
    waiting = asyncio.create_task(slots.take())
    await asyncio.sleep(0)
    assert not waiting.done()

    slots.learn_from_opening()
    await asyncio.wait_for(waiting, 60)

    assert (slots.used, slots.limit) == (2, 2)


async def hold(places: CopyPlaces, moved: Callable[[], int], has_place: list[str], name: str) -> None:
    async with places.take(moved):
        has_place.append(name)
        await asyncio.Event().wait()


async def test_a_copy_in_which_nothing_moves_gives_its_place_to_the_next() -> None:
    places = CopyPlaces(1, stall=timedelta(seconds=0.01))
    has_place: list[str] = []
    moving = iter(range(1_000_000))

    async with asyncio.TaskGroup() as group:
        copies = [
            group.create_task(hold(places, moved, has_place, name))
            for name, moved in (("hangs", lambda: 0), ("moves", lambda: next(moving)), ("waits", lambda: 0))
        ]
        await until(lambda: len(has_place) == 2)
        for _ in range(10):
            await asyncio.sleep(0.01)  # ten times the patience
        assert has_place == ["hangs", "moves"]
        copies[1].cancel()
        await until(lambda: len(has_place) == 3)
        for copy in copies:
            copy.cancel()


async def test_a_place_is_given_back_once_however_the_copy_ends() -> None:
    places = CopyPlaces(1, stall=timedelta(seconds=0.01))
    for _ in range(3):
        async with places.take(lambda: 0):
            await asyncio.sleep(0.03)
        async with places.take(lambda: 0):
            pass
    await asyncio.sleep(0)

    assert places._free._value == 1
