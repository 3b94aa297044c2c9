"""A bucket whose catalog is real, whose executors are real and mortal, and whose workers are models.

async with crash_bed(directory) as bed:
    await bed.deploy_everything()                    # versions 1.0.0 run, 2.0.0 is built, one allocation is to be stopped
    start = bed.remember()                           # the database and the world as they are
    undisturbed = await bed.carry_out(spec, Life())
    bed.go_back_to(start)
    disturbed = await bed.carry_out(spec, Life(dies_at=17, moment=Moment.AFTER))
"""

import asyncio
import inspect
import logging
import shutil
import sqlite3
import tempfile
from collections.abc import AsyncIterator, Awaitable, Coroutine, Sequence
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import grpc.aio
import pytest
import structlog

from maand_catalog.service import start_catalog
from maand_catalog.settings import CatalogSettings
from maand_cli.local.new_bucket import make_bucket
from maand_contracts.catalog.v1 import kv_pb2, kv_pb2_grpc, run_pb2, run_spec_pb2, semaphore_pb2, semaphore_pb2_grpc
from maand_executor.catalog_client import CatalogClient
from maand_executor.claims.claimed_runs import RunLoop
from maand_executor.claims.claimed_tasks import HelpLoop
from maand_executor.hooks import invocation
from maand_executor.prometheus import Metrics
from maand_executor.rules.side_by_side import end_tasks
from maand_executor.service import assemble_parts, remove_leftovers
from maand_executor.settings import ExecutorSettings, WorkSettings
from maand_wire.channels import open_channel
from maand_wire.endpoints import Endpoint
from tests.crash.acts import CURRENT, Acts, ExecutorDied, Moment
from tests.crash.world import HookApi, ModelProcess, ModelRemote, ModelRemotes, World
from tests.integration.executor.deploy_bed import DeployBed
from tests.testbed.sshd import SshTestBed

HOSTS = tuple(f"10.0.0.{number}" for number in range(1, 6))
OVER = (run_pb2.RUN_STATE_SUCCEEDED, run_pb2.RUN_STATE_FAILED, run_pb2.RUN_STATE_CANCELLED)
POLLS = frozenset({"claim_run", "claim_task", "renew_lease", "renew_task", "await_tasks"})
"""Calls that are made again and again while time passes."""
READS = ("list_", "read_", "stream_")
"""Calls that change nothing: to die before or after one is to die after the act before it, or before the one after it."""


@dataclass(frozen=True, kw_only=True)
class Life:
    """How an executor lives. `dies_at` 0 = to the end."""

    dies_at: int = 0
    moment: Moment = Moment.BEFORE


@dataclass(frozen=True, kw_only=True)
class Start:
    """A database and a world to begin from again and again."""

    database: Path
    world: World


@dataclass(kw_only=True)
class Outcome:
    """How a run went, with one executor or several."""

    ended: run_pb2.Run
    world: World
    lives: list[Acts]
    recorded: tuple[frozenset[str], ...]
    """At the death of each executor but the last: the steps that were recorded."""
    state: dict[str, Any]
    """What is the same however the run got there."""


class MortalCatalog:
    """The catalog as an executor sees it that may die at any call."""

    def __init__(self, catalog: CatalogClient, acts: Acts) -> None:
        self._catalog = catalog
        self._acts = acts

    def __getattr__(self, name: str) -> Any:
        call, acts = getattr(self._catalog, name), self._acts
        if name in POLLS or name.startswith(READS):
            if inspect.isasyncgenfunction(call):
                return lambda *args, **keywords: look_on(acts, call(*args, **keywords))
            return lambda *args, **keywords: look(acts, call(*args, **keywords))
        return lambda *args, **keywords: acts.make(f"catalog: {name}", lambda: call(*args, **keywords))


async def look(acts: Acts, call: Awaitable[Any]) -> Any:
    """Await a call that is no act; the dead make none."""
    if acts.died.is_set():
        cast("Coroutine[Any, Any, Any]", call).close()
        raise ExecutorDied
    answer = await call
    acts.check()
    return answer


async def look_on(acts: Acts, answers: AsyncIterator[Any]) -> AsyncIterator[Any]:
    """Read answers of a call that is no act."""
    acts.check()
    async for answer in answers:
        acts.check()
        yield answer


@dataclass(kw_only=True)
class Executor:
    """A real executor on a model of the world."""

    acts: Acts
    parts: Any
    channel: grpc.aio.Channel
    loops: list["asyncio.Task[None]"]

    async def bury(self) -> None:
        """End what is left of it, dead or alive: no act comes from here any more."""
        if not self.acts.died.is_set():
            with suppress(ExecutorDied):
                self.acts.die()
        while left := [task for task in self.acts.tasks if not task.done() and task is not self.acts.late]:
            for task in left:
                task.cancel()
            done, _ = await asyncio.wait(left, timeout=0.02)  # a process that is killed winds nothing up
            for task in done:
                if not task.cancelled():
                    task.exception()
        self.parts.hooks.close()
        await self.channel.close()


