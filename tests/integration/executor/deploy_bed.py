"""A whole bucket for tests of runs: a real catalog on SQLite, a real executor, and real OpenSSH workers.

async with deploy_bed(tmp_path, test_bed, workers=3) as bed:
    bed.write_job("api", {"selectors": ["worker"]}, {"app.conf": "v1"})
    await bed.build()
    ended = await bed.deploy()
    assert ended.state == "succeeded"
    bed.log_of(bed.workers[0])      # what the job's Makefile did there, in order
"""

import asyncio
import hashlib
import json
import os
import shutil
import sys
import tempfile
import textwrap
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc.aio

from maand_catalog.service import RunningCatalog, start_catalog
from maand_catalog.settings import CatalogSettings
from maand_cli.local.new_bucket import make_bucket
from maand_cli.local.workspace_scan import scan_workspace
from maand_contracts.catalog.v1 import (
    allocation_pb2,
    allocation_pb2_grpc,
    bucket_pb2,
    bucket_pb2_grpc,
    run_event_pb2,
    run_pb2,
    run_pb2_grpc,
    run_spec_pb2,
    workspace_pb2,
    workspace_pb2_grpc,
)
from maand_executor.service import RunningExecutor, start_executor
from maand_executor.settings import ExecutorSettings
from maand_executor.ssh.settings import SshSettings
from maand_runtime_gateway.service import RunningGateway, start_gateway
from maand_runtime_gateway.settings import GatewaySettings
from maand_wire.channels import open_channel
from maand_wire.endpoints import Endpoint
from tests.testbed.sshd import SshTestBed
from tests.testbed.worker import SshWorker

MAKEFILE = """\
LOG = ../../../log
say = echo $@ $(JOB) $(CURRENT_VERSION) $(NEW_VERSION) $(ALLOCATION_INDEX) $(ALLOCATION_IP) >> $(LOG)
start restart reload stop status:
\t@$(say)
\t@if [ -e fail-$@ ]; then echo "no $@ today" >&2; exit 3; fi
"""


@dataclass(frozen=True, kw_only=True)
class Ended:
    """A run that ended, with everything it said."""

    run: run_pb2.Run
    events: tuple[run_event_pb2.RunEvent, ...]

    @property
    def state(self) -> str:
        """Its state in a word."""
        return run_pb2.RunState.Name(self.run.state).removeprefix("RUN_STATE_").lower()

    @property
    def result(self) -> run_event_pb2.RunResult:
        """Its result."""
        return self.run.result

    def of_kind(self, kind: str) -> list[run_event_pb2.RunEvent]:
        """Return the events of one kind."""
        return [event for event in self.events if event.WhichOneof("event") == kind]

    def actions(self, job: str) -> dict[str, str]:
        """Return what was planned for a job, by worker."""
        return {
            one.worker: run_event_pb2.AllocationAction.Name(one.action).removeprefix("ALLOCATION_ACTION_").lower()
            for event in self.of_kind("job_planned")
            if event.job == job
            for one in event.job_planned.allocations
        }

    def batches(self, phase: str, job: str = "") -> list[list[str]]:
        """Return the workers of each batch of a phase."""
        return [
            list(event.batch_started.workers)
            for event in self.of_kind("batch_started")
            if event.batch_started.phase == phase and job in ("", event.job)
        ]


