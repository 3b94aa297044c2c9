"""Hook processes of every kind: nothing blocks, memory stays bounded, the outcome is right, nothing is left behind."""

import asyncio
import json
import os
import resource
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from maand_executor.hooks.process import Command, GroupProcess, ProcessEnd, supervise_process
from maand_executor.hooks.subreaper import Subreaper
from maand_executor.rules.facts import InvocationOutcome
from tests.integration.executor.hook_bed import is_alive, until

SECOND = timedelta(seconds=1)
LIMIT = 2 * SECOND
"""Long enough for a hook to begin on a busy machine, short enough to wait for."""


class Output:
    """What came out, counted, and the end of it."""

    def __init__(self) -> None:
        self.size = {"stdout": 0, "stderr": 0}
        self.end = b""

    def __call__(self, stream: str, data: bytes) -> None:
        self.size[stream] += len(data)
        self.end = (self.end + data)[-100:]


Run = Callable[..., Awaitable[tuple[ProcessEnd, Output]]]


@pytest.fixture
def subreaper() -> Iterator[Subreaper]:
    subreaper = Subreaper()
    yield subreaper
    subreaper.close()


@pytest.fixture
def run(tmp_path: Path, subreaper: Subreaper) -> Run:
    async def run(
        script: str,
        *,
        limit: timedelta = 20 * SECOND,
        asked: "asyncio.Future[InvocationOutcome] | None" = None,
        grace: timedelta = 10 * SECOND,
    ) -> tuple[ProcessEnd, Output]:
        (tmp_path / "hook.py").write_text(textwrap.dedent(script))
        output = Output()
        command = Command(arguments=(sys.executable, "hook.py"), directory=tmp_path, environment={"PATH": os.environ["PATH"]})
        process = GroupProcess.start(command, subreaper=subreaper, on_output=output)
        asked = asked or asyncio.get_running_loop().create_future()
        return await supervise_process(process, limit=limit, asked_to_end=asked, grace=grace), output

    return run


@pytest.fixture
async def longest_pause() -> AsyncIterator[Callable[[], float]]:
    """Watch the event loop: how long did it not come round?"""
    pauses = [0.0]

    async def watch() -> None:
        while True:
            began = time.monotonic()
            await asyncio.sleep(0.01)
            pauses.append(time.monotonic() - began - 0.01)

    task = asyncio.create_task(watch())
    yield lambda: max(pauses)
    task.cancel()


async def test_a_hook_that_ends_well_succeeds(run: Run) -> None:
    end, output = await run("print('done')")
    assert (end.return_code, end.ended_as) == (0, None)
    assert output.end == b"done\n"
    assert end.duration < 60 * SECOND


async def test_an_exit_code_is_reported(run: Run) -> None:
    end, _ = await run("raise SystemExit(3)")
    assert (end.return_code, end.ended_as) == (3, None)


