"""Workers and hooks as models: what they were told, by whom, and what they are like now.

A worker refuses an act whose fence is older than the newest one it saw, as `fence_text` makes real ones do
(tests/integration/executor/test_ssh_fences.py holds the real ones to it).
"""

import asyncio
import copy as copies
import re
import shlex
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Self

import grpc.aio

from maand_contracts.catalog.v1 import kv_pb2, kv_pb2_grpc, semaphore_pb2, semaphore_pb2_grpc
from maand_executor.hooks.process import Command
from maand_executor.rules.facts import BucketConfig, Worker, WorkerFence
from maand_executor.rules.hook_environment import API_TOKEN_NAME
from maand_executor.rules.remote_commands import RemoteCommand, RemoteResult
from maand_executor.ssh.copy import RemoteCopy
from maand_executor.ssh.execution import OnOutput, Tell, stale_fence_error
from maand_executor.ssh.rsync import CopyResult
from maand_wire.channels import HOOK_CALLER, bearer_header
from tests.crash.acts import CURRENT, Acts

MAKE = re.compile(r"make -s -C (\S+) -- (\S+)")
REMOVED = re.compile(r"(?:find|rm -rf --) (\S+)")


@dataclass(frozen=True, kw_only=True)
class Done:
    """One thing that was done in the world."""

    owner: int
    what: str
    job: str
    worker: str

    @property
    def on(self) -> str:
        """What and where, without who."""
        return f"{self.job}/{self.worker}/{self.what}"


@dataclass(kw_only=True)
class ModelWorker:
    """One worker."""

    fence: tuple[int, int, int] = (0, 0, 0)
    files: dict[str, dict[str, str]] = field(default_factory=dict)
    """By job, then path: mode and content."""
    running: dict[str, str] = field(default_factory=dict)
    """Version by job."""


@dataclass(kw_only=True)
class World:
    """Everything outside of executors and catalog."""

    workers: defaultdict[str, ModelWorker] = field(default_factory=lambda: defaultdict(ModelWorker))
    done: list[Done] = field(default_factory=list)
    acknowledged: dict[tuple[str, str], str] = field(default_factory=dict)
    """What the catalog told hooks that it keeps."""

    def copy(self) -> "World":
        """Return a world of its own that is the same now."""
        return copies.deepcopy(self)

    def note(self, acts: Acts, what: str, *, job: str, worker: str) -> None:
        """Note that something was done."""
        self.done.append(Done(owner=acts.owner, what=what, job=job, worker=worker))

    def check_fence(self, worker: str, fence: WorkerFence | None) -> None:
        """Raise `StaleFence` for a fence that is older than the newest one seen there."""
        if fence is None:
            return
        ours, seen = (fence.epoch, fence.seq, fence.number), self.workers[worker].fence
        if ours < seen:
            raise stale_fence_error(worker, fence, seen=(str(seen[0]), str(seen[1]), str(seen[2])))
        self.workers[worker].fence = ours


class ModelRemote:
    """The workers of the bucket, as `Remote` gives them to a run."""

    open_connections = 0

    def __init__(self, world: World, acts: Acts) -> None:
        self._world = world
        self._acts = acts

    def telling(self, _: Tell) -> Self:
        """Return the same workers: nothing is waited for here."""
        return self

    async def connect(self, worker: Worker) -> None:
        """Connect."""
        self._acts.check()

    async def run(self, worker: Worker, command: RemoteCommand, *, on_output: OnOutput | None = None) -> RemoteResult:
        """Run a command."""

        async def act() -> RemoteResult:
            self._world.check_fence(worker.name, command.fence)
            code = self._carry_out(worker.name, command)
            await asyncio.sleep(0)
            return RemoteResult(exit_code=code, duration=timedelta())

        return await self._acts.make(f"command on {worker.name}: {command.script[:40]}", act)

    async def copy(self, worker: Worker, copy: RemoteCopy) -> CopyResult:
        """Copy a tree."""
        files = {
            str(path.relative_to(copy.source)): f"{path.lstat().st_mode:o} " + (path.read_text() if path.is_file() else "")
            for path in sorted(copy.source.rglob("*"))
        }

        async def act() -> CopyResult:
            self._world.check_fence(worker.name, copy.fence)
            job = copy.target.rsplit("/", 1)[-1]
            self._world.workers[worker.name].files[job] = files
            self._world.note(self._acts, "copy", job=job, worker=worker.name)
            await asyncio.sleep(0)
            return CopyResult(files_transferred=len(files))

        return await self._acts.make(f"copy to {worker.name}", act)

    def _carry_out(self, worker: str, command: RemoteCommand) -> int:
        model = self._world.workers[worker]
        if found := MAKE.search(command.script):
            job, target = shlex.split(found[1])[0].rsplit("/", 1)[-1], found[2].rstrip(";")
            self._world.note(self._acts, target, job=job, worker=worker)
            if target == "stop":
                model.running.pop(job, None)
            elif target in ("start", "restart", "reload"):
                model.running[job] = command.environment["NEW_VERSION"]
        elif "is-running" in command.script:
            return 0 if command.script.split("is-running ")[1].split()[0] in model.running else 1
        elif "rm -rf" in command.script and (found := REMOVED.search(command.script)):
            job = shlex.split(found[1])[0].rsplit("/", 1)[-1]
            model.files.pop(job, None)
            self._world.note(self._acts, "remove", job=job, worker=worker)
        elif "a-command" in command.script:
            self._world.note(self._acts, "command", job="", worker=worker)
        return 0


