"""A fleet of twenty workers: fresh, or one that tests share and that is put right before each."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.fleet.fleet import Fleet, make_fleet, put_right

MakeFleet = Callable[[], Fleet]


@pytest.fixture(scope="session")
def make_fleets(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MakeFleet]:
    """Make fleets that are gone when the session ends."""
    made: list[Fleet] = []

    def make() -> Fleet:
        made.append(make_fleet(Path(tmp_path_factory.mktemp("fleet"))))
        return made[-1]

    yield make
    for fleet in made:
        fleet.close()


@pytest.fixture
def fleet(make_fleets: MakeFleet) -> Iterator[Fleet]:
    """Give a fleet with a bucket in which nothing was built yet."""
    fresh = make_fleets()
    yield fresh
    fresh.close()


@pytest.fixture(scope="session")
def shared(make_fleets: MakeFleet) -> list[Fleet]:
    """Hold the fleet that tests share: none at first."""
    return []


@pytest.fixture
def deployed(shared: list[Fleet], make_fleets: MakeFleet) -> Fleet:
    """Give a fleet with everything deployed: the shared one, or a new one when that cannot be put right."""
    if shared and not put_right(shared[-1]):
        shared.pop().close()
    if not shared:
        shared.append(make_fleets())
        shared[-1].bucket.must("deploy", "--build")
    return shared[-1]
