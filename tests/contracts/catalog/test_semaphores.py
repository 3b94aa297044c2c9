"""Semaphores: first come, first served; one slot an invocation; fenced; taken away by an operator."""

import asyncio

import pytest

from maand_catalog.errors import FailedPrecondition, NotFound
from maand_catalog.rules.semaphores import SemaphoreCapacity, SemaphoreNotHeld, SemaphoreTimeout
from maand_catalog.serving.semaphore_waiters import SemaphoreWaiters
from maand_catalog.store.semaphores import slots as store
from tests.contracts.catalog.conftest import OpenReplica
from tests.contracts.catalog.run_builders import a_bucket
from tests.contracts.catalog.semaphore_builders import Hooks
from tests.contracts.catalog.semaphore_verbs import LONG, SOON, force, in_line, release, status, waiting


async def test_a_semaphore_never_used_is_free(hooks: Hooks) -> None:
    semaphore = await status(hooks)

    assert (semaphore.capacity, semaphore.available, semaphore.holders, semaphore.waiters) == (1, 1, (), ())


async def test_a_free_slot_is_granted_at_once(hooks: Hooks, room: SemaphoreWaiters) -> None:
    [one] = await hooks.begin(1)

    granted = await room.acquire(hooks.ask(one), LONG)

    assert (granted.fencing_token, granted.capacity) == (1, 1)
    assert [claim.invocation_id for claim in (await status(hooks)).holders] == [one]


async def test_slots_go_round_in_the_order_asked_with_rising_tokens(hooks: Hooks, room: SemaphoreWaiters) -> None:
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


async def test_a_capacity_of_three_lets_three_in(hooks: Hooks, room: SemaphoreWaiters) -> None:
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


async def test_a_holder_that_asks_again_keeps_its_one_slot(hooks: Hooks, room: SemaphoreWaiters) -> None:
    one, two = await hooks.begin(2)
    first = await room.acquire(hooks.ask(one), LONG)
    [waiter] = await in_line(hooks, room, [two])

    again = await room.acquire(hooks.ask(one), LONG)

    assert again.fencing_token == first.fencing_token
    assert len((await status(hooks)).holders) == 1
    await release(hooks, one)
    assert (await waiter).fencing_token > first.fencing_token


async def test_another_capacity_is_refused_while_it_is_in_use_and_set_when_idle(hooks: Hooks, room: SemaphoreWaiters) -> None:
    one, two = await hooks.begin(2)
    await room.acquire(hooks.ask(one, capacity=2), LONG)

    for invocation in (one, two):
        with pytest.raises(SemaphoreCapacity) as caught:
            await room.acquire(hooks.ask(invocation, capacity=3), LONG)
        assert caught.value.facts == {"capacity": 2}

    await release(hooks, one)
    assert (await room.acquire(hooks.ask(two, capacity=3), LONG)).capacity == 3


async def test_a_waiter_also_fixes_the_capacity(hooks: Hooks, room: SemaphoreWaiters) -> None:
    one, two, three = await hooks.begin(3)
    await room.acquire(hooks.ask(one), LONG)
    [waiter] = await in_line(hooks, room, [two])

    with pytest.raises(SemaphoreCapacity):
        await room.acquire(hooks.ask(three, capacity=2), LONG)

    await hooks.end(one, two)
    waiter.cancel()


async def test_waiting_ends_with_the_timeout_and_leaves_the_line(hooks: Hooks, room: SemaphoreWaiters) -> None:
    one, two, three = await hooks.begin(3)
    await room.acquire(hooks.ask(one), LONG)

    with pytest.raises(SemaphoreTimeout) as caught:
        await room.acquire(hooks.ask(two), SOON)

    assert caught.value.code == "semaphore_timeout"
    assert (await status(hooks)).waiters == ()
    [waiter] = await in_line(hooks, room, [three])
    await release(hooks, one)
    await waiter


async def test_a_cancelled_waiter_leaves_the_line_at_once_and_is_never_granted(hooks: Hooks, room: SemaphoreWaiters) -> None:
    one, two, three = await hooks.begin(3)
    await room.acquire(hooks.ask(one), LONG)
    gone, next_one = await in_line(hooks, room, [two, three])

    gone.cancel()
    await waiting(hooks, 1)
    await release(hooks, one)

    await next_one
    assert [claim.invocation_id for claim in (await status(hooks)).holders] == [three]


async def test_a_grant_that_meets_a_leaving_waiter_passes_on(hooks: Hooks, room: SemaphoreWaiters) -> None:
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


async def test_only_a_holder_releases(hooks: Hooks, room: SemaphoreWaiters) -> None:
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


async def test_a_repeated_request_keeps_its_place_across_rooms(hooks: Hooks, room: SemaphoreWaiters) -> None:
    one, two, three = await hooks.begin(3)
    await room.acquire(hooks.ask(one), LONG)
    first, second = await in_line(hooks, room, [two, three], request_id="q")

    first.cancel()
    await waiting(hooks, 1)
    other_room = SemaphoreWaiters(hooks.database)
    again = asyncio.create_task(other_room.acquire(hooks.ask(two, request_id="q"), LONG))
    await waiting(hooks, 2)
    await release(hooks, one)

    await again
    assert not second.done()
    await release(hooks, two)
    await second
    await other_room.close()


async def test_whoever_left_and_was_overtaken_goes_to_the_end_of_the_line(hooks: Hooks, room: SemaphoreWaiters) -> None:
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


async def test_a_grant_whose_answer_was_lost_is_answered_again(hooks: Hooks, room: SemaphoreWaiters) -> None:
    [one] = await hooks.begin(1)
    first = await room.acquire(hooks.ask(one, request_id="q"), LONG)

    assert (await room.acquire(hooks.ask(one, request_id="q"), LONG)).fencing_token == first.fencing_token


async def test_an_operator_takes_a_slot_away(hooks: Hooks, room: SemaphoreWaiters) -> None:
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


async def test_a_forced_release_of_several_names_the_allocation(hooks: Hooks, room: SemaphoreWaiters) -> None:
    one, two = await hooks.begin(2)
    for invocation in (one, two):
        await room.acquire(hooks.ask(invocation, capacity=2), LONG)

    with pytest.raises(FailedPrecondition):
        await force(hooks)
    await force(hooks, hooks.ask(one).allocation_id)

    assert [claim.invocation_id for claim in (await status(hooks)).holders] == [two]


async def test_semaphores_in_use_are_listed(hooks: Hooks, room: SemaphoreWaiters) -> None:
    [one] = await hooks.begin(1)
    for name in ("b", "a", "idle"):
        await room.acquire(hooks.ask(one, name=name), LONG)
    await hooks.database.write(lambda tx: store.release_slot(tx, hooks.scope("idle"), one))

    found = await hooks.database.read(lambda tx: store.list_semaphores(tx, hooks.bucket_id))

    assert [semaphore.scope.name for semaphore in found] == ["a", "b"]


async def test_many_waiters_in_two_replicas_take_turns(open_replica: OpenReplica) -> None:
    replicas = [await open_replica(), await open_replica()]
    rooms = [SemaphoreWaiters(replica) for replica in replicas]
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
        await replica.write(lambda tx: store.release_slot(tx, hooks.scope(), invocation))

    await asyncio.gather(*(work(number) for number in range(50)))

    assert tokens == sorted(set(tokens))
    for room in rooms:
        await room.close()