@dataclass(kw_only=True)
class DeployBed:
    """One bucket with everything that serves it."""

    directory: Path
    ssh: SshTestBed
    catalog: RunningCatalog
    channel: grpc.aio.Channel
    bucket_id: str
    executor: RunningExecutor | None = None
    executor_settings: ExecutorSettings
    ssh_settings: SshSettings | None = None
    gateway: RunningGateway | None = None
    labels: dict[str, list[str]] = field(default_factory=dict)

    @property
    def workers(self) -> list[SshWorker]:
        """The workers."""
        return self.ssh.workers

    @property
    def hosts(self) -> list[str]:
        """Their addresses, in position order."""
        return [worker.host for worker in self.ssh.workers]

    # Workspace ----------------------------------------------------------------------------------------------------------

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        """Write a file of the workspace."""
        file = self.directory / "workspace" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(mode)

    def remove(self, path: str) -> None:
        """Delete a file or directory of the workspace."""
        target = self.directory / "workspace" / path
        shutil.rmtree(target) if target.is_dir() else target.unlink()

    def write_workers(self, hosts: Sequence[str] | None = None) -> None:
        """Write `workers.json`."""
        chosen = self.hosts if hosts is None else hosts
        self.write("workers.json", json.dumps([{"host": host, "labels": self.labels.get(host, [])} for host in chosen]))

    def write_job(self, name: str, manifest: Mapping[str, Any], files: Mapping[str, str] = {}) -> None:
        """Write a job: on all workers unless it selects, with a Makefile that logs unless it has its own."""
        self.write(f"jobs/{name}/manifest.json", json.dumps({"selectors": ["worker"], **manifest}))
        for path, text in {"Makefile": MAKEFILE, **files}.items():
            self.write(f"jobs/{name}/{path}", textwrap.dedent(text) if path.endswith(".py") else text)

    # Runs ---------------------------------------------------------------------------------------------------------------

    async def build(self) -> Ended:
        """Upload the workspace and build it; the build must succeed."""
        ended = await self.run(run_spec_pb2.RunSpec(build=run_spec_pb2.BuildSpec(snapshot_id=await self.upload())))
        assert ended.state == "succeeded", ended.result
        return ended

    async def deploy(self, *, keep_going: bool = False, **spec: Any) -> Ended:
        """Deploy and wait for the end."""
        return await self.run(run_spec_pb2.RunSpec(deploy=run_spec_pb2.DeploySpec(**spec), keep_going=keep_going))

    async def run(self, spec: run_spec_pb2.RunSpec) -> Ended:
        """Start a run and wait for its end."""
        return await self.follow(await self.begin(spec))

    async def begin(self, spec: run_spec_pb2.RunSpec) -> str:
        """Start a run and return its id."""
        request = run_pb2.CreateRunRequest(bucket_id=self.bucket_id, spec=spec, requested_by="test@here")
        return (await self.runs().CreateRun(request)).run.run_id

    async def follow(self, run_id: str) -> Ended:
        """Wait for the end of a run."""
        events: list[run_event_pb2.RunEvent] = []
        request = run_pb2.WatchRunRequest(bucket_id=self.bucket_id, run_id=run_id, follow=True)
        async for response in self.runs().WatchRun(request):
            events += response.events
        got = await self.runs().GetRun(run_pb2.GetRunRequest(bucket_id=self.bucket_id, run_id=run_id))
        return Ended(run=got.run, events=tuple(events))

    async def until(self, run_id: str, wanted: str, *, job: str = "") -> run_event_pb2.RunEvent:
        """Wait for the first event of a kind."""
        request = run_pb2.WatchRunRequest(bucket_id=self.bucket_id, run_id=run_id, follow=True)
        async for response in self.runs().WatchRun(request):
            for event in response.events:
                if event.WhichOneof("event") == wanted and job in ("", event.job):
                    return event
        raise AssertionError(f"the run ended without {wanted}")

    async def cancel(self, run_id: str) -> None:
        """Ask a run to stop."""
        await self.runs().CancelRun(run_pb2.CancelRunRequest(bucket_id=self.bucket_id, run_id=run_id))

    async def allocations(self, job: str) -> dict[str, allocation_pb2.Allocation]:
        """Return a job's allocations by worker, removed ones included."""
        request = allocation_pb2.ListAllocationsRequest(bucket_id=self.bucket_id, jobs=[job], include_removed=True)
        listed = await allocation_pb2_grpc.AllocationServiceStub(self.channel).ListAllocations(request)
        return {one.worker: one for one in listed.allocations}

    async def states(self, job: str) -> dict[str, str]:
        """Return the states of a job's allocations by worker."""
        names = allocation_pb2.AllocationState
        found = await self.allocations(job)
        return {host: names.Name(one.state).removeprefix("ALLOCATION_STATE_").lower() for host, one in found.items()}

    # Workers ------------------------------------------------------------------------------------------------------------

    def on(self, worker: SshWorker, path: str) -> Path:
        """Return a file below the bucket's directory on a worker."""
        return worker.path(f"/opt/worker/{self.bucket_id}/{path}")

    def log_of(self, worker: SshWorker) -> list[str]:
        """Return what Makefiles did on a worker, in order."""
        log = worker.path("/opt/worker/log")
        return log.read_text().splitlines() if log.exists() else []

    # Executor -----------------------------------------------------------------------------------------------------------

    async def start_executor(self) -> None:
        """Start an executor in this process."""
        self.executor = await start_executor(self.executor_settings, self.ssh_settings)

    async def serve_copy(self) -> None:
        """Serve a copy of the database in place of it, as whoever copied the bucket would; everything starts anew."""
        await self.stop_executor()
        await self.channel.close()
        await self.catalog.stop()
        database = self.directory / "data/maand.db"
        copy = database.with_name("copy.db")
        shutil.copy2(database, copy)
        copy.rename(database)
        settings = self.catalog.settings
        self.catalog = await start_catalog(replace(settings, listen=f"{settings.listen}.copy"))
        self.channel = open_channel(Endpoint(address=self.catalog.address))
        self.executor_settings = replace(self.executor_settings, catalog=Endpoint(address=self.catalog.address))
        await self.start_executor()

    async def start_gateway(self) -> None:
        """Serve the hook API, and have the executor started anew tell its hooks so."""
        await self.stop_executor()
        executor = Endpoint(address=self.executor_settings.listen)
        self.gateway = await start_gateway(
            GatewaySettings(listen="127.0.0.1:0", catalog=self.executor_settings.catalog, executor=executor)
        )
        self.executor_settings = replace(self.executor_settings, hook_api=self.gateway.address)
        await self.start_executor()

    async def stop_executor(self) -> None:
        """Stop it in an orderly way."""
        if self.executor:
            await self.executor.stop()
            self.executor = None

    async def start_executor_process(self) -> asyncio.subprocess.Process:
        """Start an executor as its own process, for tests that kill it."""
        settings = self.executor_settings
        environment = {
            **os.environ,
            "MAAND_CATALOG_ADDRESS": settings.catalog.address,
            "MAAND_EXECUTOR_LISTEN": "127.0.0.1:0",
            "MAAND_SECRETS_DIR": str(settings.secrets_dir),
            "MAAND_STATE_DIR": str(settings.state_dir) + "-process",
        }
        return await asyncio.create_subprocess_exec(
            sys.executable, "-m", "maand_executor", env=environment, stderr=asyncio.subprocess.DEVNULL
        )

    async def upload(self) -> str:
        """Send the workspace and return its snapshot id."""
        root = self.directory / "workspace"
        files = scan_workspace(root, self.directory / "run/workspace-digests.json")
        stub = workspace_pb2_grpc.WorkspaceServiceStub(self.channel)
        contents = [(root / file.path).read_bytes() for file in files if file.sha256]
        await stub.UploadBlobs(
            workspace_pb2.UploadBlobsRequest(bucket_id=self.bucket_id, sha256=hashlib.sha256(data).digest(), data=data, last=True)
            for data in contents
        )
        entries = [
            workspace_pb2.WorkspaceFile(
                path=file.path,
                sha256=file.sha256,
                mode=file.mode,
                size=file.size,
                link_target=file.link_target,
                directory=file.directory,
            )
            for file in files
        ]
        request = workspace_pb2.CreateSnapshotRequest(bucket_id=self.bucket_id, files=entries)
        return (await stub.CreateSnapshot(request)).snapshot_id

    async def configure(self, **settings: Any) -> None:
        """Apply `maand.conf`."""
        values = {"bucket_id": self.bucket_id, "ssh_port": self.ssh.port, "ssh_starts_per_second": 500, **settings}
        text = "".join(f"{name} = {json.dumps(value)}\n" for name, value in values.items())
        (self.directory / "maand.conf").write_text(text)
        await bucket_pb2_grpc.BucketServiceStub(self.channel).ApplyBucketConfig(
            bucket_pb2.ApplyBucketConfigRequest(bucket_id=self.bucket_id, maand_conf=text.encode())
        )

    def runs(self) -> run_pb2_grpc.RunServiceStub:
        """Return the catalog's RunService."""
        return run_pb2_grpc.RunServiceStub(self.channel)


