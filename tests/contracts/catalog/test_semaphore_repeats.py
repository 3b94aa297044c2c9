"""A granted slot is lost to nobody: calls of one invocation repeat, go away and wait side by side, in any order, anywhere."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest

from maand_catalog.database.database import Database
from maand_catalog.rules.semaphores import CALLS_KEPT, LEFT_KEPT, Semaphore, State
from maand_catalog.serving.semaphore_waiters import SemaphoreWaiters, WaitingCall
from maand_catalog.store.semaphores import slots as store
from maand_catalog.store.semaphores.slots import Granted, PlaceInLine, SlotRequest
from tests.contracts.catalog.conftest import OpenReplica, ShiftedClock
from tests.contracts.catalog.run_builders import a_bucket
from tests.contracts.catalog.semaphore_builders import Hooks
from tests.contracts.catalog.semaphore_verbs import LONG, SOON, in_line, release, status, waiting


@dataclass(frozen=True, kw_only=True)
class Line:
    """One semaphore, with calls named by hand: `room` is the catalog that a call waits at."""

    hooks: Hooks

    async def open(self, *rooms: str) -> None:
        for room in rooms:
            await self.hooks.database.write(lambda tx, room=room: store.renew_room(tx, room))  # type: ignore[misc]

    async def take(
        self, invocation: str, call: str, *, room: str = "a", request: str = "q", waited: bool = False
    ) -> Granted | None:
        ask = self.ask(invocation, call, room=room, request=request)
        return await self.hooks.database.write(lambda tx: store.take_place(tx, ask, waited=waited))

    async def pick_up(self, room: str) -> list[str]:
        return [each.call_id for each in await self.hooks.database.write(lambda tx: store.pick_up_slots(tx, room))]

    async def leave(self, invocation: str, call: str) -> None:
        place = PlaceInLine(scope=self.hooks.scope(), invocation_id=invocation, call_id=call)
        await self.hooks.database.write(lambda tx: store.leave_line(tx, place))

    async def holder(self) -> tuple[str, int] | None:
        """Return who holds, with the token; a slot granted to somebody who does not know yet counts too."""
        holders = (await status(self.hooks)).holders
        assert len(holders) <= 1
        return (holders[0].invocation_id, holders[0].ticket) if holders else None

    async def picked_up_by_a_call_that_goes(self) -> tuple[str, str]:
        """Let one's call `a` be granted a slot while it goes away, with another in line behind it; return both invocations."""
        holder, one, two = await self.hooks.begin(3)
        await self.open("a", "b")
        await self.take(holder, "h")
        assert await self.take(one, "a") is None
        assert await self.take(two, "other", request="other") is None
        await release(self.hooks, holder)
        assert await self.pick_up("a") == ["a"]
        return one, two

    def ask(self, invocation: str, call: str, *, room: str, request: str) -> SlotRequest:
        return replace(self.hooks.ask(invocation), request_id=request, call_id=call, room_id=room)


@pytest.fixture
def line(hooks: Hooks) -> Line:
    return Line(hooks=hooks)


async def test_a_repeat_that_was_answered_keeps_the_slot_when_the_call_before_it_goes_away(line: Line) -> None:
    one, _ = await line.picked_up_by_a_call_that_goes()

    told = await line.take(one, "b", room="b")
    await line.leave(one, "a")

    assert told is not None
    assert await line.holder() == (one, told.fencing_token)


async def test_another_request_of_a_holder_keeps_the_slot_when_the_first_one_goes_away(line: Line) -> None:
    one, _ = await line.picked_up_by_a_call_that_goes()

    told = await line.take(one, "b", room="b", request="another")
    await line.leave(one, "a")

    assert told is not None
    assert await line.holder() == (one, told.fencing_token)


@pytest.mark.parametrize("request_id", ["q", "another"])
async def test_a_holder_that_asks_again_and_goes_away_unanswered_keeps_its_slot(line: Line, request_id: str) -> None:
    [one] = await line.hooks.begin(1)
    told = await line.take(one, "a")

    again = await line.take(one, "b", room="b", request=request_id)
    await line.leave(one, "b")

    assert told is not None
    assert again == replace(told, call_id="b")
    assert await line.holder() == (one, told.fencing_token)


@pytest.mark.parametrize("order", ["abc", "acb", "bac", "bca", "cab", "cba"])
async def test_a_slot_whose_calls_all_went_away_unanswered_passes_on(line: Line, order: str) -> None:
    one, two = await line.picked_up_by_a_call_that_goes()
    await line.take(one, "b", room="b")
    await line.take(one, "c", room="a")

    for call in order:
        assert (await line.holder() or ("",))[0] == one
        await line.leave(one, call)

    assert (await line.holder() or ("",))[0] == two


async def test_a_call_that_went_away_twice_takes_nothing(line: Line) -> None:
    one, _ = await line.picked_up_by_a_call_that_goes()
    await line.leave(one, "a")
    await line.leave(one, "a")
    await release(line.hooks, (await line.holder() or ("",))[0])
    again = await line.take(one, "b", room="b")

    await line.leave(one, "a")

    assert again is not None
    assert await line.holder() == (one, again.fencing_token)


async def test_a_holder_that_asks_in_a_loop_is_remembered_in_bounds_and_keeps_its_slot(line: Line) -> None:
    [one] = await line.hooks.begin(1)
    calls = [f"{number:036}" for number in range(3 * CALLS_KEPT)]
    tokens = {granted.fencing_token for call in calls if (granted := await line.take(one, call))}

    for call in calls[1:]:
        await line.leave(one, call)

    assert [(one, token) for token in tokens] == [await line.holder()]


