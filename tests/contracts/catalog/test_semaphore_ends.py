"""No slot leaks: invocations, runs, waiting rooms and catalogs end, and what they held or waited for is free."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from maand_catalog.errors import Unauthenticated, Unavailable
from maand_catalog.rules.runs import RunState
from maand_catalog.rules.semaphores import LEFT_KEPT, ROOM_LEASE
from maand_catalog.serving.semaphore_waiters import SemaphoreWaiters
from maand_catalog.store.semaphores import slots as store
from tests.contracts.catalog.conftest import ShiftedClock
from tests.contracts.catalog.semaphore_builders import Hooks, change_run
from tests.contracts.catalog.semaphore_verbs import LONG, in_line, release, status, take_place

ENDED: dict[str, dict[str, object]] = {
    "lease": {"lease_until": datetime(2000, 1, 1, tzinfo=UTC)},
    "fence": {"fence": 2},
    "state": {"state": RunState.FAILED, "lease_until": None},
}


async def test_an_invocation_that_ended_is_granted_nothing(hooks: Hooks, room: SemaphoreWaiters) -> None:
    one, two = await hooks.begin(2)
    await room.acquire(hooks.ask(one), LONG)
    [waiter] = await in_line(hooks, room, [two])

    await hooks.end(two)

    async with asyncio.timeout(10):
        with pytest.raises(Unauthenticated):
            await waiter
    with pytest.raises(Unauthenticated):
        await room.acquire(hooks.ask(two, name="other"), LONG)
    assert (await status(hooks, "other")).claims == ()


async def test_the_end_of_an_invocation_frees_all_it_held_or_waited_for(hooks: Hooks, room: SemaphoreWaiters) -> None:
    one, two, three = await hooks.begin(3)
    for name in ("ddl", "other"):
        await room.acquire(hooks.ask(one, name=name), LONG)
    _, next_one = await in_line(hooks, room, [two, three])

    await hooks.end(one, two)

    await next_one
    assert (await status(hooks, "other")).holders == ()


@pytest.mark.parametrize("how", ["lease", "fence", "state"])
async def test_the_slots_of_a_run_that_lost_its_executor_are_free(hooks: Hooks, room: SemaphoreWaiters, how: str) -> None:
    [one] = await hooks.begin(1)
    others = await Hooks.of_a_new_run(hooks.database, hooks.bucket_id)
    [two] = await others.begin(1)
    await room.acquire(hooks.ask(one), LONG)
    [waiter] = await in_line(hooks, room, [two])

    await change_run(hooks.database, hooks.run_id, **ENDED[how])

    async with asyncio.timeout(10):
        await waiter
    assert [claim.invocation_id for claim in (await status(hooks)).holders] == [two]


async def test_whoever_waits_behind_a_long_line_of_the_dead_is_served(hooks: Hooks) -> None:
    first, *line = await hooks.begin(60)
    others = await Hooks.of_a_new_run(hooks.database, hooks.bucket_id)
    [last] = await others.begin(1)
    await hooks.database.write(lambda tx: store.renew_room(tx, "room"))
    for invocation in (first, *line):
        await take_place(hooks, invocation)
    assert await take_place(others, last) is None
    assert len((await status(hooks)).waiters) == 60

    await change_run(hooks.database, hooks.run_id, **ENDED["lease"])
    held = await take_place(others, last)

    assert held is not None
    assert held.fencing_token == 61
    assert [claim.invocation_id for claim in (await status(hooks)).claims] == [last]


async def test_the_waiters_of_a_catalog_that_died_vanish(hooks: Hooks, room: SemaphoreWaiters, clock: ShiftedClock) -> None:
    one, two, three = await hooks.begin(3)
    await room.acquire(hooks.ask(one), LONG)
    await a_waiter_of_a_dead_catalog(hooks, two)
    [waiter] = await in_line(hooks, room, [three])

    clock.advance(ROOM_LEASE)
    await room.acquire(hooks.ask(one), LONG)
    await release(hooks, one)

    async with asyncio.timeout(10):
        await waiter
    assert [claim.invocation_id for claim in (await status(hooks)).holders] == [three]


async def test_a_slot_granted_to_a_waiter_of_a_dead_catalog_passes_on(
    hooks: Hooks, room: SemaphoreWaiters, clock: ShiftedClock
) -> None:
    one, two, three = await hooks.begin(3)
    await room.acquire(hooks.ask(one), LONG)
    await a_waiter_of_a_dead_catalog(hooks, two)
    [waiter] = await in_line(hooks, room, [three])
    await release(hooks, one)
    assert [claim.invocation_id for claim in (await status(hooks)).holders] == [two]

    clock.advance(ROOM_LEASE)

    async with asyncio.timeout(10):
        await waiter
    assert [claim.invocation_id for claim in (await status(hooks)).holders] == [three]


async def test_a_room_that_was_frozen_asks_for_its_places_again(
    hooks: Hooks, room: SemaphoreWaiters, clock: ShiftedClock
) -> None:
    one, two = await hooks.begin(2)
    await room.acquire(hooks.ask(one), LONG)
    [waiter] = await in_line(hooks, room, [two])

    clock.advance(ROOM_LEASE + LEFT_KEPT)
    await release(hooks, one)

    async with asyncio.timeout(10):
        await waiter


async def test_a_closing_room_lets_its_waiters_go(hooks: Hooks, room: SemaphoreWaiters) -> None:
    one, two = await hooks.begin(2)
    await room.acquire(hooks.ask(one), LONG)
    closing = SemaphoreWaiters(hooks.database)
    [waiter] = await in_line(hooks, closing, [two])

    await closing.close()

    with pytest.raises(Unavailable):
        await waiter
    assert (await status(hooks)).waiters == ()


async def a_waiter_of_a_dead_catalog(hooks: Hooks, invocation: str) -> None:
    """Leave a waiter in line as a killed process does: nobody renews its room, nobody takes it out."""
    await hooks.database.write(lambda tx: store.renew_room(tx, "dead room"))
    ask = replace(hooks.ask(invocation), request_id="q", call_id="dead call", room_id="dead room")
    assert await hooks.database.write(lambda tx: store.take_place(tx, ask)) is None
