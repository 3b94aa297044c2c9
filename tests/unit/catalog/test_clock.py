"""How a replica judges the database's clock: by bounds that hold however long a look took, and in whatever order looks arrive."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from maand_catalog.database.clock import Absence, Look

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
LEASE = timedelta(seconds=15)


def look(at: float, *, began: float = 0.0, took: float = 0.0, set_by: float = 0.0) -> Look:
    """Look at a clock that is right but for `set_by`, at some moment of a look that took its time."""
    return Look(now=NOON + timedelta(seconds=at + set_by), before=at - began, after=at - began + took)


def test_a_clock_that_is_set_is_found_out() -> None:
    assert look(10, set_by=3600).jump_since(look(9)) == timedelta(hours=1)
    assert look(10, set_by=-3600).jump_since(look(9)) == timedelta(hours=-1)


@given(
    first=st.floats(0, 1000),
    second=st.floats(0, 1000),
    took=st.lists(st.floats(0, 60), min_size=2, max_size=2),
    share=st.lists(st.floats(0, 1), min_size=2, max_size=2),
)
def test_no_delay_of_a_look_is_taken_for_a_jump(first: float, second: float, took: list[float], share: list[float]) -> None:
    earlier = look(first, began=took[0] * share[0], took=took[0])
    later = look(second, began=took[1] * share[1], took=took[1])
    assert abs(later.jump_since(earlier)) < timedelta(milliseconds=1)


def test_a_lease_was_the_catalogs_to_lose_when_nobody_was_there_for_most_of_it() -> None:
    away = Absence(since=NOON, until=NOON + timedelta(seconds=20))
    assert away.covers_most_of(lease=LEASE, until=NOON + timedelta(seconds=10))
    assert away.covers_most_of(lease=LEASE, until=NOON + timedelta(seconds=24))
    assert not away.covers_most_of(lease=LEASE, until=NOON + timedelta(seconds=2))
    assert not away.covers_most_of(lease=LEASE, until=NOON + timedelta(seconds=40))