async def test_a_waiting_repeat_keeps_the_place_when_the_call_before_it_goes_away(line: Line) -> None:
    holder, one, two = await line.hooks.begin(3)
    await line.open("a", "b")
    await line.take(holder, "h")
    await line.take(one, "a")
    await line.take(two, "other")

    assert await line.take(one, "b", room="b") is None
    await line.leave(one, "a")
    await release(line.hooks, holder)

    assert (await line.pick_up("a"), await line.pick_up("b")) == ([], ["b"])


async def test_a_call_that_waited_takes_no_place_from_a_newer_one_and_takes_it_back_when_that_is_gone(line: Line) -> None:
    holder, one, two = await line.hooks.begin(3)
    await line.open("a", "b")
    await line.take(holder, "h")
    await line.take(one, "a", request="first")
    await line.take(one, "b", room="b", request="second")
    await line.take(two, "other")

    for _ in range(3):
        assert await line.take(one, "a", request="first", waited=True) is None
        assert [(claim.invocation_id, claim.call_id) for claim in (await status(line.hooks)).waiters] == [
            (one, "b"),
            (two, "other"),
        ]
    await line.leave(one, "b")
    assert await line.take(one, "a", request="first", waited=True) is None

    assert [(claim.invocation_id, claim.call_id) for claim in (await status(line.hooks)).waiters] == [(one, "a"), (two, "other")]


async def test_a_call_that_waited_does_not_take_a_slot_that_a_newer_one_is_about_to_learn_of(line: Line) -> None:
    holder, one = await line.hooks.begin(2)
    await line.open("a", "b")
    await line.take(holder, "h")
    await line.take(one, "a", request="first")
    await line.take(one, "b", room="b", request="second")
    await release(line.hooks, holder)

    assert await line.take(one, "a", request="first", waited=True) is None
    assert await line.pick_up("b") == ["b"]
    shared = await line.take(one, "a", request="first", waited=True)

    assert shared is not None
    assert await line.holder() == (one, shared.fencing_token)


async def test_a_repeat_says_since_when_its_invocation_waits_and_holds(line: Line, clock: ShiftedClock) -> None:
    holder, one = await line.hooks.begin(2)
    await line.open("a")
    await line.take(holder, "h")
    await line.take(one, "a")
    before = {claim.state: claim.since for claim in (await status(line.hooks)).claims}

    clock.advance(LEFT_KEPT / 10)
    await line.take(holder, "h2")
    await line.take(one, "b")

    assert {claim.state: claim.since for claim in (await status(line.hooks)).claims} == before
    assert set(before) == {State.HELD, State.WAITING}


# -- waiting rooms ------------------------------------------------------------------------------------------------------------


class SlowToLeave(SemaphoreWaiters):
    """A room whose calls leave only when the gate is open: the connection of a caller that is gone ends late."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self.gate = asyncio.Event()

    async def _leave(self, call: WaitingCall, joining: asyncio.Task[Granted | None]) -> None:
        await self.gate.wait()
        await super()._leave(call, joining)


async def until(hooks: Hooks, condition: Callable[[Semaphore], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition(await status(hooks)):  # noqa: ASYNC110 - what is waited for is in the database
            await asyncio.sleep(0.01)


async def test_two_catalogs_take_no_slot_from_a_repeat_that_was_answered(open_replica: OpenReplica) -> None:
    """The first catalog picks the slot up for a call that goes away; meanwhile the repeat at the second one is answered."""
    first, second = await open_replica(), await open_replica()
    hooks = await Hooks.of_a_new_run(first, await a_bucket(first))
    holder, one, two = await hooks.begin(3)
    room, other_room = SlowToLeave(first), SemaphoreWaiters(second)
    await room.acquire(hooks.ask(holder), LONG)
    call, behind = await in_line(hooks, room, [one, two], request_id="q")

    call.cancel()
    await release(hooks, holder)
    await until(hooks, lambda seen: [claim.state for claim in seen.holders] == [State.HELD])
    told = await other_room.acquire(hooks.ask(one, request_id="q"), LONG)
    room.gate.set()
    await asyncio.gather(call, return_exceptions=True)

    assert [(claim.invocation_id, claim.ticket) for claim in (await status(hooks)).holders] == [(one, told.fencing_token)]
    assert not behind.done()
    await release(hooks, one)
    assert (await behind).fencing_token > told.fencing_token
    for each in (room, other_room):
        await each.close()


async def test_calls_of_one_invocation_that_wait_side_by_side_all_get_the_slot(hooks: Hooks, room: SemaphoreWaiters) -> None:
    holder, one = await hooks.begin(2)
    await room.acquire(hooks.ask(holder), LONG)
    other_room = SemaphoreWaiters(hooks.database)
    [first] = await in_line(hooks, room, [one], request_id="first")
    place = (await status(hooks)).waiters[0]
    second = asyncio.create_task(other_room.acquire(hooks.ask(one, request_id="second"), LONG))
    await until(hooks, lambda seen: seen.waiters[0].call_id != place.call_id)

    await release(hooks, holder)
    tokens = {granted.fencing_token for granted in await asyncio.gather(first, second)}

    assert tokens == {place.ticket}
    assert [claim.invocation_id for claim in (await status(hooks)).holders] == [one]
    await other_room.close()


async def test_a_second_call_whose_time_is_over_leaves_the_place_to_the_first(hooks: Hooks, room: SemaphoreWaiters) -> None:
    holder, one, two = await hooks.begin(3)
    await room.acquire(hooks.ask(holder), LONG)
    first, behind = await in_line(hooks, room, [one, two])
    place = (await status(hooks)).waiters[0]

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(SOON.total_seconds()):
            await room.acquire(hooks.ask(one), LONG)
    await waiting(hooks, 2)
    await release(hooks, holder)

    assert (await first).fencing_token == place.ticket
    assert not behind.done()
    await release(hooks, one)
    await behind
