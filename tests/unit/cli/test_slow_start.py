"""A host that starts slowly is waited for as long as it gets on, and whoever waits is told so."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from maand_cli import __version__
from maand_cli.errors import ServiceUnreachable
from maand_cli.local import services
from maand_cli.local.bucket import Bucket

BUSY = """
import json, os, pathlib, socket, sys, time
while not pathlib.Path("go").exists():
    sum(range(100_000))
    time.sleep(0.01)
sockets = [socket.socket(socket.AF_UNIX) for _ in range(2)]
os.chdir("run")
for number, each in enumerate(sockets):
    each.bind(f"{number}.sock")
    each.listen()
os.chdir("..")
here, addresses = os.stat("."), [f"unix:{os.getcwd()}/run/{number}.sock" for number in range(2)]
about = {"pid": os.getpid(), "version": sys.argv[1], "catalog": addresses[0], "executor": addresses[1],
    "hook_api": "", "started_at": "", "bucket": os.getcwd(), "device": here.st_dev, "inode": here.st_ino}
pathlib.Path("run/services.json").write_text(json.dumps(about))
time.sleep(600)
"""
STILL = "import time; time.sleep(600)"


@pytest.fixture
def spawn(bucket: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Let a script stand for the host."""
    started: list[subprocess.Popen[bytes]] = []
    (bucket / "run").mkdir()

    def use(script: str) -> None:
        def start(_: Bucket, __: object) -> "subprocess.Popen[bytes]":
            started.append(subprocess.Popen([sys.executable, "-c", script, __version__], cwd=bucket))
            return started[-1]

        monkeypatch.setattr(services, "_spawn", start)

    yield use
    for process in started:
        process.kill()
        process.wait()


def test_a_host_that_gets_on_is_waited_for_longer_than_one_may_stand_still(bucket: Path, spawn: Callable[[str], None]) -> None:
    spawn(BUSY)
    told: list[str] = []

    def say(text: str) -> None:
        told.append(text)
        if len(told) == 4:  # twice as long as it might stand still
            (bucket / "go").touch()

    running = services.start_services(Bucket(path=bucket), say, still_seconds=2, tell_seconds=1)
    assert running.version == __version__
    assert told[0].startswith("still starting the services of this bucket, ")


def test_a_host_that_stands_still_is_given_up(bucket: Path, spawn: Callable[[str], None]) -> None:
    spawn(STILL)
    with pytest.raises(ServiceUnreachable, match="did not come up"):
        services.start_services(Bucket(path=bucket), still_seconds=1)


def test_a_process_that_works_makes_progress_and_one_that_is_gone_none(bucket: Path) -> None:
    log = bucket / "log"
    log.touch()
    before = services.measure_progress(os.getpid(), log)
    sum(range(10_000_000))
    assert services.measure_progress(os.getpid(), log) != before
    assert services.measure_progress(2**22 + 1, log) == ()
