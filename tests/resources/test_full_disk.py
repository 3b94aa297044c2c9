"""The bucket's disk is full from the beginning of each phase on, until something complains; then everything goes on by itself."""

import subprocess

import pytest

from tests.resources.conftest import Bed
from tests.testbed.full_disk import kept_full, mounted_disk
from tests.waiting import wait_until

pytestmark = [pytest.mark.resources, pytest.mark.timeout(300)]

COMPLAINTS = ("the disk is full", "cannot be used", "lease not renewed", "catalog away", "No space left")


def complained(bed: Bed, seen: int) -> bool:
    return any(word in bed.maand.log()[seen:] for word in COMPLAINTS)


def end(command: "subprocess.Popen[str]") -> str:
    """Return what a command said, however it ended."""
    out, err = command.communicate(timeout=120)
    return f"{out}{err}[{command.returncode}]"


@pytest.mark.parametrize("phase", ["scan", "post_build"])
def test_a_disk_that_is_full_during_a_build(bed: Bed, phase: str) -> None:
    bed.maand.must("services", "start")
    host, seen = bed.maand.services()["pid"], len(bed.maand.log())
    if phase == "scan":
        with kept_full(bed.disk):
            said = end(bed.maand.start("build"))
        assert "the disk is full" in said or "No space left" in said, said
    else:
        fill_at(bed, bed.maand.start("build"), phase, seen)
    bed.settle()
    assert bed.maand.services()["pid"] == host


@pytest.mark.parametrize("phase", ["beginning", "pre_deploy", "start", "after_allocation_started", "health_check", "post_deploy"])
def test_a_disk_that_is_full_during_a_deploy(bed: Bed, phase: str) -> None:
    bed.maand.must("build")
    host, seen = bed.maand.services()["pid"], len(bed.maand.log())
    if phase == "beginning":
        with kept_full(bed.disk):
            said = end(bed.maand.start("deploy"))
        assert "the disk is full" in said, said
    else:
        fill_at(bed, bed.maand.start("deploy"), phase, seen)
    bed.settle()
    assert bed.maand.services()["pid"] == host


def fill_at(bed: Bed, command: "subprocess.Popen[str]", phase: str, seen: int) -> None:
    """Fill the disk when a phase begins, free it when somebody complained or the command ended, and wait for its end."""
    wait_until(lambda: bed.places.has_begun(phase), what=f"the beginning of {phase}", told=bed.maand.log)
    with kept_full(bed.disk):
        bed.places.let_go(phase)
        wait_until(lambda: command.poll() is not None or complained(bed, seen), what="a complaint", told=bed.maand.log)
    end(command)


def test_a_full_disk_of_the_executor_alone_is_told_with_its_directory_and_is_no_worker_s_fault(bed: Bed) -> None:
    bed.maand.must("build")
    bed.maand.must("services", "stop")
    with mounted_disk(bed.maand.bucket / "tmp", size="8m") as state:
        with kept_full(state):
            bed.maand.must("services", "start")
            host = bed.maand.services()["pid"]
            said = bed.maand("deploy")
        assert said.code in (1, 3), said
        assert "the disk is full" in said.err
        assert f"where maand runs: {state}" in said.err
        assert "help: free some space" in said.err
        assert "internal" not in said.err
        bed.settle()
        assert bed.maand.services()["pid"] == host
        bed.maand.must("services", "stop")


def test_a_full_disk_of_the_log_alone_keeps_nobody_from_anything(bed: Bed) -> None:
    logs = bed.maand.bucket / "logs"
    logs.unlink()
    with mounted_disk(logs, size="64k") as disk, kept_full(disk, disk / "services.log"):
        bed.settle()
        bed.maand.must("services", "stop")