class ModelRemotes:
    """In place of `Remotes`."""

    open_connections = 0

    def __init__(self, remote: ModelRemote) -> None:
        self._remote = remote

    @asynccontextmanager
    async def of(self, config: BucketConfig) -> AsyncIterator[ModelRemote]:
        """Lend the workers."""
        yield self._remote

    async def close(self) -> None:
        """Nothing is open."""


class HookApi:
    """What hooks do: write a value under a semaphore, as themselves."""

    def __init__(self, channel: grpc.aio.Channel, world: World) -> None:
        self._kv = kv_pb2_grpc.KvServiceStub(channel)
        self._semaphores = semaphore_pb2_grpc.SemaphoreServiceStub(channel)
        self._world = world

    async def run(self, acts: Acts, environment: Any) -> int:
        """Be a hook; return its exit code."""
        job, worker, hook, event = (environment[name] for name in ("JOB", "ALLOCATION_IP", "HOOK", "EVENT"))
        self._world.note(acts, f"{hook}@{event}", job=job, worker=worker)
        if event == "health_check":
            return 0 if job in self._world.workers[worker].running else 1
        metadata = (HOOK_CALLER, bearer_header(environment[API_TOKEN_NAME]))

        async def call(rpc: Callable[..., Awaitable[Any]], request: Any) -> None:
            await acts.make(
                f"{hook} on {worker} calls {type(request).__name__}", lambda: rpc(request, metadata=metadata, timeout=20)
            )

        await call(self._semaphores.Acquire, semaphore_pb2.AcquireRequest(name="one-at-a-time", capacity=1, timeout_seconds=10))
        namespace, key = f"vars/job/{job}", f"{hook}_{worker}".replace(".", "_")
        await call(self._kv.Put, kv_pb2.PutRequest(namespace=namespace, key=key, value=environment["NEW_VERSION"]))
        self._world.acknowledged[namespace, key] = environment["NEW_VERSION"]
        return 0


class ModelProcess:
    """In place of `GroupProcess`: a hook that dies with its executor."""

    api: HookApi

    def __init__(self, task: "asyncio.Task[int]") -> None:
        self._task = task
        self.exited: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        task.add_done_callback(self._on_exit)

    @classmethod
    def start(cls, command: Command, **_: object) -> "ModelProcess":
        """Start a hook. Raises `ExecutorDied`."""
        acts = CURRENT.get()
        is_last = acts.begin(f"start of {command.environment['HOOK']} on {command.environment['ALLOCATION_IP']}")
        process = cls(asyncio.create_task(cls.api.run(acts, command.environment)))
        if is_last:
            acts.die()
        return process

    def age(self) -> timedelta:
        """Return how long it took."""
        return timedelta()

    def signal_group(self, number: int) -> None:
        """End it."""
        self._task.cancel()

    async def end_left_behind(self, grace: timedelta) -> None:
        """Nothing is left behind."""

    async def end_what_is_left(self) -> None:
        """Nothing is left behind."""

    def finish(self) -> int:
        """Return the exit code."""
        if not self._task.done():
            self._task.cancel()
        elif not self._task.cancelled() and self._task.exception() is None:
            return self._task.result()
        return -9

    def _on_exit(self, task: "asyncio.Task[int]") -> None:
        if not task.cancelled():
            task.exception()  # it died with its executor
        if not self.exited.done():
            self.exited.set_result(None)