@asynccontextmanager
async def deploy_bed(
    directory: Path,
    ssh: SshTestBed,
    *,
    workers: int,
    lease: timedelta = timedelta(seconds=15),
    executor: bool = True,
    ssh_settings: SshSettings | None = None,
) -> AsyncIterator[DeployBed]:
    """Serve a bucket with that many workers."""
    bucket = directory / "bucket"
    made = await asyncio.to_thread(make_bucket, bucket)
    await asyncio.to_thread(ssh.start_workers, workers)
    ssh.write_secrets(bucket / "secrets")
    sockets = Path(tempfile.mkdtemp(prefix="maand-"))
    catalog = await start_catalog(
        CatalogSettings(
            database_url=f"sqlite:///{bucket / 'data/maand.db'}",
            kv_key_file=bucket / "secrets/kv.key",
            ca_dir=bucket / "secrets",
            listen=f"unix:{sockets / 'catalog.sock'}",
            lease=lease,
            stop_grace=timedelta(),
        )
    )
    channel = open_channel(Endpoint(address=catalog.address))
    bed = DeployBed(
        directory=bucket,
        ssh=ssh,
        catalog=catalog,
        channel=channel,
        bucket_id=made.bucket_id,
        ssh_settings=ssh_settings,
        executor_settings=ExecutorSettings(
            listen=f"unix:{sockets / 'executor.sock'}",
            catalog=Endpoint(address=catalog.address),
            secrets_dir=bucket / "secrets",
            state_dir=directory / "state",
            workspace_dir=bucket / "workspace",
        ),
    )
    try:
        await bed.configure()
        bed.write_workers()
        if executor:
            await bed.start_executor()
        yield bed
    finally:
        await bed.stop_executor()
        if bed.gateway:
            await bed.gateway.stop()
        await bed.channel.close()
        await bed.catalog.stop()
        shutil.rmtree(sockets)
