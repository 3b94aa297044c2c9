"""Closed pipes and full disks: the command does what was asked and ends with its own exit code; never a traceback."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import grpc
import pytest

from tests.unit.cli.builders import failure, output
from tests.unit.cli.conftest import Maand
from tests.unit.cli.fake_catalog import FakeCatalog, Refusal, ended
from tests.waiting import wait_until

MANY = 5_000
"""Lines, more than a pipe takes."""


@contextmanager
def closed_pipe() -> Iterator[int]:
    """Give the end of a pipe that nobody reads."""
    read_from, write_to = os.pipe()
    os.close(read_from)
    yield write_to
    os.close(write_to)


@contextmanager
def full_disk() -> Iterator[int]:
    """Give a file on a full disk."""
    with Path("/dev/full").open("w") as file:
        yield file.fileno()


def run(bucket: Path, *args: str, stdout: int | IO[str], stderr: int | IO[str] = subprocess.PIPE) -> tuple[int, str]:
    """Run a command; return its exit code and what it said on standard error."""
    command = [sys.executable, "-m", "maand_cli", *args]
    ended = subprocess.run(command, cwd=bucket, stdout=stdout, stderr=stderr, text=True, check=False, timeout=60)
    return ended.returncode, ended.stderr or ""


@pytest.fixture
def failing(fake: FakeCatalog) -> None:
    fake.play(
        output("\n".join(["line"] * MANY)), end=ended("failed", failures=[failure("command", job="api", worker="10.0.0.1")])
    )


@pytest.fixture
def succeeding(fake: FakeCatalog) -> None:
    fake.play(output("\n".join(["line"] * MANY)))


FORMS = [(), ("-o", "json"), ("-o", "jsonl")]
FOLLOWED = [("run_command", "x"), ("deploy",), ("runs", "watch", "01920000-0000-7000-8000-000000000001")]


@pytest.mark.usefixtures("failing")
@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.parametrize("args", FOLLOWED, ids=" ".join)
@pytest.mark.parametrize("outlet", [closed_pipe, full_disk])
def test_a_run_that_fails_is_told_by_the_exit_code_whoever_reads(
    bucket: Path, args: tuple[str, ...], form: tuple[str, ...], outlet: Callable[[], Iterator[int]]
) -> None:
    with outlet() as descriptor:  # type: ignore[attr-defined]
        code, said = run(bucket, *args, *form, stdout=descriptor)
        assert code == 1
        assert "Traceback" not in said
        assert run(bucket, *args, *form, stdout=descriptor, stderr=descriptor)[0] == 1


@pytest.mark.usefixtures("succeeding")
@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.parametrize("args", FOLLOWED, ids=" ".join)
def test_a_reader_that_leaves_makes_no_failure_of_a_run_that_succeeds(
    bucket: Path, args: tuple[str, ...], form: tuple[str, ...]
) -> None:
    with closed_pipe() as descriptor:
        code, said = run(bucket, *args, *form, stdout=descriptor)
        assert code == 0
        assert "error" not in said
        assert run(bucket, *args, *form, stdout=descriptor, stderr=descriptor)[0] == 0


FULL = "error: standard output: No space left on device\n"


@pytest.mark.usefixtures("fake")
@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.parametrize("args", [("info",), ("version",), ("--help",)], ids=" ".join)
def test_a_full_disk_is_named_in_one_line_and_data_that_are_lost_are_no_success(
    bucket: Path, args: tuple[str, ...], form: tuple[str, ...]
) -> None:
    with full_disk() as descriptor:
        assert run(bucket, *form, *args, stdout=descriptor) == (1, FULL)


@pytest.mark.parametrize("form", FORMS[1:], ids=str)
def test_an_error_that_cannot_be_printed_keeps_its_exit_code(fake: FakeCatalog, bucket: Path, form: tuple[str, ...]) -> None:
    fake.answers["ListJobs"] = Refusal(grpc.StatusCode.PERMISSION_DENIED, "you may not", code="permission_denied")
    with full_disk() as descriptor:
        assert run(bucket, "cat", "jobs", *form, stdout=descriptor) == (5, FULL)


@pytest.mark.usefixtures("succeeding")
def test_a_run_that_succeeded_but_whose_output_is_lost_is_no_success(bucket: Path) -> None:
    with full_disk() as descriptor:
        code, said = run(bucket, "run_command", "x", "-o", "json", stdout=descriptor)
    assert (code, said) == (1, FULL)


@pytest.mark.usefixtures("failing")
def test_streams_that_were_closed_before_change_nothing(bucket: Path) -> None:
    for closed in (">&-", "2>&-", ">&- 2>&-"):
        line = f"exec {sys.executable} -m maand_cli deploy {closed}"
        assert subprocess.run(["sh", "-c", line], cwd=bucket, capture_output=True, check=False).returncode == 1


def test_a_follower_without_end_ends_when_its_reader_has_left(bucket: Path) -> None:
    log = bucket / "logs/services.log"
    log.parent.mkdir()
    log.write_text("begun\n")
    with closed_pipe() as descriptor:
        command = [sys.executable, "-m", "maand_cli", "services", "logs", "-f"]
        process = subprocess.Popen(command, cwd=bucket, stdout=descriptor, stderr=subprocess.PIPE)

        def has_ended() -> bool:
            with log.open("a") as file:
                file.write("one more\n")
            return process.poll() is not None

        wait_until(has_ended)
        process.communicate()
    assert process.returncode == 0


def test_a_call_that_takes_too_long_while_a_run_is_followed_is_made_again(fake: FakeCatalog, maand: Maand) -> None:
    late = [Refusal(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded", code="deadline_exceeded")]
    answer = fake._GetRun

    def get_run(request: object) -> object:
        if late:
            raise late.pop()
        return answer(request)

    fake.answers["GetRun"] = get_run  # type: ignore[assignment]
    fake.play(output("hello"))
    said = maand("deploy")
    assert said.code == 0
    assert "lost the services, reconnecting" in said.err
