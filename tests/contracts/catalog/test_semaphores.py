"""Semaphores on both databases: first come, first served; bound to the invocation; fenced; never leaked."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from maand_catalog.errors import FailedPrecondition, NotFound, Unauthenticated, Unavailable
from maand_catalog.runs import RunState
from maand_catalog.semaphores import (
    LEFT_KEPT,
    ROOM_LEASE,
    Claim,
    Semaphore,
    SemaphoreCapacity,
    SemaphoreNotHeld,
    SemaphoreTimeout,
)
from maand_catalog.store import semaphores as store
from maand_catalog.store.database import Database
from maand_catalog.store.semaphores import Granted
from maand_catalog.waiting_room import WaitingRoom
from tests.contracts.catalog.conftest import OpenReplica, ShiftedClock
from tests.contracts.catalog.run_builders import a_bucket
from tests.contracts.catalog.semaphore_builders import Hooks, change_run

LONG = timedelta(seconds=60)
SOON = timedelta(milliseconds=200)
ENDED: dict[str, dict[str, object]] = {
    "lease": {"lease_until": datetime(2000, 1, 1, tzinfo=UTC)},
    "fence": {"fence": 2},
    "state": {"state": RunState.FAILED, "lease_until": None},
}


@pytest.fixture
async def hooks(database: Database) -> Hooks:
    return await Hooks.of_a_new_run(database, await a_bucket(database))


@pytest.fixture
async def room(database: Database) -> AsyncIterator[WaitingRoom]:
    room = WaitingRoom(database)
    yield room
    await room.close()


async def status(hooks: Hooks, name: str = "ddl") -> Semaphore:
    return await hooks.database.read(lambda tx: store.get_semaphore(tx, hooks.scope(name)))


async def release(hooks: Hooks, invocation: str) -> None:
    await hooks.database.write(lambda tx: store.release(tx, hooks.scope(), invocation))


async def waiting(hooks: Hooks, count: int) -> None:
    """Return once so many wait in line."""
    async with asyncio.timeout(20):
        while len((await status(hooks)).waiters) != count:  # noqa: ASYNC110 - what is waited for is in the database
            await asyncio.sleep(0.01)


async def in_line(hooks: Hooks, room: WaitingRoom, invocations: list[str], **more: object) -> list[asyncio.Task[Granted]]:
    """Let them ask one after another, and return when all are in line."""
    already = len((await status(hooks)).waiters)
    tasks = []
    for number, invocation in enumerate(invocations, start=1):
        tasks.append(asyncio.create_task(room.acquire(hooks.ask(invocation, **more), LONG)))  # type: ignore[arg-type]
        await waiting(hooks, already + number)
    return tasks


async def test_a_semaphore_never_used_is_free(hooks: Hooks) -> None:
    semaphore = await status(hooks)

    assert (semaphore.capacity, semaphore.available, semaphore.holders, semaphore.waiters) == (1, 1, (), ())


async def test_a_free_slot_is_granted_at_once(hooks: Hooks, room: WaitingRoom) -> None:
    [one] = await hooks.begin(1)

    granted = await room.acquire(hooks.ask(one), LONG)

    assert (granted.fencing_token, granted.capacity) == (1, 1)
    assert [claim.invocation_id for claim in (await status(hooks)).holders] == [one]


async def test_slots_go_round_in_the_order_asked_with_rising_tokens(hooks: Hooks, room: WaitingRoom) -> None:
    first, *others = await hooks.begin(8)
    tokens = [(await room.acquire(hooks.ask(first), LONG)).fencing_token]
    tasks = await in_line(hooks, room, others)

    holder = first
    for number, (task, invocation) in enumerate(zip(tasks, others, strict=True)):
        assert not any(later.done() for later in tasks[number:])
        await release(hooks, holder)
        tokens.append((await task).fencing_token)
        holder = invocation

    assert tokens == sorted(set(tokens))
    assert [claim.invocation_id for claim in (await status(hooks)).holders] == [others[-1]]


async def test_a_capacity_of_three_lets_three_in(hooks: Hooks, room: WaitingRoom) -> None:
    invocations = await hooks.begin(5)
    holders = await asyncio.gather(*(room.acquire(hooks.ask(each, capacity=3), LONG) for each in invocations[:3]))
    tasks = await in_line(hooks, room, invocations[3:], capacity=3)

    await release(hooks, invocations[1])
    granted = await tasks[0]

    assert len({each.fencing_token for each in (*holders, granted)}) == 4
    assert (await status(hooks)).available == 0
    assert not tasks[1].done()
    await hooks.end(*invocations)
    tasks[1].cancel()


async def test_a_holder_that_asks_again_keeps_its_one_slot(hooks: Hooks, room: WaitingRoom) -> None:
    one, two = await hooks.begin(2)
    first = await room.acquire(hooks.ask(one), LONG)
    [waiter] = await in_line(hooks, room, [two])

    again = await room.acquire(hooks.ask(one), LONG)

    assert again.fencing_token == first.fencing_token
    assert len((await status(hooks)).holders) == 1
    await release(hooks, one)
    assert (await waiter).fencing_token > first.fencing_token


async def test_another_capacity_is_refused_while_it_is_in_use_and_set_when_idle(hooks: Hooks, room: WaitingRoom) -> None:
    one, two = await hooks.begin(2)
    await room.acquire(hooks.ask(one, capacity=2), LONG)

    for invocation in (one, two):
        with pytest.raises(SemaphoreCapacity) as caught:
            await room.acquire(hooks.ask(invocation, capacity=3), LONG)
        assert caught.value.facts == {"capacity": 2}

    await release(hooks, one)
    assert (await room.acquire(hooks.ask(two, capacity=3), LONG)).capacity == 3


async def test_a_waiter_also_fixes_the_capacity(hooks: Hooks, room: WaitingRoom) -> None:
    one, two, three = await hooks.begin(3)
    await room.acquire(hooks.ask(one), LONG)
    [waiter] = await in_line(hooks, room, [two])

    with pytest.raises(SemaphoreCapacity):
        await room.acquire(hooks.ask(three, capacity=2), LONG)

    await hooks.end(one, two)
    waiter.cancel()


async def test_waiting_ends_with_the_timeout_and_leaves_the_line(hooks: Hooks, room: WaitingRoom) -> None:
    one, two, three = await hooks.begin(3)
    await room.acquire(hooks.ask(one), LONG)

    with pytest.raises(SemaphoreTimeout) as caught:
        await room.acquire(hooks.ask(two), SOON)

    assert caught.value.code == "semaphore_timeout"
    assert (await status(hooks)).waiters == ()
    [waiter] = await in_line(hooks, room, [three])
    await release(hooks, one)
    await waiter


async def test_a_cancelled_waiter_leaves_the_line_at_once_and_is_never_granted(hooks: Hooks, room: WaitingRoom) -> None:
    one, two, three = await hooks.begin(3)
    await room.acquire(hooks.ask(one), LONG)
    gone, next_one = await in_line(hooks, room, [two, three])

    gone.cancel()
    await waiting(hooks, 1)
    await release(hooks, one)

    await next_one
    assert [claim.invocation_id for claim in (await status(hooks)).holders] == [three]


async def test_a_grant_that_meets_a_leaving_waiter_passes_on(hooks: Hooks, room: WaitingRoom) -> None:
    one, two, three = await hooks.begin(3)
    for _ in range(20):
        await room.acquire(hooks.ask(one), LONG)
        gone, next_one = await in_line(hooks, room, [two, three])
        released = asyncio.create_task(release(hooks, one))
        gone.cancel()
        await released
        await next_one
        assert [claim.invocation_id for claim in (await status(hooks)).holders] == [three]
        await release(hooks, three)


async def test_only_a_holder_releases(hooks: Hooks, room: WaitingRoom) -> None:
    one, two = await hooks.begin(2)
    with pytest.raises(SemaphoreNotHeld):
        await release(hooks, one)
    await room.acquire(hooks.ask(one), LONG)
    [waiter] = await in_line(hooks, room, [two])

    with pytest.raises(SemaphoreNotHeld):
        await release(hooks, two)
    await release(hooks, one)
    with pytest.raises(SemaphoreNotHeld):
        await release(hooks, one)

    await waiter


async def test_an_invocation_that_ended_is_granted_nothing(hooks: Hooks, room: WaitingRoom) -> None:
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


async def test_the_end_of_an_invocation_frees_all_it_held_or_waited_for(hooks: Hooks, room: WaitingRoom) -> None:
    one, two, three = await hooks.begin(3)
    for name in ("ddl", "other"):
        await room.acquire(hooks.ask(one, name=name), LONG)
    _, next_one = await in_line(hooks, room, [two, three])

    await hooks.end(one, two)

    await next_one
    assert (await status(hooks, "other")).holders == ()


@pytest.mark.parametrize("how", ["lease", "fence", "state"])
async def test_the_slots_of_a_run_that_lost_its_executor_are_free(hooks: Hooks, room: WaitingRoom, how: str) -> None:
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
    await hooks.database.write(lambda tx: store.open_room(tx, "room"))
    for invocation in (first, *line):
        await take_place(hooks, invocation)
    assert await take_place(others, last) is None
    assert len((await status(hooks)).waiters) == 60

    await change_run(hooks.database, hooks.run_id, **ENDED["lease"])
    held = await take_place(others, last)

    assert held is not None
    assert held.fencing_token == 61
    assert [claim.invocation_id for claim in (await status(hooks)).claims] == [last]


async def take_place(hooks: Hooks, invocation: str) -> Granted | None:
    ask = replace(hooks.ask(invocation), request_id=invocation, call_id=invocation, room_id="room")
    return await hooks.database.write(lambda tx: store.take_place(tx, ask))


async def test_a_repeated_request_keeps_its_place_across_rooms(hooks: Hooks, room: WaitingRoom) -> None:
    one, two, three = await hooks.begin(3)
    await room.acquire(hooks.ask(one), LONG)
    first, second = await in_line(hooks, room, [two, three], request_id="q")

    first.cancel()
    await waiting(hooks, 1)
    other_room = WaitingRoom(hooks.database)
    again = asyncio.create_task(other_room.acquire(hooks.ask(two, request_id="q"), LONG))
    await waiting(hooks, 2)
    await release(hooks, one)

    await again
    assert not second.done()
    await release(hooks, two)
    await second
    await other_room.close()


async def test_whoever_left_and_was_overtaken_goes_to_the_end_of_the_line(hooks: Hooks, room: WaitingRoom) -> None:
    one, two, three = await hooks.begin(3)
    await room.acquire(hooks.ask(one), LONG)
    first, second = await in_line(hooks, room, [two, three], request_id="q")
    first.cancel()
    await waiting(hooks, 1)
    await release(hooks, one)
    overtook = await second
    again = asyncio.create_task(room.acquire(hooks.ask(two, request_id="q"), LONG))
    await waiting(hooks, 1)
    await release(hooks, three)

    assert (await again).fencing_token > overtook.fencing_token


async def test_a_grant_whose_answer_was_lost_is_answered_again(hooks: Hooks, room: WaitingRoom) -> None:
    [one] = await hooks.begin(1)
    first = await room.acquire(hooks.ask(one, request_id="q"), LONG)

    assert (await room.acquire(hooks.ask(one, request_id="q"), LONG)).fencing_token == first.fencing_token


async def test_the_waiters_of_a_catalog_that_died_vanish(hooks: Hooks, room: WaitingRoom, clock: ShiftedClock) -> None:
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
    hooks: Hooks, room: WaitingRoom, clock: ShiftedClock
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


async def test_a_room_that_was_frozen_asks_for_its_places_again(hooks: Hooks, room: WaitingRoom, clock: ShiftedClock) -> None:
    one, two = await hooks.begin(2)
    await room.acquire(hooks.ask(one), LONG)
    [waiter] = await in_line(hooks, room, [two])

    clock.advance(ROOM_LEASE + LEFT_KEPT)
    await release(hooks, one)

    async with asyncio.timeout(10):
        await waiter


async def test_an_operator_takes_a_slot_away(hooks: Hooks, room: WaitingRoom) -> None:
    one, two = await hooks.begin(2)
    with pytest.raises(NotFound):
        await force(hooks)
    await room.acquire(hooks.ask(one), LONG)
    [waiter] = await in_line(hooks, room, [two])
    with pytest.raises(NotFound):
        await force(hooks, "somebody else")

    taken = await force(hooks)

    assert [claim.invocation_id for claim in taken] == [one]
    await waiter


async def test_a_forced_release_of_several_names_the_allocation(hooks: Hooks, room: WaitingRoom) -> None:
    one, two = await hooks.begin(2)
    for invocation in (one, two):
        await room.acquire(hooks.ask(invocation, capacity=2), LONG)

    with pytest.raises(FailedPrecondition):
        await force(hooks)
    await force(hooks, hooks.ask(one).allocation_id)

    assert [claim.invocation_id for claim in (await status(hooks)).holders] == [two]


async def test_semaphores_in_use_are_listed(hooks: Hooks, room: WaitingRoom) -> None:
    [one] = await hooks.begin(1)
    for name in ("b", "a", "idle"):
        await room.acquire(hooks.ask(one, name=name), LONG)
    await hooks.database.write(lambda tx: store.release(tx, hooks.scope("idle"), one))

    found = await hooks.database.read(lambda tx: store.list_semaphores(tx, hooks.bucket_id))

    assert [semaphore.scope.name for semaphore in found] == ["a", "b"]


async def test_a_closing_room_lets_its_waiters_go(hooks: Hooks, room: WaitingRoom) -> None:
    one, two = await hooks.begin(2)
    await room.acquire(hooks.ask(one), LONG)
    closing = WaitingRoom(hooks.database)
    [waiter] = await in_line(hooks, closing, [two])

    await closing.close()

    with pytest.raises(Unavailable):
        await waiter
    assert (await status(hooks)).waiters == ()


async def test_many_waiters_in_two_replicas_take_turns(open_replica: OpenReplica) -> None:
    replicas = [await open_replica(), await open_replica()]
    rooms = [WaitingRoom(replica) for replica in replicas]
    hooks = await Hooks.of_a_new_run(replicas[0], await a_bucket(replicas[0]))
    invocations = await hooks.begin(50)
    inside: set[str] = set()
    tokens: list[int] = []

    async def work(number: int) -> None:
        invocation, replica = invocations[number], replicas[number % 2]
        granted = await rooms[number % 2].acquire(hooks.ask(invocation), LONG)
        assert not inside
        inside.add(invocation)
        tokens.append(granted.fencing_token)
        await asyncio.sleep(0)
        inside.remove(invocation)
        await replica.write(lambda tx: store.release(tx, hooks.scope(), invocation))

    await asyncio.gather(*(work(number) for number in range(50)))

    assert tokens == sorted(set(tokens))
    for room in rooms:
        await room.close()


async def force(hooks: Hooks, allocation_id: str = "") -> list[Claim]:
    return list(await hooks.database.write(lambda tx: store.force_release(tx, hooks.scope(), allocation_id)))


async def a_waiter_of_a_dead_catalog(hooks: Hooks, invocation: str) -> None:
    """Leave a waiter in line as a killed process does: nobody renews its room, nobody takes it out."""
    await hooks.database.write(lambda tx: store.open_room(tx, "dead room"))
    ask = replace(hooks.ask(invocation), request_id="q", call_id="dead call", room_id="dead room")
    assert await hooks.database.write(lambda tx: store.take_place(tx, ask)) is None
