"""A bucket with a worker that will be sick and a healthy one, both in one batch of one job.

async with sick_bed(tmp_path, test_bed) as bed:
    async with bed.answering(never_speak): …        # somebody else answers at the sick worker's address
    async with bed.proxied() as proxy: …            # its SSH goes through a proxy: proxy.hang_up(), proxy.slow
    ended = await bed.deploy(…)                     # otherwise as DeployBed

Limits are short, and long enough for what is healthy on a machine under load.
"""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

from maand_executor.settings import WorkSettings
from maand_executor.ssh.settings import SshSettings
from tests.integration.executor.deploy_bed import DeployBed, Ended, deploy_bed
from tests.testbed.sshd import SshTestBed
from tests.testbed.worker import SshWorker
from tests.waiting import until

SHORT = SshSettings(
    connect_timeout=timedelta(seconds=5),
    connect_attempts=3,
    keepalive_interval=timedelta(seconds=1),
    keepalive_count=3,
    heartbeat=timedelta(seconds=1),
    silence=timedelta(seconds=6),
    copy_stall=timedelta(seconds=1),
    copies_at_once=2,
    grace=timedelta(seconds=1),
)
WORK = WorkSettings(lifecycle_timeout=timedelta(seconds=5), preflight_timeout=timedelta(seconds=6))

MAKEFILE = """\
start restart stop:
\t@echo $@ $(NEW_VERSION) >> ../../../log
\t@if [ $(ALLOCATION_IP) = SICK ]; then exec bash ./sick.sh; fi
"""

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Behave = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass(kw_only=True)
class SickBed:
    """The bucket, with its two workers."""

    deploy_bed: DeployBed

    @property
    def sick(self) -> SshWorker:
        """The worker that something is wrong with."""
        return self.deploy_bed.workers[0]

    @property
    def healthy(self) -> SshWorker:
        """The one beside it."""
        return self.deploy_bed.workers[1]

    async def write(self, version: str, sick_script: str = "true", **files: str) -> None:
        """Write the job and build; `sick_script` is what its targets do on the sick worker."""
        manifest = {"version": version, "max_concurrent_upgrades": 2}
        makefile = MAKEFILE.replace("SICK", self.sick.host)
        self.deploy_bed.write_job("api", manifest, {"Makefile": makefile, "sick.sh": sick_script, **files})
        await self.deploy_bed.build()

    async def deploy(self, *, skip_unreachable: bool = False) -> Ended:
        """Deploy and wait for the end, of a healthy host and its limits."""
        return await asyncio.wait_for(self.deploy_bed.deploy(skip_unreachable=skip_unreachable), 90)

    async def only_the_sick_one_failed(self, ended: Ended) -> str:
        """Check that the healthy worker's allocation is promoted and the failure is the sick one's; return what was said."""
        states = await self.deploy_bed.states("api")
        assert states[self.healthy.host] == "promoted", (states, ended.result)
        assert states[self.sick.host] != "promoted"
        assert {failure.worker for failure in ended.result.failures} <= {self.sick.host}, ended.result
        return " ".join(failure.message for failure in ended.result.failures)

    async def recovers(self) -> None:
        """Check that the next deploy does what is left, on the worker that is well again, and nothing on the other."""
        before = self.deploy_bed.log_of(self.healthy)
        ended = await self.deploy()
        assert ended.state == "succeeded", ended.result
        assert set((await self.deploy_bed.states("api")).values()) == {"promoted"}
        assert self.deploy_bed.log_of(self.healthy) == before

    @asynccontextmanager
    async def answering(self, behave: Behave) -> AsyncIterator[None]:
        """Let somebody else answer where the sick worker should."""
        await asyncio.to_thread(self.sick.stop)
        await until(lambda: not is_taken(self.sick.host, self.sick.port))
        async with listening(self.sick.host, self.sick.port, behave):
            yield
        await asyncio.to_thread(self.sick.start)

    @asynccontextmanager
    async def proxied(self) -> AsyncIterator["Proxy"]:
        """Let the sick worker be reached through a proxy, from the next build on."""
        proxy = Proxy(self.sick)
        async with listening(self.sick.host, 0, proxy.pass_bytes) as port:
            known_hosts = self.deploy_bed.directory / "secrets/known_hosts"
            pinned = self.sick.known_hosts_lines.replace(f":{self.sick.port} ", f":{port} ")
            known_hosts.write_text(known_hosts.read_text() + pinned)
            listed = [{"host": self.sick.host, "ssh_port": port}, {"host": self.healthy.host}]
            self.deploy_bed.write("workers.json", json.dumps(listed))
            yield proxy


@dataclass(kw_only=True)
class Pace:
    """How a proxy passes bytes: at most so many at a time, each after a pause."""

    most: int = 65536
    pause: float = 0.0


@dataclass
class Proxy:
    """Passes bytes to and from a worker's sshd."""

    worker: SshWorker
    pace: Pace = field(default_factory=Pace)
    hang_up_after: int = 0
    """Bytes of the worker after which each connection is broken; 0 = never."""
    connections: list[asyncio.StreamWriter] = field(default_factory=list)

    def hang_up(self) -> None:
        """Break every connection at once, as a reset."""
        for writer in self.connections:
            writer.transport.abort()

    async def pass_bytes(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        worker_reader, worker_writer = await asyncio.open_connection(self.worker.host, self.worker.port)
        self.connections += [writer, worker_writer]
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(reader, worker_writer))
                group.create_task(self._pump(worker_reader, writer, hang_up_after=self.hang_up_after))
        finally:
            worker_writer.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, hang_up_after: int = 0) -> None:
        count = 0
        with suppress(OSError):
            while data := await reader.read(self.pace.most):
                count += len(data)
                if hang_up_after and count >= hang_up_after:
                    self.hang_up()
                    return
                await asyncio.sleep(self.pace.pause)
                writer.write(data)
                await writer.drain()
        writer.close()


def is_taken(host: str, port: int) -> bool:
    """Whether somebody listens there: processes that were killed may do so for a moment more."""
    with socket.socket() as probe:
        return probe.connect_ex((host, port)) == 0


@asynccontextmanager
async def listening(host: str, port: int, behave: Behave) -> AsyncIterator[int]:
    """Serve connections as told, and give the port; whatever is open when the block ends is ended."""
    serving: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        serving.add(task)
        try:
            with suppress(OSError, asyncio.CancelledError, asyncio.IncompleteReadError):
                await behave(reader, writer)
        finally:
            serving.discard(task)
            writer.transport.abort()

    server = await asyncio.start_server(serve, host, port)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in list(serving):
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)
        await server.wait_closed()


@asynccontextmanager
async def sick_bed(directory: Path, ssh: SshTestBed) -> AsyncIterator[SickBed]:
    """Serve a bucket with a sick worker and a healthy one."""
    async with deploy_bed(directory, ssh, workers=2, executor=False, ssh_settings=SHORT) as bed:
        bed.executor_settings = replace(bed.executor_settings, work=WORK)
        await bed.start_executor()
        yield SickBed(deploy_bed=bed)
