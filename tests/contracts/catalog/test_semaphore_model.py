"""Semaphores against a model, step by step, on both databases: whatever calls and catalogs do, in whatever order.

Two catalogs serve some hooks that ask, ask again, go away, release, end. A call's life, as its catalog sees it:

    waiting ──take or pick_up──▶ given ──its answer arrives──▶ told
       └───────────┬──────────────┘
             its caller goes ──▶ going ──leave──▶ (forgotten)        its catalog is killed ──▶ killed
"""

import itertools
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, TypeVar, cast

import sqlalchemy
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test
from sqlalchemy import select

from maand_catalog.database.database import Database
from maand_catalog.database.engine import make_engines, parse_database_url
from maand_catalog.database.transaction import Transaction
from maand_catalog.rules.semaphores import LEFT_KEPT, ROOM_LEASE, Semaphore, State
from maand_catalog.store.semaphores import slots as store
from maand_catalog.store.semaphores.slots import Granted, PlaceInLine, SlotRequest
from maand_catalog.store.tables.semaphores import semaphores
from tests.contracts.catalog.conftest import ShiftedClock
from tests.contracts.catalog.run_builders import a_bucket
from tests.contracts.catalog.semaphore_builders import Hooks, a_running_run

EXAMPLES = {"sqlite": 80, "postgresql": 30}
"""A step on PostgreSQL takes three times as long."""
STEPS = 40

HOOKS = 2
ON_THEIR_WAY = 4
"""Calls of one hook at once that it was not told of: below `CALLS_KEPT`, up to which every one is remembered."""

RARELY = 5
"""Every so many steps a hook may end, a catalog be killed, a while pass: more often, and there is no line to speak of."""

NUMBERS = st.integers(0, 99)
HOOK = st.integers(0, HOOKS - 1)
CATALOG = st.sampled_from([0, 1])

Result = TypeVar("Result")


@dataclass(kw_only=True)
class Caller:
    """One call, and what became of it. `token`: of the slot that it was given; None once that was released."""

    ask: SlotRequest
    state: str = "waiting"
    token: int | None = None


class OneTransaction:
    """Stands for a database whose every intention is carried out in one transaction that is rolled back: it is much faster."""

    def __init__(self, connection: sqlalchemy.Connection, clock: ShiftedClock) -> None:
        self._connection = connection
        self._clock = clock

    async def write(self, intention: Callable[[Transaction], Result]) -> Result:
        return intention(Transaction(self._connection, self._clock))

    read = write


