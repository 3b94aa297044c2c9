"""One hook process and its group: started in a session of its own, read without pause, ended as a whole.

    start -> output ... -> the process exits            -> kill its group, read the rest, reap, end what left it
                        -> timeout, cancel, shutdown: TERM to group and what left it, 10 s of grace, KILL, then the same
                           -> not even KILL ends it (another user's, or stuck in the kernel): told, and reaped when it dies

- The process is noticed as dead through a pidfd while it still is a zombie: its group id cannot belong to anybody else yet when
  what it left behind is killed.
- Pipes are read in chunks for as long as they bring something, whatever becomes of it: a hook never waits for its reader. A child
  that keeps a pipe open after the hook exited delays nothing.
- What left the group is found by the token that the command's environment holds, if it does: see `left_behind`.
- It dies with this process: `setpriv --pdeathsig KILL` where there is one, and the subreaper for what the hook itself started.
  (`preexec_fn` could do it too and costs a full fork, 20 ms from a large process.)
"""

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cache
from pathlib import Path
from shutil import which
from typing import Any, Self

import structlog

from maand_executor.hooks.left_behind import MOMENT
from maand_executor.hooks.subreaper import Subreaper
from maand_executor.rules.facts import InvocationOutcome
from maand_executor.rules.hook_environment import API_TOKEN_NAME

log = structlog.get_logger("maand.hooks")

GRACE = timedelta(seconds=10)
"""Time between TERM and KILL: the specification's."""
AFTER_KILL = timedelta(seconds=5)
"""How long a killed process may take to be gone: a moment, unless the kernel holds it or we may not kill it."""
CHUNK = 256 * 1024
"""Bytes read at once; four times what a pipe holds by default."""
REST_LIMIT = 4 * CHUNK
"""Bytes read after the exit; more cannot have been written before it, a pipe holds 1 MiB at most."""
HOOK_UMASK = 0o022
"""Hooks make files as a login shell would, not as private as an executor makes its own."""

Stream = str
"""`stdout` or `stderr`."""
OutputSink = Callable[[Stream, bytes], None]


@dataclass(frozen=True, kw_only=True)
class Command:
    """What to start. The environment holds the hook's token and is never shown."""

    arguments: Sequence[str]
    directory: Path
    environment: Mapping[str, str] = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class ProcessEnd:
    """How a process ended. `ended_as` None: by itself. `return_code` is -n for signal n.

    `left_running`: its number, when it is alive all the same, because not even KILL ended it; 0 = it is gone.
    """

    return_code: int
    ended_as: InvocationOutcome | None
    duration: timedelta
    left_running: int = 0


async def supervise_process(
    process: "GroupProcess", *, limit: timedelta, asked_to_end: Awaitable[InvocationOutcome], grace: timedelta = GRACE
) -> ProcessEnd:
    """Follow a process to its end, whichever comes first: its own, the timeout, or being asked to end.

    Cancelling the task ends the process the same way and then goes on as the cancellation it is.
    """
    asked = asyncio.ensure_future(asked_to_end)
    try:
        ended_as = await wait_for_end(process, limit=limit, asked=asked, grace=grace)
    finally:
        asked.cancel()
        process.signal_group(signal.SIGKILL)
        return_code, duration = await asyncio.shield(asyncio.ensure_future(finish_process(process)))
    if return_code is None:
        return ProcessEnd(return_code=-signal.SIGKILL, ended_as=ended_as, duration=duration, left_running=process.pid)
    return ProcessEnd(return_code=return_code, ended_as=ended_as, duration=duration)


async def finish_process(process: "GroupProcess") -> tuple[int | None, timedelta]:
    """Reap a process that is dead or was killed, and end what it left; return its exit code, None = it lives, and its age."""
    await asyncio.wait({process.exited}, timeout=AFTER_KILL.total_seconds())
    return_code, duration = process.finish(), process.age()
    await process.end_what_is_left()
    return return_code, duration


async def wait_for_end(
    process: "GroupProcess", *, limit: timedelta, asked: "asyncio.Future[InvocationOutcome]", grace: timedelta
) -> InvocationOutcome | None:
    """Wait until the process is dead and return why maand ended it, if it did."""
    try:
        ends: set[asyncio.Future[Any]] = {process.exited, asked}
        done, _ = await asyncio.wait(ends, timeout=limit.total_seconds(), return_when=asyncio.FIRST_COMPLETED)
    except asyncio.CancelledError:
        await end_group(process, grace)
        raise
    if process.exited in done:
        return None
    reason = asked.result() if asked in done else InvocationOutcome.TIMED_OUT
    await end_group(process, grace)
    return reason


async def end_group(process: "GroupProcess", grace: timedelta) -> None:
    """Ask the whole group, and what left it, to end; when the grace is over, or this task is cancelled, kill them."""
    process.signal_group(signal.SIGTERM)
    left = asyncio.ensure_future(process.end_left_behind(grace))
    try:
        await asyncio.wait({process.exited, left}, timeout=grace.total_seconds(), return_when=asyncio.ALL_COMPLETED)
    finally:
        process.signal_group(signal.SIGKILL)
        left.cancel()
    await asyncio.wait({left})


