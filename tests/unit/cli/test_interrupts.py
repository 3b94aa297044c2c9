"""Ctrl-C and lost connections: the command line as a process, the catalog a fake."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from tests.command_line import read_until
from tests.unit.cli.builders import output, started
from tests.unit.cli.conftest import Maand
from tests.unit.cli.fake_catalog import RUN_ID, FakeCatalog, Refusal, ended


@pytest.fixture
def deploying(fake: FakeCatalog, bucket: Path) -> Iterator["subprocess.Popen[str]"]:
    """Start a deploy that goes on until it is cancelled twice, and wait until it is followed."""
    fake.endless = True
    fake.play(started("restart", worker="10.0.0.7"), output("working"))
    process = subprocess.Popen(
        [sys.executable, "-m", "maand_cli", "deploy"], cwd=bucket, env=os.environ, stderr=subprocess.PIPE, text=True
    )
    read_until(process, "working")
    yield process
    process.kill()
    process.communicate()


def test_ctrl_c_once_finishes_the_batch_and_twice_stops_now(fake: FakeCatalog, deploying: "subprocess.Popen[str]") -> None:
    deploying.send_signal(signal.SIGINT)
    assert "still running: api@10.0.0.7 restart" in read_until(deploying, "after the current batch")
    assert fake.cancels == 1
    assert deploying.poll() is None
    deploying.send_signal(signal.SIGINT)
    read_until(deploying, "stopping now")
    assert deploying.wait(60) == 130
    assert fake.cancels == 2


def test_ctrl_c_three_times_leaves_and_says_how_to_come_back(fake: FakeCatalog, deploying: "subprocess.Popen[str]") -> None:
    fake.stopped.set = lambda: None  # type: ignore[method-assign]  # this run takes its time to stop
    for words in ("after the current batch", "stopping now"):
        deploying.send_signal(signal.SIGINT)
        read_until(deploying, words)
    deploying.send_signal(signal.SIGINT)
    assert RUN_ID in read_until(deploying, "maand runs watch")
    assert deploying.wait(60) == 130


def test_ctrl_c_while_an_interrupted_run_is_followed_stops_that_one_and_the_own_run_is_not_begun(
    fake: FakeCatalog, bucket: Path
) -> None:
    facts = {"run_id": RUN_ID, "kind": "deploy", "continued": "yes"}
    fake.answers["CreateRun"] = Refusal(grpc.StatusCode.FAILED_PRECONDITION, "held", code="bucket_held", facts=facts)
    fake.endless = True
    fake.play(output("working"), end=ended("succeeded", kind="deploy"))
    command = [sys.executable, "-m", "maand_cli", "deploy"]
    with subprocess.Popen(command, cwd=bucket, env=os.environ, stderr=subprocess.PIPE, text=True) as process:
        read_until(process, "working")
        for words in ("after the current batch", "stopping now"):
            process.send_signal(signal.SIGINT)
            read_until(process, words)
        assert "your own deploy was not begun" in read_until(process, "not begun")
        assert process.wait(60) == 130
    assert (fake.cancels, len(fake.asked("CreateRun"))) == (2, 1)


def test_a_lost_stream_is_resumed_where_it_broke(fake: FakeCatalog, maand: Maand) -> None:
    fake.drops = 2
    fake.play(output("one"), output("two"), output("three"))
    said = maand("deploy")
    assert said.code == 0
    shown = [line for line in said.err.splitlines() if "|" in line]
    assert [line.rpartition("| ")[2] for line in shown] == ["one", "two", "three"]
    assert [request.after_sequence for request in fake.asked("WatchRun")] == [0, 1, 2]
    assert said.err.count("reconnecting") == 2


def test_following_adds_no_noticeable_time(fake: FakeCatalog, maand: Maand) -> None:
    def seconds() -> float:
        began = time.perf_counter()
        maand("deploy")
        return time.perf_counter() - began

    assert min(seconds() for _ in range(4)) < 1