class SemaphoreMachine(RuleBasedStateMachine):
    """Does with the store what waiting rooms do, and knows what each hook was told."""

    engine: sqlalchemy.Engine
    capacity = 1

    def __init__(self) -> None:
        super().__init__()
        self.clock = ShiftedClock()
        self.connection = self.engine.connect()
        self.database = cast("Database", OneTransaction(self.connection, self.clock))
        bucket_id = self.run(a_bucket(self.database))
        run_id = self.run(a_running_run(self.database, bucket_id, lease=timedelta(days=1)))
        self.hooks = Hooks(self.database, bucket_id, run_id)
        self.alive = self.run(self.hooks.begin(HOOKS))
        self.calls: dict[str, Caller] = {}
        self.names = itertools.count()
        self.rooms = [f"{bucket_id[:8]}-{number}" for number in (0, 1)]
        self.slots: dict[int, str] = {}
        self.steps = 0
        self.keep_rooms()

    # -- what the model needs of the world --

    def teardown(self) -> None:
        self.connection.close()

    def run(self, coroutine: Coroutine[Any, Any, Result]) -> Result:
        """Run what awaits nothing but `OneTransaction`."""
        try:
            coroutine.send(None)
        except StopIteration as done:
            return cast("Result", done.value)
        raise AssertionError("it waits for something else")

    def write(self, act: Callable[[Transaction], Result]) -> Result:
        return self.run(self.database.write(act))

    def look(self) -> Semaphore:
        return self.run(self.database.read(lambda tx: store.get_semaphore(tx, self.hooks.scope())))

    def keep_rooms(self) -> None:
        """Let the catalogs do what they do all the time."""
        every = select(semaphores.c.semaphore_id).where(semaphores.c.bucket_id == self.hooks.bucket_id)

        def intention(tx: Transaction) -> None:
            for room in self.rooms:
                store.renew_room(tx, room)
            store.tend_semaphores(tx, tx.connection.scalars(every))

        self.write(intention)

    def those(self, *states: str, of: str = "") -> list[Caller]:
        return [each for each in self.calls.values() if each.state in states and of in ("", each.ask.invocation_id)]

    def give(self, granted: Granted, caller: Caller, *, arrives: bool = False) -> None:
        if caller.state == "waiting":
            caller.state = "told" if arrives else "given"
        caller.token = granted.fencing_token

    def forget_slot(self, invocation: str) -> None:
        """Whatever this hook's calls were given is over: they were told of nothing that lasts."""
        for caller in self.those("told", "given", "going", "killed", of=invocation):
            if caller.token is not None:
                caller.token = None
                caller.state = "forgotten" if caller.state == "told" else caller.state

    # -- what happens --

    @initialize(capacity=st.sampled_from([1, 1, 1, 2]))
    def the_semaphore_has(self, capacity: int) -> None:
        self.capacity = capacity

    @rule(hook=HOOK, catalog=CATALOG, request=st.sampled_from(["q", "r"]), arrives=st.booleans())
    def a_hook_asks(self, hook: int, catalog: int, request: str, arrives: bool) -> None:
        self.take(self.alive[hook], self.rooms[catalog], request, arrives=arrives)

    @precondition(lambda self: self.those("waiting", "given"))
    @rule(number=NUMBERS, catalog=CATALOG, arrives=st.booleans())
    def a_client_gives_up_on_a_call_and_repeats_it(self, number: int, catalog: int, arrives: bool) -> None:
        caller = pick(self.those("waiting", "given"), number)
        caller.state = "going"
        self.take(caller.ask.invocation_id, self.rooms[catalog], caller.ask.request_id, arrives=arrives)

    def take(self, invocation: str, room: str, request: str, *, arrives: bool) -> None:
        if len(self.those("waiting", "given", "going", "killed", of=invocation)) >= ON_THEIR_WAY:
            return
        asked = self.hooks.ask(invocation, capacity=self.capacity, request_id=request)
        ask = replace(asked, call_id=f"call-{next(self.names)}", room_id=room)
        caller = self.calls[ask.call_id] = Caller(ask=ask)
        granted = self.write(lambda tx: store.take_place(tx, ask))
        if granted:
            self.give(granted, caller, arrives=arrives)

    @rule(catalog=CATALOG, arrives=st.booleans())
    def the_woken_keeper_looks(self, catalog: int, arrives: bool) -> None:
        self.pick_up(catalog, arrives=arrives)

    def pick_up(self, catalog: int, *, arrives: bool) -> None:
        for granted in self.write(lambda tx: store.pick_up_slots(tx, self.rooms[catalog])):
            self.give(granted, self.calls[granted.call_id], arrives=arrives)

    @precondition(lambda self: self.those("given"))
    @rule(number=NUMBERS)
    def the_answer_arrives(self, number: int) -> None:
        caller = pick(self.those("given"), number)
        caller.state = "told" if caller.token is not None else "forgotten"

    @precondition(lambda self: self.those("waiting", "given"))
    @rule(number=NUMBERS)
    def the_caller_goes(self, number: int) -> None:
        pick(self.those("waiting", "given"), number).state = "going"

    @precondition(lambda self: self.those("going"))
    @rule(number=NUMBERS)
    def leave(self, number: int) -> None:
        caller = pick(self.those("going"), number)
        place = PlaceInLine(scope=caller.ask.scope, invocation_id=caller.ask.invocation_id, call_id=caller.ask.call_id)
        self.write(lambda tx: store.leave_line(tx, place))
        caller.state = "forgotten"

    @rule(catalog=CATALOG)
    def the_keeper_looks_thoroughly(self, catalog: int) -> None:
        room = self.rooms[catalog]
        found = self.run(self.database.read(lambda tx: store.survey_room(tx, room)))
        if found.untended:
            self.write(lambda tx: store.tend_semaphores(tx, found.untended))
        in_line = {place.call_id for place in found.in_line}
        for caller in self.those("waiting"):
            if caller.ask.room_id == room and caller.ask.call_id not in in_line:
                granted = self.write(lambda tx, ask=caller.ask: store.take_place(tx, ask, waited=True))  # type: ignore[misc]
                if granted:
                    self.give(granted, caller)

    @precondition(lambda self: self.those("told"))
    @rule(number=NUMBERS, then=CATALOG, arrives=st.booleans())
    def release(self, number: int, then: int, arrives: bool) -> None:
        invocation = pick(self.those("told"), number).ask.invocation_id
        self.write(lambda tx: store.release_slot(tx, self.hooks.scope(), invocation))
        self.forget_slot(invocation)
        self.pick_up(then, arrives=arrives)

    @precondition(lambda self: self.steps % RARELY == 0)
    @rule(hook=HOOK)
    def the_hook_ends_and_another_begins(self, hook: int) -> None:
        invocation = self.alive[hook]
        self.run(self.hooks.end(invocation))
        [self.alive[hook]] = self.run(self.hooks.begin(1))
        for caller in self.those("waiting", "given", "going", "told", "killed", of=invocation):
            caller.state, caller.token = "forgotten", None

    @precondition(lambda self: self.steps % RARELY == 1)
    @rule(catalog=CATALOG)
    def a_catalog_is_killed_and_another_starts(self, catalog: int) -> None:
        for caller in self.those("waiting", "given", "going"):
            if caller.ask.room_id == self.rooms[catalog]:
                caller.state = "killed"
        self.rooms[catalog] = f"{self.hooks.bucket_id[:8]}-again-{next(self.names)}"
        self.clock.advance(ROOM_LEASE + timedelta(seconds=1))
        self.keep_rooms()

    @precondition(lambda self: self.steps % RARELY == 2)
    @rule()
    def a_while_passes(self) -> None:
        self.clock.advance(LEFT_KEPT + timedelta(seconds=1))
        self.keep_rooms()

    # -- what holds --

    @invariant()
    def it_is_as_promised(self) -> None:
        self.steps += 1
        seen = self.look()
        self.no_slot_is_given_twice_and_none_is_kept_from_who_waits(seen)
        self.whoever_was_told_still_holds(seen)
        self.nobody_who_is_gone_has_a_slot_or_a_place(seen)
        self.tokens_rise_in_the_order_of_the_line(seen)

    def no_slot_is_given_twice_and_none_is_kept_from_who_waits(self, seen: Semaphore) -> None:
        assert len(seen.holders) <= self.capacity
        assert not (seen.waiters and seen.available)

    def whoever_was_told_still_holds(self, seen: Semaphore) -> None:
        held = {(claim.invocation_id, claim.ticket) for claim in seen.holders if claim.state is State.HELD}
        assert {(caller.ask.invocation_id, caller.token) for caller in self.those("told")} <= held

    def nobody_who_is_gone_has_a_slot_or_a_place(self, seen: Semaphore) -> None:
        for claim in seen.claims:
            assert claim.invocation_id in self.alive
            here = ("given", "going", "told", "killed") if claim.state is State.HELD else ("waiting", "going")
            assert self.those(*here, of=claim.invocation_id)

    def tokens_rise_in_the_order_of_the_line(self, seen: Semaphore) -> None:
        new = {claim.ticket: claim.invocation_id for claim in seen.holders if claim.ticket not in self.slots}
        assert all(ticket > max(self.slots, default=0) for ticket in new)
        self.slots |= new
        assert all(self.slots[claim.ticket] == claim.invocation_id for claim in seen.holders)
        assert all(claim.ticket > max(self.slots, default=0) for claim in seen.waiters)


def pick(callers: list[Caller], number: int) -> Caller:
    return callers[number % len(callers)]


def test_no_order_of_calls_takes_a_slot_from_whoever_was_told(database_url: str) -> None:
    engine = make_engines(parse_database_url(database_url)).write
    run_state_machine_as_test(
        type("Machine", (SemaphoreMachine,), {"engine": engine}),
        settings=settings(
            max_examples=EXAMPLES[engine.dialect.name],
            stateful_step_count=STEPS,
            deadline=None,
            phases=[Phase.explicit, Phase.reuse, Phase.generate],  # with Phase.shrink it takes minutes to fail
            suppress_health_check=list(HealthCheck),
        ),
    )
    engine.dispose()
