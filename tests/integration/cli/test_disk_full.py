"""A bucket on a disk that is full for a while: what was going on goes on by itself, on the same host, once there is space."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.cli.conftest import Maand
from tests.integration.cli.test_runs import a_waiting_job, end, hook_pids, is_gone, waiting
from tests.testbed.full_disk import kept_full, mounted_disk
from tests.waiting import wait_until

pytestmark = pytest.mark.timeout(240)

SIZE = "24m"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a small file system of its own."""
    with mounted_disk(tmp_path / "disk", size=SIZE) as disk:
        yield disk


@pytest.fixture
def maand(disk: Path) -> Iterator[Maand]:
    """Make a bucket on it."""
    directory = disk / "bucket"
    directory.mkdir()
    maand = Maand(bucket=directory)
    maand.must("init")
    yield maand
    maand.end()


@pytest.fixture
def place(maand: Maand, tmp_path: Path) -> Path:
    """Give the bucket the job whose hook waits, and return where it waits: on another disk."""
    return a_waiting_job(maand, tmp_path)


def test_a_run_that_lost_its_lease_on_a_full_disk_goes_on_once_there_is_space(maand: Maand, place: Path, disk: Path) -> None:
    building = maand.start("build")
    waiting(maand, place)
    host, killed = maand.services()["pid"], hook_pids(place)[0]
    with kept_full(disk, maand.bucket / "logs/services.log"):
        wait_until(lambda: is_gone(killed), what="the loss of the lease, which cannot be renewed on a full disk", told=maand.log)
        refused = maand("kv", "set", "vars/notes", "key", "value")
        assert maand("runs", "list").code == 0, "reading needs no space"
    assert refused.code == 7, refused
    assert "the disk is full" in refused.err
    assert str(maand.bucket / "data/maand.db") in refused.err
    assert "help: free some space" in refused.err
    waiting(maand, place, times=2)
    (place / "go").touch()
    code, said = end(building)
    assert code == 0, said
    maand.must("kv", "set", "vars/notes", "key", "value")
    maand.must("build")
    assert maand.services()["pid"] == host
    assert "log_lines_lost=" in maand.log()
