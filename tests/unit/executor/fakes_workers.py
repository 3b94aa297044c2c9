"""Workers in memory for tests of runs: they log what they are told, and fail or hang as a test wants."""

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Self

from maand_executor.rules.facts import (
    Worker,
)
from maand_executor.rules.remote_commands import RemoteCommand, RemoteResult
from maand_executor.ssh.copy import RemoteCopy
from maand_executor.ssh.errors import CopyFailed, SshError, WorkerUnreachable
from maand_executor.ssh.rsync import CopyResult


@dataclass
class FakeRemote:
    """Workers that log what they are told. `fail` maps `<what> <host>` to an exit code."""

    did: list[str]
    fail: dict[str, int] = field(default_factory=dict)
    unreachable: set[str] = field(default_factory=set)
    broken: dict[str, SshError] = field(default_factory=dict)
    refuse: dict[str, SshError] = field(default_factory=dict)
    lacking: dict[str, str] = field(default_factory=dict)
    contacted: set[str] = field(default_factory=set)
    hanging: set[str] = field(default_factory=set)
    """`<what> <host>`: what never ends."""
    said: dict[str, bytes] = field(default_factory=dict)
    """By `<what> <host>`: what a command that fails or hangs says."""
    commands: dict[str, RemoteCommand] = field(default_factory=dict)
    """By `<what> <host>`, the last one."""
    on_command: Callable[[str], None] = lambda _: None

    def telling(self, tell: Callable[[str], None]) -> Self:
        return self

    async def connect(self, worker: Worker) -> None:
        self._reach(worker)

    async def run(self, worker: Worker, command: RemoteCommand, *, on_output: Any = None) -> RemoteResult:
        self._reach(worker)
        what = purpose(command)
        if what == "preflight":
            return RemoteResult(exit_code=0, stdout=self.lacking.get(worker.name, "").encode())
        step = f"{what} {worker.name}"
        self.commands[step] = command
        if what != "describe":
            self.did.append(step)
            self.on_command(step)
        if refused := self.refuse.get(step):
            raise refused
        code = self.fail.get(step, 0)
        if on_output and (code or step in self.hanging):
            on_output("stderr", self.said.get(step, b"no\n"))
        if step in self.hanging:
            await asyncio.Event().wait()
        return RemoteResult(exit_code=code)

    async def copy(self, worker: Worker, copy: RemoteCopy) -> CopyResult:
        self._reach(worker)
        job = copy.target.rpartition("/")[2]
        self.did.append(f"copy {job} {worker.name}")
        self.on_command(self.did[-1])
        if f"copy {job} {worker.name}" in self.fail:
            raise CopyFailed(worker.name, "no space left on device")
        return CopyResult(files_transferred=1)

    def _reach(self, worker: Worker) -> None:
        self.contacted.add(worker.name)
        if worker.name in self.unreachable:
            raise WorkerUnreachable(worker.name, "no route to host")
        if worker.name in self.broken:
            raise self.broken[worker.name]


def purpose(command: RemoteCommand) -> str:
    """Name a command: `start api` for a make target of a job, else one word."""
    made = re.search(r"make -s -C \S*/jobs/(\S+) -- (\S+)", command.script)
    if made:
        return f"{made[2].rstrip(';')} {made[1]}"
    for word, sign in (("preflight", "command -v"), ("describe", "worker.json"), ("remove", "find "), ("purge", "rm -rf -- ")):
        if sign in command.script:
            return word
    return command.script
