"""A hook that leaves a daemon behind: forked twice, in its own session, all closed, deaf to TERM. It goes with the hook."""

import asyncio
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from maand_executor.hooks.left_behind import find_carriers
from maand_executor.hooks.process import Command, GroupProcess, ProcessEnd, supervise_process
from maand_executor.hooks.subreaper import Subreaper
from maand_executor.rules.facts import InvocationOutcome
from tests.integration.executor.hook_bed import is_alive, until

TOKEN = f"mh_{secrets.token_hex(16)}"
"""Told from those of tests that run beside this one: what hooks leave behind is looked for on the whole machine."""
OTHER = f"{TOKEN}-not"

DAEMON = """
import os, signal, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.closerange(0, 256)
        with open("pid.new", "w") as file:
            file.write(str(os.getpid()))
        os.rename("pid.new", "pid")
        while True:
            time.sleep(60)
    os._exit(0)
while not os.path.exists("pid"):
    time.sleep(0.01)
if sys.argv[1:] == ["stay"]:
    signal.signal(signal.SIGTERM, lambda *_: print("told to end", flush=True))
    while True:
        time.sleep(60)
"""

EXECUTOR = """
import asyncio, sys
from datetime import timedelta
from pathlib import Path
from maand_executor.hooks.process import Command, GroupProcess, supervise_process
from maand_executor.hooks.subreaper import Subreaper

async def main():
    environment = {"PATH": "/usr/bin:/bin", "HOOK_API_TOKEN": sys.stdin.read()}
    command = Command(arguments=(sys.executable, "hook.py", "stay"), directory=Path("."), environment=environment)
    process = GroupProcess.start(command, subreaper=Subreaper(), on_output=lambda *_: None)
    await supervise_process(process, limit=timedelta(minutes=1), asked_to_end=asyncio.get_running_loop().create_future())

asyncio.run(main())
"""


@pytest.fixture
def subreaper() -> Iterator[Subreaper]:
    subreaper = Subreaper()
    yield subreaper
    subreaper.close()


@pytest.fixture
def bystander() -> Iterator[subprocess.Popen[bytes]]:
    """A process of another invocation, whose token begins like the one of the test."""
    process = subprocess.Popen(["sleep", "60"], env={"PATH": os.environ["PATH"], "HOOK_API_TOKEN": OTHER})
    yield process
    assert process.poll() is None, "another invocation's process was ended"
    process.kill()
    process.wait()


@pytest.fixture(autouse=True)
async def no_leftovers(tmp_path: Path) -> AsyncIterator[None]:
    yield
    if (tmp_path / "pid").exists() and is_alive(daemon(tmp_path)):
        os.kill(daemon(tmp_path), signal.SIGKILL)
        pytest.fail("the daemon outlived the test")


def daemon(directory: Path) -> int:
    return int((directory / "pid").read_text())


async def run_hook(
    directory: Path,
    subreaper: Subreaper,
    *arguments: str,
    limit: float = 30,
    grace: float = 10,
    asked: "asyncio.Future[InvocationOutcome] | None" = None,
    token: str = TOKEN,
) -> ProcessEnd:
    (directory / "hook.py").write_text(DAEMON)
    environment = {"PATH": os.environ["PATH"], "HOOK_API_TOKEN": token}
    command = Command(arguments=(sys.executable, "hook.py", *arguments), directory=directory, environment=environment)
    process = GroupProcess.start(command, subreaper=subreaper, on_output=lambda *_: None)
    asked = asked or asyncio.get_running_loop().create_future()
    return await supervise_process(process, limit=timedelta(seconds=limit), asked_to_end=asked, grace=timedelta(seconds=grace))


async def test_a_daemon_is_gone_when_its_hook_has_ended(
    tmp_path: Path, subreaper: Subreaper, bystander: "subprocess.Popen[bytes]"
) -> None:
    end = await run_hook(tmp_path, subreaper)
    assert (end.return_code, end.ended_as) == (0, None)
    assert not is_alive(daemon(tmp_path))


async def test_a_daemon_is_gone_after_a_timeout_within_the_one_grace(
    tmp_path: Path, subreaper: Subreaper, bystander: "subprocess.Popen[bytes]"
) -> None:
    began = time.monotonic()
    end = await run_hook(tmp_path, subreaper, "stay", limit=3, grace=1)
    assert end.ended_as is InvocationOutcome.TIMED_OUT
    assert not is_alive(daemon(tmp_path))
    assert time.monotonic() - began < 15


async def test_a_daemon_is_gone_after_a_cancel(tmp_path: Path, subreaper: Subreaper) -> None:
    asked: asyncio.Future[InvocationOutcome] = asyncio.get_running_loop().create_future()
    running = asyncio.ensure_future(run_hook(tmp_path, subreaper, "stay", grace=0.5, asked=asked))
    await until((tmp_path / "pid").exists)
    asked.set_result(InvocationOutcome.CANCELLED)
    assert (await running).ended_as is InvocationOutcome.CANCELLED
    assert not is_alive(daemon(tmp_path))


async def test_a_daemon_is_gone_after_its_task_was_cancelled(tmp_path: Path, subreaper: Subreaper) -> None:
    running = asyncio.ensure_future(run_hook(tmp_path, subreaper, "stay", grace=0.5))
    await until((tmp_path / "pid").exists)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert not is_alive(daemon(tmp_path))


async def test_a_daemon_is_gone_after_the_executor_was_killed(tmp_path: Path, bystander: "subprocess.Popen[bytes]") -> None:
    (tmp_path / "hook.py").write_text(DAEMON)
    executor = await asyncio.create_subprocess_exec(sys.executable, "-c", EXECUTOR, cwd=tmp_path, stdin=asyncio.subprocess.PIPE)
    try:
        assert executor.stdin
        executor.stdin.write(TOKEN.encode())
        executor.stdin.close()
        await until((tmp_path / "pid").exists, within=20)
    finally:
        executor.kill()
        await executor.wait()
    await until(lambda: not is_alive(daemon(tmp_path)))


async def test_daemons_of_many_hooks_that_end_at_once_are_all_found(tmp_path: Path, subreaper: Subreaper) -> None:
    directories = [tmp_path / str(number) for number in range(8)]
    for directory in directories:
        directory.mkdir()
    await asyncio.gather(*(run_hook(directory, subreaper, token=f"{TOKEN}-{directory.name}") for directory in directories))
    assert not [directory for directory in directories if is_alive(daemon(directory))]


def test_who_carries_no_token_is_looked_at_once(bystander: "subprocess.Popen[bytes]") -> None:
    found, bystanders = find_carriers({OTHER}, frozenset())
    assert found == {OTHER: [bystander.pid]}
    assert os.getpid() in {pid for pid, _ in bystanders}
    again, still = find_carriers({OTHER}, bystanders)
    assert again == found
    assert os.getpid() in {pid for pid, _ in still}
