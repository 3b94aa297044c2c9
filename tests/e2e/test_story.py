"""The story in local mode: a bucket directory, three OpenSSH workers, services that the commands start by themselves."""

from contextlib import suppress
from pathlib import Path

import pytest

from tests.e2e.maand import Bucket
from tests.e2e.the_story import HooksAlive, Story

pytestmark = [pytest.mark.xdist_group("e2e"), pytest.mark.timeout(300)]


class TestStoryInABucketDirectory(Story):
    """Nothing is configured."""


def test_services_that_commands_started_say_that_they_run(bucket: Bucket) -> None:
    bucket.must("build")
    status = bucket.must("services", "status", "-o", "json").json()
    assert status["running"] is True


@pytest.fixture
def hooks_alive(bucket: Bucket) -> HooksAlive:
    """Look for processes in the directories that are made for a bucket's hooks."""
    return lambda: [place for place in working_directories() if place.startswith(f"{bucket.path}/tmp/")]


def working_directories() -> list[str]:
    """Return where the processes of this machine are."""
    places = []
    for entry in Path("/proc").glob("[0-9]*/cwd"):
        with suppress(OSError):
            places.append(str(entry.readlink()))
    return places