def make_owned_task(loop: asyncio.AbstractEventLoop, coroutine: Any, **keywords: Any) -> "asyncio.Task[Any]":
    """Make a task, and remember it with the executor that began it."""
    task = asyncio.Task(coroutine, loop=loop, **keywords)
    if acts := CURRENT.get(None):
        acts.tasks.add(task)
    return task


@dataclass(kw_only=True)
class CrashBed:
    """One bucket."""

    directory: Path
    deploys: DeployBed
    world: World = field(default_factory=World)
    owners: int = 0

    @property
    def database(self) -> Path:
        """The catalog's file."""
        return self.deploys.directory / "data/maand.db"

    # Executors ----------------------------------------------------------------------------------------------------------

    async def start_executor(self, life: Life) -> Executor:
        """Start one with a life of its own."""
        self.owners += 1
        acts = Acts(owner=self.owners, dies_at=life.dies_at, moment=life.moment)
        token = CURRENT.set(acts)
        try:
            settings = replace(self.deploys.executor_settings, state_dir=self.directory / "state")
            channel = open_channel(settings.catalog)
            catalog = cast("CatalogClient", MortalCatalog(CatalogClient(channel), acts))
            parts = replace(
                assemble_parts(settings, catalog, Metrics()), remotes=cast("Any", ModelRemotes(ModelRemote(self.world, acts)))
            )
            await asyncio.to_thread(remove_leftovers, parts)
            loops = [asyncio.create_task(RunLoop(parts).run()), asyncio.create_task(HelpLoop(parts).run())]
        finally:
            CURRENT.reset(token)
        return Executor(acts=acts, parts=parts, channel=channel, loops=loops)

    async def carry_out(self, spec: run_spec_pb2.RunSpec, *lives: Life) -> Outcome:
        """Start a run, let executors live these lives one after another (the last to its end), and return how it went."""
        run_id = await self.deploys.begin(spec)
        buried: list[Acts] = []
        recorded: list[frozenset[str]] = []
        for life in lives:
            executor = await self.start_executor(life)
            ended = await self.live_on(run_id, executor, buried)
            buried.append(executor.acts)
            if ended and ended.state in OVER:
                break
            recorded.append(await self.read_steps(run_id))
            await self.deploys.runs().ReleaseLeases(run_pb2.ReleaseLeasesRequest())
            if spec.HasField("run_command"):
                await self.resume(run_id, again=ended is not None)
        for acts in buried:
            await wake(acts)
        assert ended, "the last executor died before the run was over"
        return Outcome(ended=ended, world=self.world, lives=buried, recorded=tuple(recorded), state=await self.read_state(ended))

    async def live_on(self, run_id: str, executor: Executor, frozen: Sequence[Acts]) -> run_pb2.Run | None:
        """Let an executor live until it dies (None) or the run is settled."""
        settling = asyncio.create_task(self.until_settled(run_id))
        dying = asyncio.create_task(executor.acts.died.wait())
        thawing = asyncio.create_task(thaw(frozen, executor.acts))
        try:
            async with asyncio.timeout(60):
                await asyncio.wait({settling, dying}, return_when=asyncio.FIRST_COMPLETED)
            return settling.result() if settling.done() else await self.find_ended(run_id)
        finally:
            await end_tasks(settling, dying, thawing)
            await executor.bury()

    async def find_ended(self, run_id: str) -> run_pb2.Run | None:
        """Return the run when it is over, though its executor died: it died after the last of its acts."""
        run = (await self.deploys.runs().GetRun(run_pb2.GetRunRequest(bucket_id=self.deploys.bucket_id, run_id=run_id))).run
        return run if run.state in OVER else None

    async def until_settled(self, run_id: str) -> run_pb2.Run:
        """Return the run when it is over, or when its executor left it for a person to resume."""
        request = run_pb2.GetRunRequest(bucket_id=self.deploys.bucket_id, run_id=run_id)
        while True:
            run = (await self.deploys.runs().GetRun(request)).run
            is_left = run.state == run_pb2.RUN_STATE_INTERRUPTED and run.kind == run_spec_pb2.RUN_KIND_RUN_COMMAND
            if run.state in OVER or is_left:
                return run
            await asyncio.sleep(0.01)

    async def resume(self, run_id: str, *, again: bool) -> None:
        """Resume as a person does: `--again` once it is known that some outcomes are not."""
        request = run_pb2.ResumeRunRequest(bucket_id=self.deploys.bucket_id, run_id=run_id, again=again)
        await self.deploys.runs().ResumeRun(request)

    # What there is ------------------------------------------------------------------------------------------------------

    async def read_steps(self, run_id: str) -> frozenset[str]:
        """Return the recorded steps of a run."""
        request = run_pb2.ListStepsRequest(bucket_id=self.deploys.bucket_id, run_id=run_id, page_size=1000)
        return frozenset((await self.deploys.runs().ListSteps(request)).names)

    async def read_state(self, ended: run_pb2.Run) -> dict[str, Any]:
        """Return what must be the same with and without deaths: workers, allocations, values, semaphores, and the result."""
        channel, bucket = self.deploys.channel, self.deploys.bucket_id
        allocations = {
            f"{job}@{host}": (one.state, one.current_version, one.deployed_sha256.hex(), one.post_deploy_owed)
            for job in ("api", "web")
            for host, one in (await self.deploys.allocations(job)).items()
        }
        values: dict[str, str] = {}
        for job in ("api", "web"):
            request = kv_pb2.ListEntriesRequest(bucket_id=bucket, namespace_prefix=f"vars/job/{job}")
            values |= {
                f"{job}/{one.key}": one.value for one in (await kv_pb2_grpc.KvServiceStub(channel).ListEntries(request)).entries
            }
        semaphores = await semaphore_pb2_grpc.SemaphoreServiceStub(channel).ListSemaphores(
            semaphore_pb2.ListSemaphoresRequest(bucket_id=bucket)
        )
        return {
            "result": (run_pb2.RunState.Name(ended.state), ended.result.message, sorted(ended.result.counts.items())),
            "allocations": allocations,
            "values": values,
            "claims": [one.name for one in semaphores.semaphores if one.holders or one.waiters],
            "workers": {host: (model.files, model.running) for host, model in sorted(self.world.workers.items())},
        }

    # Going back ---------------------------------------------------------------------------------------------------------

    def remember(self) -> Start:
        """Remember the database and the world as they are."""
        copy = Path(tempfile.mkdtemp(dir=self.directory)) / "start.db"
        with closing(sqlite3.connect(self.database)) as here, closing(sqlite3.connect(copy)) as there:
            here.backup(there)
        return Start(database=copy, world=self.world.copy())

    def go_back_to(self, start: Start) -> None:
        """Make both what they were then. The catalog serves on, so the lease of its own waiting room stays as it is."""
        with closing(sqlite3.connect(self.database, isolation_level=None, timeout=20)) as database:
            database.execute("ATTACH ? AS start", (str(start.database),))
            database.execute("PRAGMA foreign_keys = OFF")
            database.execute("BEGIN IMMEDIATE")
            tables = database.execute("SELECT name FROM start.sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")
            for (table,) in tables.fetchall():
                if table == "waiting_rooms":
                    continue
                database.execute(f'DELETE FROM main."{table}"')
                database.execute(f'INSERT INTO main."{table}" SELECT * FROM start."{table}"')
            database.execute("COMMIT")
        self.world = start.world.copy()
        ModelProcess.api = HookApi(self.deploys.channel, self.world)


