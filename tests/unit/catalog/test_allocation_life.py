"""The life of allocations through any sequence of builds and moves."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maand_catalog.rules.build.allocations import (
    ALLOWED_MOVES,
    Allocation,
    AllocationState,
    MoveNotAllowed,
    Target,
    allocation_id_of,
    check_allocation_move,
    keep_allocation,
    owes_start,
    place_allocation,
    retire_allocation,
    with_state,
)

S = AllocationState
NOW = datetime(2026, 1, 2, tzinfo=UTC)
BUCKET = "5f0c3c1e-6f6c-4b0e-9f52-000000000001"
ACTS = st.lists(
    st.one_of(
        st.tuples(st.just("build"), st.sampled_from([b"one", b"two"]), st.booleans()),
        st.tuples(st.just("leave"), st.just(b""), st.booleans()),
        st.tuples(st.just("move"), st.sampled_from(list(S)), st.booleans()),
    ),
    max_size=25,
)


def a_target(*, sha256: bytes = b"one", disabled: bool = False) -> Target:
    return Target(job="api", worker="10.0.0.1", position=0, disabled=disabled, version="1.0.0", sha256=sha256)


def an_allocation(state: AllocationState = S.PROMOTED, **fields: object) -> Allocation:
    return replace(place_allocation(BUCKET, a_target(), NOW), state=state, promoted_target_sha256=b"one", **fields)  # type: ignore[arg-type]


@given(ACTS)
def test_whatever_happens_flags_state_and_target_agree(acts: list[tuple[str, object, bool]]) -> None:
    each = place_allocation(BUCKET, a_target(), NOW)
    stopped = False  # a stop was begun, and it was not promoted since
    for act, what, disabled in acts:
        moves = each.moves
        if act == "build":
            each = keep_allocation(each, a_target(sha256=what, disabled=disabled), NOW)  # type: ignore[arg-type]
        elif act == "leave":
            each = retire_allocation(each, NOW)
        else:
            try:
                check_allocation_move(each, what)  # type: ignore[arg-type]
            except MoveNotAllowed:
                continue
            if what in (S.STOPPED, S.REMOVED) or (what is S.DEPLOYING and (each.disabled or each.removed)):
                stopped = True
            each = replace(each, start_owed=owes_start(each, what))  # type: ignore[arg-type]
            each = with_state(each, what, "", NOW)  # type: ignore[arg-type]
            if what is S.PROMOTED:
                stopped = False
                each = replace(each, promoted_target_sha256=each.target_sha256)

        assert each.moves >= moves
        assert each.start_owed == stopped
        if each.state is S.REMOVED:
            assert each.removed
        if each.state is S.PLANNED:
            assert not each.removed
            assert each.promoted_target_sha256 == b""
        if each.state is S.PROMOTED and not each.removed:
            assert each.target_sha256 == each.promoted_target_sha256


@pytest.mark.parametrize("state", list(S))
def test_staying_is_allowed_and_nothing_is_planned_or_left_by_a_run(state: AllocationState) -> None:
    each = an_allocation(state, removed=state is S.REMOVED, disabled=state is S.STOPPED)

    check_allocation_move(each, state)
    assert S.PLANNED not in ALLOWED_MOVES[state]
    assert not ALLOWED_MOVES[S.REMOVED]


@pytest.mark.parametrize(
    ("flags", "owed", "to", "after"),
    [
        ({}, False, S.DEPLOYING, False),
        ({}, False, S.FAILED, False),
        ({}, True, S.DEPLOYING, True),
        ({}, True, S.FAILED, True),
        ({}, True, S.PENDING, True),
        ({}, True, S.PROMOTED, False),
        ({"disabled": True}, False, S.DEPLOYING, True),
        ({"removed": True}, False, S.DEPLOYING, True),
        ({"disabled": True}, False, S.STOPPED, True),
        ({"removed": True}, False, S.REMOVED, True),
        ({"disabled": True}, False, S.FAILED, False),
        ({"disabled": True}, True, S.PROMOTED, False),
    ],
)
def test_a_start_is_owed_from_the_beginning_of_a_stop_until_the_next_promotion(
    flags: dict[str, bool], owed: bool, to: AllocationState, after: bool
) -> None:
    assert owes_start(an_allocation(S.PROMOTED, start_owed=owed, **flags), to) is after


def test_what_came_back_still_is_owed_its_start() -> None:
    gone = an_allocation(S.REMOVED, removed=True, start_owed=True)

    assert keep_allocation(gone, a_target(), NOW).start_owed


def test_ids_are_stable_and_differ_by_bucket_job_and_worker() -> None:
    assert allocation_id_of(BUCKET, "api", "a") == allocation_id_of(BUCKET, "api", "a")
    other = "5f0c3c1e-6f6c-4b0e-9f52-000000000002"
    assert (
        len(
            {
                allocation_id_of(*names)
                for names in ((BUCKET, "api", "a"), (BUCKET, "api", "b"), (BUCKET, "db", "a"), (other, "api", "a"))
            }
        )
        == 4
    )


def test_a_failed_attempt_stays_failed_through_builds() -> None:
    assert keep_allocation(an_allocation(S.FAILED), a_target(sha256=b"two"), NOW).state is S.FAILED


def test_a_build_says_why_an_allocation_is_pending() -> None:
    after = keep_allocation(an_allocation(), a_target(sha256=b"two"), NOW)

    assert (after.state, after.message, after.moves) == (S.PENDING, "something newer was built", 1)


def test_an_allocation_that_is_still_wanted_does_not_change() -> None:
    before = an_allocation()

    assert keep_allocation(before, a_target(), NOW) == before