class GroupProcess:
    """A started process, the leader of its own session, with both outputs being read."""

    def __init__(
        self, process: "subprocess.Popen[bytes]", pidfd: int, *, token: str, subreaper: Subreaper, on_output: OutputSink
    ) -> None:
        assert process.stdout
        assert process.stderr
        self._process = process
        self._pidfd = pidfd
        self._token = token
        self._subreaper = subreaper
        self._began = time.monotonic()
        self._given_up = False
        self._readers = [
            PipeReader(process.stdout.fileno(), lambda data: on_output("stdout", data)),
            PipeReader(process.stderr.fileno(), lambda data: on_output("stderr", data)),
        ]
        self._loop = asyncio.get_running_loop()
        self.exited: asyncio.Future[None] = self._loop.create_future()
        """Done as soon as the process is dead. Its descendants may not be."""
        self._loop.add_reader(self._pidfd, self._on_exit)

    @classmethod
    def start(cls, command: Command, *, subreaper: Subreaper, on_output: OutputSink) -> Self:
        """Start a command with empty standard input. Raises OSError when it cannot be."""
        process = subprocess.Popen(
            [*death_with_parent(), *command.arguments],
            cwd=command.directory,
            env=command.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,
            umask=HOOK_UMASK,
        )
        token = command.environment.get(API_TOKEN_NAME, "")
        try:
            subreaper.watch(process.pid, token)
            pidfd = os.pidfd_open(process.pid)
        except OSError:
            with process:
                process.kill()
            raise
        return cls(process, pidfd, token=token, subreaper=subreaper, on_output=on_output)

    @property
    def pid(self) -> int:
        """Return the process's number, which is its group's."""
        return self._process.pid

    def age(self) -> timedelta:
        """Return how long ago it was started."""
        return timedelta(seconds=time.monotonic() - self._began)

    def signal_group(self, number: signal.Signals) -> None:
        """Signal every process of the group; what is gone, or became another user's, is left alone."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)

    async def end_left_behind(self, grace: timedelta) -> None:
        """End what left the group while the group is being ended."""
        if self._token:
            await self._subreaper.left_behind.end_carriers(self._token, grace, but_group=self._process.pid)

    async def end_what_is_left(self) -> None:
        """End what left the group, after the group; nothing of it is left when this returns."""
        if self._token:
            await self._subreaper.left_behind.end_carriers(self._token, MOMENT)
            self._subreaper.forget_token(self._token)

    def finish(self) -> int | None:
        """Kill what is left of the group, take in the rest of the output, and return the exit code, -n for signal n.

        None: the leader is alive all the same. Nothing waits for it; it is reaped when it dies.
        """
        self.signal_group(signal.SIGKILL)
        for reader in self._readers:
            reader.finish()
        for pipe in (self._process.stdout, self._process.stderr):
            assert pipe
            pipe.close()
        return_code = self._reap()
        if return_code is None:
            log.warning("a hook's process cannot be ended; it goes on", pid=self.pid)
        return return_code

    def _on_exit(self) -> None:
        self._loop.remove_reader(self._pidfd)
        self.exited.set_result(None)
        if self._given_up:
            self._reap()

    def _reap(self) -> int | None:
        """Return the exit code and forget the process; None, and reap it later, while it lives."""
        return_code = self._process.poll()
        if return_code is None:
            self._given_up = True
            return None
        self._subreaper.forget(self.pid)
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        return return_code


class PipeReader:
    """Reads one pipe from the event loop, a chunk a turn, so that a flood on one leaves time for all others."""

    def __init__(self, descriptor: int, on_data: Callable[[bytes], None]) -> None:
        self._descriptor = descriptor
        self._on_data = on_data
        self._open = True
        self._loop = asyncio.get_running_loop()
        os.set_blocking(descriptor, False)
        self._loop.add_reader(descriptor, self._read)

    def finish(self) -> None:
        """Take in what is in the pipe now, and stop reading."""
        rest = 0
        while self._open and rest < REST_LIMIT:
            count = self._read()
            if count == 0:
                break
            rest += count
        self._stop()

    def _read(self) -> int:
        try:
            data = os.read(self._descriptor, CHUNK)
        except BlockingIOError:
            return 0
        if data:
            self._on_data(data)
        else:
            self._stop()
        return len(data)

    def _stop(self) -> None:
        if self._open:
            self._open = False
            self._loop.remove_reader(self._descriptor)


@cache
def death_with_parent() -> tuple[str, ...]:
    """Return the launcher that makes a process die with the thread that started it; empty where there is none.

    All hooks are started from the event loop's thread, which lives as long as the executor. Without the launcher (util-linux
    before 2.33, other systems) the subreaper does it alone, a moment later.
    """
    launcher = which("setpriv")
    if launcher is None:
        return ()
    arguments = (launcher, "--pdeathsig", "KILL", "--")
    works = subprocess.run([*arguments, "true"], check=False, capture_output=True, stdin=subprocess.DEVNULL).returncode == 0
    return arguments if works else ()