async def thaw(frozen: Sequence[Acts], next_one: Acts) -> None:
    """Let a frozen executor make its last act once the next one has made some of its own."""
    while len(next_one.names) < 12:  # noqa: ASYNC110 - acts tell nobody
        await asyncio.sleep(0.002)
    for acts in frozen:
        acts.thawed.set()


async def wake(acts: Acts) -> None:
    """Let the late act be made, and look at nothing of how it ended: it may be refused."""
    acts.thawed.set()
    if acts.late is not None:
        await asyncio.wait({acts.late})
        acts.late.exception()


@asynccontextmanager
async def crash_bed(directory: Path) -> AsyncIterator[CrashBed]:
    """Serve a bucket with five model workers."""
    bucket = directory / "bucket"
    made = await asyncio.to_thread(make_bucket, bucket)
    sockets = Path(tempfile.mkdtemp(prefix="maand-"))
    catalog = await start_catalog(
        CatalogSettings(
            database_url=f"sqlite:///{bucket / 'data/maand.db'}",
            kv_key_file=bucket / "secrets/kv.key",
            ca_dir=bucket / "secrets",
            listen=f"unix:{sockets / 'catalog.sock'}",
            stop_grace=timedelta(),
        )
    )
    channel = open_channel(Endpoint(address=catalog.address))
    fleet = SimpleNamespace(workers=[SimpleNamespace(host=host) for host in HOSTS], port=22)
    settings = ExecutorSettings(
        listen="",
        catalog=Endpoint(address=catalog.address),
        secrets_dir=bucket / "secrets",
        state_dir=directory / "state",
        work=WorkSettings(stop_grace=timedelta()),
    )
    asyncio.get_running_loop().set_task_factory(make_owned_task)
    deploys = DeployBed(
        directory=bucket,
        ssh=cast("SshTestBed", fleet),
        catalog=catalog,
        channel=channel,
        bucket_id=made.bucket_id,
        executor_settings=settings,
    )
    bed = CrashBed(directory=directory, deploys=deploys)
    ModelProcess.api = HookApi(channel, bed.world)
    with pytest.MonkeyPatch.context() as patches:
        patches.setattr(invocation, "GroupProcess", ModelProcess)
        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
        try:
            await deploys.configure()
            deploys.write_workers()
            yield bed
        finally:
            await channel.close()
            await catalog.stop()
            structlog.reset_defaults()
            shutil.rmtree(sockets)
