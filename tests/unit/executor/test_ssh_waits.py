"""Waits that are long: told once, given up only while nothing becomes free."""

import asyncio
from datetime import timedelta

from maand_executor.ssh.pacing import Slots
from maand_executor.ssh.waits import Wait
from tests.waiting import until

NEVER = timedelta(days=1)
SOON = timedelta(seconds=0.02)


def make_wait(told: list[str], *, slots: Slots, told_after: timedelta = NEVER, given_up_after: timedelta = NEVER) -> Wait:
    return Wait(
        told_after=told_after, given_up_after=given_up_after, tell=lambda: told.append("waits"), freed=lambda: slots.freed
    )


async def test_a_place_that_comes_soon_is_told_to_nobody() -> None:
    told: list[str] = []
    slots = Slots(1)
    await slots.take()
    waiting = asyncio.create_task(slots.take(wait=make_wait(told, slots=slots)))
    await asyncio.sleep(0)
    slots.give_back()

    assert await waiting
    assert told == []


async def test_a_wait_goes_on_while_places_become_free_and_ends_when_none_does() -> None:
    told: list[str] = []
    slots = Slots(1)
    await slots.take()
    looks = 0
    others_are_served = True

    def freed() -> int:
        nonlocal looks
        looks += 1
        return looks if others_are_served else 0

    wait = Wait(told_after=SOON, given_up_after=SOON, tell=lambda: told.append("waits"), freed=freed)
    waiting = asyncio.create_task(slots.take(wait=wait))
    await until(lambda: looks > 10)
    assert not waiting.done()
    others_are_served = False

    assert not await waiting
    assert told == ["waits"]


async def test_who_gives_up_or_is_cancelled_leaves_the_place_to_the_next() -> None:
    slots = Slots(1)
    await slots.take()
    given_up = asyncio.create_task(slots.take(wait=make_wait([], slots=slots, given_up_after=SOON)))
    cancelled = asyncio.create_task(slots.take(wait=make_wait([], slots=slots)))
    assert not await given_up
    cancelled.cancel()
    await asyncio.wait([cancelled])
    slots.give_back()

    assert await asyncio.wait_for(slots.take(), 60)
    assert slots.used == 1
