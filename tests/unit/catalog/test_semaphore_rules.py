"""The rules of semaphores: who is next, who is gone."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maand_catalog.errors import InvalidArgument
from maand_catalog.rules.semaphores import (
    LEFT_KEPT,
    Claim,
    Scope,
    Semaphore,
    State,
    check_semaphore_name,
    checked_capacity,
    checked_timeout,
    may_resume,
    settle_queue,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SCOPE = Scope(bucket_id="b", job="api", event="pre_deploy", name="ddl")


def a_claim(
    ticket: int, state: State = State.WAITING, *, alive: bool = True, awaited: bool = True, since: datetime = NOW
) -> Claim:
    return Claim(
        ticket=ticket,
        invocation_id=f"i{ticket}",
        allocation_id=f"a{ticket}",
        worker=f"10.0.0.{ticket}",
        run_id="r",
        state=state,
        since=since,
        request_id=f"q{ticket}",
        call_id=f"c{ticket}",
        room_id="room",
        alive=alive,
        awaited=awaited,
    )


def test_free_slots_go_to_the_lowest_tickets() -> None:
    upkeep = settle_queue(2, [a_claim(7), a_claim(3), a_claim(5)], NOW)

    assert [claim.ticket for claim in upkeep.granted] == [3, 5]


def test_nobody_is_granted_while_all_slots_are_taken() -> None:
    assert not settle_queue(1, [a_claim(1, State.HELD), a_claim(2)], NOW)
    assert not settle_queue(1, [a_claim(1, State.GRANTED), a_claim(2)], NOW)


def test_the_slot_of_a_dead_invocation_goes_to_the_next() -> None:
    upkeep = settle_queue(1, [a_claim(1, State.HELD, alive=False), a_claim(2)], NOW)

    assert [claim.ticket for claim in upkeep.gone] == [1]
    assert [claim.ticket for claim in upkeep.granted] == [2]


def test_a_holder_needs_nobody_to_wait_for_it() -> None:
    assert not settle_queue(1, [a_claim(1, State.HELD, awaited=False)], NOW)


def test_a_waiter_whose_catalog_died_leaves_the_line() -> None:
    upkeep = settle_queue(1, [a_claim(1, awaited=False), a_claim(2)], NOW)

    assert [claim.ticket for claim in upkeep.left] == [1]
    assert [claim.ticket for claim in upkeep.granted] == [2]


def test_a_grant_that_nobody_picked_up_passes_on() -> None:
    upkeep = settle_queue(1, [a_claim(1, State.GRANTED, awaited=False), a_claim(2)], NOW)

    assert [claim.ticket for claim in upkeep.gone] == [1]
    assert [claim.ticket for claim in upkeep.granted] == [2]


def test_whoever_left_is_forgotten_after_a_while() -> None:
    assert not settle_queue(1, [a_claim(1, State.LEFT, since=NOW - LEFT_KEPT)], NOW)
    assert settle_queue(1, [a_claim(1, State.LEFT, since=NOW - LEFT_KEPT - timedelta(seconds=1))], NOW).gone


def test_a_place_is_resumed_by_the_same_request_unless_somebody_behind_was_served() -> None:
    left = a_claim(4, State.LEFT)

    assert may_resume(left, "q4", 3)
    assert not may_resume(left, "q4", 5)
    assert not may_resume(left, "other", 3)
    assert not may_resume(left, "", 3)


claims = st.lists(
    st.builds(a_claim, st.integers(1, 30), st.sampled_from(State), alive=st.booleans(), awaited=st.booleans()),
    unique_by=lambda claim: claim.ticket,
)


@given(claims, st.integers(1, 4))
def test_upkeep_never_exceeds_the_capacity_and_never_passes_anybody_over(everybody: list[Claim], capacity: int) -> None:
    upkeep = settle_queue(capacity, everybody, NOW)
    removed = {claim.ticket for claim in (*upkeep.gone, *upkeep.left)}
    slotted = [claim for claim in everybody if claim.has_slot and claim.ticket not in removed]
    waiting = sorted(c.ticket for c in everybody if c.state is State.WAITING and c.ticket not in removed)

    assert len(upkeep.granted) <= max(capacity - len(slotted), 0)
    assert [claim.ticket for claim in upkeep.granted] == waiting[: len(upkeep.granted)]
    assert all(claim.alive and claim.awaited for claim in upkeep.granted)
    assert not (waiting[len(upkeep.granted) :] and len(slotted) + len(upkeep.granted) < capacity)


def test_a_semaphore_counts_its_free_slots() -> None:
    semaphore = Semaphore(scope=SCOPE, capacity=3, claims=(a_claim(1, State.HELD), a_claim(2, State.GRANTED), a_claim(3)))

    assert [claim.ticket for claim in semaphore.holders] == [1, 2]
    assert [claim.ticket for claim in semaphore.waiters] == [3]
    assert semaphore.available == 1
    assert Semaphore(scope=SCOPE).available == 1


def test_requests_are_limited() -> None:
    assert checked_capacity(0) == 1
    assert checked_capacity(64) == 64
    assert checked_timeout(0) == timedelta(seconds=600)
    assert checked_timeout(3600) == timedelta(hours=1)
    with pytest.raises(InvalidArgument):
        checked_capacity(65)
    with pytest.raises(InvalidArgument):
        checked_timeout(3601)
    for name in ("", "a\n", "x" * 129):
        with pytest.raises(InvalidArgument):
            check_semaphore_name(name)
