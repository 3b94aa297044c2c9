"""What a hook left behind outside of its process group, a daemon say, found by the token in its environment and ended.

    look through /proc -> processes that were started with this token -> TERM ... KILL -> look again, until none is found

A process that forked and called `setsid` is nobody's child and in nobody's group, but what it started with still names the
invocation. One look serves all that ask while the look before it is under way, so a thousand hooks that end at once cost few; and
a process that was looked at and carries no token is not looked at again.
Beyond reach is a process that started another program without the token (`env -i`), wrote over its environment, or is or was
another user's whom this one may not look at.
"""

import asyncio
import os
import signal
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import structlog

from maand_executor.rules.hook_environment import API_TOKEN_NAME

log = structlog.get_logger("maand.hooks")

MOMENT = timedelta(seconds=1)
"""Between TERM and KILL when the hook itself is gone: it had its time."""
ROUNDS = 20
"""Looks before giving up on a daemon that multiplies faster than it is killed."""
FRUITLESS_ROUNDS = 3
"""Looks in a row that find nobody new before giving up on processes that cannot be killed."""

Bystanders = frozenset[tuple[int, int]]
"""Processes that carry no token: number and inode in /proc."""


@dataclass
class Look:
    """One look through /proc, shared by those who asked before it began."""

    tokens: set[str] = field(default_factory=set, repr=False)
    found: Mapping[str, Sequence[int]] = field(default_factory=dict, repr=False)
    is_done: bool = False


class LeftBehind:
    """Finds and ends processes that hooks left behind. One per executor."""

    def __init__(self) -> None:
        self._one_at_a_time = asyncio.Lock()
        self._next = Look()
        self._bystanders: Bystanders = frozenset()

    async def end_carriers(self, token: str, grace: timedelta = MOMENT, *, but_group: int = 0) -> None:
        """End every process that carries the token, outside of one group: TERM, grace, KILL.

        Cancelling the task shortens the grace to nothing.
        """
        known: set[int] = set()
        fruitless = 0
        for _ in range(ROUNDS):
            pids = [pid for pid in await self._find(token) if not but_group or group_of(pid) != but_group]
            left = [process for pid in pids if (process := LeftProcess.of(pid, token))]
            if not left:
                return
            await terminate_processes(left, grace)
            grace = timedelta()
            fruitless = 0 if set(pids) - known else fruitless + 1
            known.update(pids)
            if fruitless == FRUITLESS_ROUNDS:
                break
        log.warning("a hook left processes behind that cannot be ended", pids=pids)

    async def _find(self, token: str) -> Sequence[int]:
        look = self._next
        look.tokens.add(token)
        async with self._one_at_a_time:
            if not look.is_done:
                self._next = Look()
                look.found, self._bystanders = await asyncio.to_thread(find_carriers, look.tokens, self._bystanders)
                look.is_done = True
        return look.found.get(token, ())


class LeftProcess:
    """One process, held by a descriptor: its number may become another's, this may not."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._loop = asyncio.get_running_loop()
        self.gone: asyncio.Future[None] = self._loop.create_future()
        """Done as soon as it is dead."""
        self._loop.add_reader(descriptor, self._on_exit)

    @classmethod
    def of(cls, pid: int, token: str) -> "LeftProcess | None":
        """Hold a process; None when it is gone, or not the one that was found."""
        try:
            descriptor = os.pidfd_open(pid)
        except OSError:
            return None
        if token_of(pid) != token:
            os.close(descriptor)
            return None
        return cls(descriptor)

    def signal(self, number: signal.Signals) -> None:
        """Signal it, if it still is there and ours."""
        with suppress(ProcessLookupError, PermissionError):
            signal.pidfd_send_signal(self._descriptor, number)

    def release(self) -> None:
        """Hold it no longer."""
        self._loop.remove_reader(self._descriptor)
        os.close(self._descriptor)
        self.gone.cancel()

    def _on_exit(self) -> None:
        self._loop.remove_reader(self._descriptor)
        if not self.gone.done():
            self.gone.set_result(None)


async def terminate_processes(left: Sequence[LeftProcess], grace: timedelta) -> None:
    """TERM, grace, KILL; when this task is cancelled, KILL at once. They are gone when this returns."""
    try:
        await signal_processes(left, signal.SIGTERM, grace)
    finally:
        try:
            await signal_processes(left, signal.SIGKILL, MOMENT)
        finally:
            for process in left:
                process.release()


async def signal_processes(left: Sequence[LeftProcess], number: signal.Signals, limit: timedelta) -> None:
    """Signal all, and wait until they are gone, or the limit is over."""
    for process in left:
        process.signal(number)
    await asyncio.wait([process.gone for process in left], timeout=limit.total_seconds())


def find_carriers(tokens: set[str], bystanders: Bystanders) -> tuple[Mapping[str, Sequence[int]], Bystanders]:
    """Return the processes that carry one of the tokens, by token, and those that carry none, or do not let us look.

    Those known to carry none are passed over: no process takes up a token later but a hook's first, which leads its group.
    """
    found: dict[str, list[int]] = defaultdict(list)
    without: list[tuple[int, int]] = []
    for process in running_processes():
        token = "" if process in bystanders else token_of(process[0])
        if token in tokens:
            found[token].append(process[0])
        if not token:
            without.append(process)
    return found, frozenset(without)


def running_processes() -> Iterator[tuple[int, int]]:
    """Yield all processes: number and inode, which together are never another process's."""
    with os.scandir("/proc") as entries:
        for entry in entries:
            if entry.name.isdigit():
                yield int(entry.name), entry.inode()


def group_of(pid: int) -> int:
    """Return the process group of a process; 0 when it is gone."""
    with suppress(OSError):
        return os.getpgid(pid)
    return 0


def token_of(pid: int) -> str:
    """Return the token a process was started with; empty when it has none, is gone, or may not be looked at."""
    with suppress(OSError):
        environment = b"\0" + Path(f"/proc/{pid}/environ").read_bytes()
        _, name, rest = environment.partition(f"\0{API_TOKEN_NAME}=".encode())
        return rest.partition(b"\0")[0].decode(errors="replace") if name else ""
    return ""