async def test_a_hook_that_dies_by_a_signal_says_which(run: Run) -> None:
    end, _ = await run("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    assert (end.return_code, end.ended_as) == (-signal.SIGSEGV, None)


async def test_standard_input_is_empty(run: Run) -> None:
    _, output = await run("import sys; print(repr(sys.stdin.read()))")
    assert output.end == b"''\n"


async def test_a_hook_leads_a_session_of_its_own(run: Run) -> None:
    _, output = await run("import os; print(os.getpid() == os.getsid(0) == os.getpgid(0))")
    assert output.end == b"True\n"


async def test_two_hundred_megabytes_are_read_without_blocking_and_without_memory(
    run: Run, longest_pause: Callable[[], float]
) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    end, output = await run(
        """
        import sys
        block = b"x" * 1023 + b"\\n"
        for _ in range(200):
            sys.stdout.buffer.write(block * 1024)
        """
    )
    assert (end.return_code, output.size["stdout"]) == (0, 200 * 1024 * 1024)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20 * 1024
    assert longest_pause() < 3


async def test_both_streams_are_read_at_once(run: Run) -> None:
    end, output = await run(
        """
        import sys
        for _ in range(100):
            sys.stderr.buffer.write(b"e" * 100_000)
            sys.stdout.buffer.write(b"o" * 100_000)
        """
    )
    assert (end.return_code, output.size) == (0, {"stdout": 10_000_000, "stderr": 10_000_000})


async def test_a_hook_that_closes_its_output_and_goes_on_is_waited_for(run: Run) -> None:
    end, _ = await run(
        """
        import os, time
        os.close(1), os.close(2)
        time.sleep(0.5)
        os._exit(4)
        """
    )
    assert end.return_code == 4
    assert end.duration >= 0.4 * SECOND  # its clock begins a little after the process did


async def test_a_child_left_behind_delays_nothing_and_is_killed(run: Run) -> None:
    end, output = await run(
        """
        import subprocess
        print(subprocess.Popen(["sleep", "60"]).pid, flush=True)
        """
    )
    assert end.return_code == 0
    assert end.duration < 30 * SECOND
    await until(lambda: not is_alive(int(output.end)))


async def test_a_daemon_in_a_session_of_its_own_that_keeps_the_pipes_delays_nothing(run: Run) -> None:
    end, output = await run(
        """
        import subprocess
        print(subprocess.Popen(["sleep", "60"], start_new_session=True).pid, flush=True)
        """
    )
    os.kill(int(output.end), signal.SIGKILL)
    assert (end.return_code, end.ended_as) == (0, None)
    assert end.duration < 30 * SECOND


async def test_a_daemon_that_writes_for_ever_delays_nothing_and_ends_when_nobody_reads(run: Run, tmp_path: Path) -> None:
    end, _ = await run(
        """
        import pathlib, subprocess
        child = subprocess.Popen(["yes"], start_new_session=True)
        pathlib.Path("pid").write_text(str(child.pid))
        """
    )
    assert end.duration < 30 * SECOND
    await until(lambda: not is_alive(int((tmp_path / "pid").read_text())))


async def test_a_timeout_ends_the_group_by_term_and_is_told_from_a_failure(run: Run) -> None:
    end, output = await run("import time; print('began', flush=True); time.sleep(60)", limit=LIMIT)
    assert (end.return_code, end.ended_as) == (-signal.SIGTERM, InvocationOutcome.TIMED_OUT)
    assert output.end == b"began\n"


async def test_a_hook_may_use_the_grace_to_tidy_up(run: Run) -> None:
    end, output = await run(
        """
        import signal, time
        def tidy(*_):
            print("tidied", flush=True)
            raise SystemExit(0)
        signal.signal(signal.SIGTERM, tidy)
        print("began", flush=True)
        time.sleep(60)
        """,
        limit=LIMIT,
    )
    assert (end.return_code, end.ended_as) == (0, InvocationOutcome.TIMED_OUT)
    assert output.end.endswith(b"tidied\n")


async def test_a_hook_and_child_that_ignore_term_are_killed_after_the_grace(run: Run) -> None:
    end, output = await run(
        """
        import signal, subprocess, time
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        print(subprocess.Popen(["sleep", "60"]).pid, flush=True)
        while True:
            time.sleep(60)
        """,
        limit=LIMIT,
        grace=0.5 * SECOND,
    )
    assert (end.return_code, end.ended_as) == (-signal.SIGKILL, InvocationOutcome.TIMED_OUT)
    assert LIMIT < end.duration < 30 * SECOND
    await until(lambda: not is_alive(int(output.end)))


async def test_being_asked_to_end_is_done_at_once(run: Run) -> None:
    asked: asyncio.Future[InvocationOutcome] = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_later(0.3, asked.set_result, InvocationOutcome.CANCELLED)
    end, _ = await run("import time; time.sleep(60)", asked=asked)
    assert (end.return_code, end.ended_as) == (-signal.SIGTERM, InvocationOutcome.CANCELLED)
    assert end.duration < 30 * SECOND


async def test_a_cancelled_task_leaves_no_process(run: Run, tmp_path: Path) -> None:
    task = asyncio.ensure_future(
        run("import os, pathlib, time; pathlib.Path('pid').write_text(str(os.getpid())); time.sleep(60)")
    )
    await until(lambda: (tmp_path / "pid").exists() and bool((tmp_path / "pid").read_text()))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not is_alive(int((tmp_path / "pid").read_text()))


async def test_a_stopped_process_is_ended_too(run: Run) -> None:
    end, _ = await run("import os, signal; os.kill(os.getpid(), signal.SIGSTOP)", limit=LIMIT, grace=0.2 * SECOND)
    assert end.return_code == -signal.SIGKILL


WITHOUT_POWER = """
import asyncio, json, os, sys
from datetime import timedelta
from pathlib import Path
from maand_executor.hooks.process import Command, GroupProcess, supervise_process
from maand_executor.hooks.subreaper import Subreaper

async def main():
    words = ("setpriv", "--reuid=54321", "--regid=54321", "--clear-groups", "sleep", "4321")
    environment = {"PATH": "/usr/bin:/bin", "HOOK_API_TOKEN": "a-token"}
    command = Command(arguments=words, directory=Path("."), environment=environment)
    turns = 0

    async def count():
        nonlocal turns
        while True:
            await asyncio.sleep(0.01)
            turns += 1

    counting = asyncio.create_task(count())
    process = GroupProcess.start(command, subreaper=Subreaper(), on_output=lambda *_: None)
    print("pid", process.pid, flush=True)
    never = asyncio.get_running_loop().create_future()
    limit = timedelta(seconds=1)
    end = await supervise_process(process, limit=limit, asked_to_end=never, grace=limit)
    print(json.dumps({"left": end.left_running, "as": end.ended_as, "code": end.return_code, "turns": turns}), flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    while os.path.exists(f"/proc/{end.left_running}"):
        await asyncio.sleep(0.01)
    print("reaped")

asyncio.run(main())
"""


async def next_line(stream: asyncio.StreamReader, start: bytes) -> bytes:
    """Return the next line that begins so; there are lines of the log between."""
    while not (line := await asyncio.wait_for(stream.readline(), 60)).startswith(start):
        assert line
    return line


async def test_a_process_that_cannot_be_killed_holds_nobody_up_is_told_and_reaped_when_it_dies(tmp_path: Path) -> None:
    """As root without the power to kill others' processes: it is what an executor of a plain user is to `sudo`."""
    powerless = ("setpriv", "--bounding-set=-kill", "--inh-caps=-kill", sys.executable, "-c", WITHOUT_POWER)
    pipe = asyncio.subprocess.PIPE
    executor = await asyncio.create_subprocess_exec(*powerless, cwd=tmp_path, stdin=pipe, stdout=pipe)
    assert executor.stdin
    assert executor.stdout
    pid = int((await next_line(executor.stdout, b"pid ")).split()[1])
    try:
        told = json.loads(await next_line(executor.stdout, b"{"))
        assert (told["left"], told["as"], told["code"]) == (pid, "timed_out", -signal.SIGKILL)
        assert told["turns"] > 50, "the event loop went on"
        assert is_alive(pid)
    finally:
        os.kill(pid, signal.SIGKILL)
    executor.stdin.write(b"\n")
    assert await next_line(executor.stdout, b"reaped") == b"reaped\n"
    assert await executor.wait() == 0


async def test_a_program_that_is_not_there_is_an_error_and_leaves_nothing(tmp_path: Path, subreaper: Subreaper) -> None:
    command = Command(arguments=("/nowhere/python",), directory=tmp_path / "missing", environment={})
    with pytest.raises(FileNotFoundError):
        GroupProcess.start(command, subreaper=subreaper, on_output=Output())


EXECUTOR = """
import asyncio, sys
from datetime import timedelta
from pathlib import Path
from maand_executor.hooks.process import Command, GroupProcess, supervise_process
from maand_executor.hooks.subreaper import Subreaper

async def main():
    command = Command(arguments=(sys.executable, "hook.py"), directory=Path("."), environment={"PATH": "/usr/bin:/bin"})
    process = GroupProcess.start(command, subreaper=Subreaper(), on_output=lambda *_: None)
    await supervise_process(process, limit=timedelta(minutes=1), asked_to_end=asyncio.get_running_loop().create_future())

asyncio.run(main())
"""

HOOK_WITH_CHILD = """
import os, pathlib, subprocess, time
child = subprocess.Popen(["sleep", "60"])
pathlib.Path("pids.new").write_text(f"{os.getpid()} {child.pid}")
os.rename("pids.new", "pids")
time.sleep(60)
"""


async def test_kill_9_of_the_executor_ends_the_hook_and_what_it_had_started(tmp_path: Path) -> None:
    (tmp_path / "hook.py").write_text(HOOK_WITH_CHILD)
    executor = await asyncio.create_subprocess_exec(sys.executable, "-c", EXECUTOR, cwd=tmp_path)
    try:
        await until(lambda: (tmp_path / "pids").exists())
    finally:
        executor.kill()
        await executor.wait()
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    await until(lambda: not any(map(is_alive, pids)))


def test_the_subreaper_kills_only_what_is_still_on_its_list(tmp_path: Path) -> None:
    subreaper = Subreaper()
    sleepers = [subprocess.Popen(["sleep", "60"], start_new_session=True) for _ in range(4)]
    for sleeper in sleepers:
        subreaper.watch(sleeper.pid)
    for sleeper in (sleepers[0], sleepers[3]):
        subreaper.forget(sleeper.pid)
    subreaper.close()
    assert [sleeper.wait(timeout=60) for sleeper in sleepers[1:3]] == [-signal.SIGKILL] * 2
    assert [sleeper.poll() for sleeper in (sleepers[0], sleepers[3])] == [None, None]
    for sleeper in (sleepers[0], sleepers[3]):
        sleeper.kill()
        sleeper.wait()
