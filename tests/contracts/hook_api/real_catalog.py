"""The little fleet in a real catalog: its workspace built, its secrets set, and hook invocations begun as an executor does."""

import asyncio
import base64
import hashlib
import json
import shutil
import tempfile
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy import update

from maand_catalog.database.clock import LONGEST_LEASE
from maand_catalog.database.transaction import Transaction
from maand_catalog.rules.runs import RunState
from maand_catalog.service import RunningCatalog, start_catalog
from maand_catalog.settings import CatalogSettings
from maand_catalog.store.tables.runs import runs
from maand_contracts.catalog.v1 import (
    allocation_pb2,
    allocation_pb2_grpc,
    bucket_pb2,
    bucket_pb2_grpc,
    invocation_pb2,
    invocation_pb2_grpc,
    job_pb2,
    kv_pb2,
    kv_pb2_grpc,
    run_pb2,
    run_pb2_grpc,
    run_spec_pb2,
    secret_pb2,
    secret_pb2_grpc,
    workspace_pb2,
    workspace_pb2_grpc,
)
from maand_executor.rules.side_by_side import end_tasks
from maand_hook_sdk.memory_identity import Identity
from maand_wire.channels import open_channel
from maand_wire.endpoints import Endpoint
from maand_wire.enums import enum_number
from maand_wire.new_keys import make_certificate_authority
from tests.contracts.hook_api.world import CALLERS, CONTENT, DEAD, STRANGER

BUCKET = str(uuid.UUID("7d0f3a52-3d68-4a3f-8a5b-2f1f3f0e9a11"))
EXECUTOR = "conformance"
EVENTS = ["pre_deploy", "post_deploy", "cli", "health_check"]
HOOK = b"print('never run')\n"


def manifest(version: str, hook: str, demands: Mapping[str, object] | None = None) -> bytes:
    """Write a manifest with one hook."""
    entry: dict[str, object] = {"executed_on": EVENTS} | ({"demands": demands} if demands else {})
    return json.dumps({"version": version, "hooks": {hook: entry}, "certs": {"tls": {"subject": {"common_name": "x"}}}}).encode()


DEMANDS = {"job": "database", "hook": "hook_schema", "config": {"min_version": "1.0.0"}}

WORKSPACE: dict[str, bytes] = {
    "workers.json": json.dumps(
        [
            {"host": "10.0.0.1", "labels": ["api", "web"], "tags": {"zone": "a"}},
            {"host": "10.0.0.2", "labels": ["api"]},
            {"host": "10.0.0.3", "labels": ["database"]},
        ]
    ).encode(),
    "bucket.conf": b'region = "eu"\n',
    "bucket.jobs.conf": b'[api]\ntier = "gold"\n',
    "jobs/api/manifest.json": manifest("1.1.0", "hook_setup", DEMANDS),
    "jobs/api/_hooks/hook_setup.py": HOOK,
    "jobs/api/vars.toml": b'greeting = "hello"\nempty = ""\n',
    "jobs/database/manifest.json": manifest("2.0.0", "hook_schema"),
    "jobs/database/_hooks/hook_schema.py": HOOK,
    "jobs/database/vars.toml": b'schema = "3"\n',
    "jobs/web/manifest.json": manifest("1.0.0", "hook_web"),
    "jobs/web/_hooks/hook_web.py": HOOK,
    "jobs/web/vars.toml": b'theme = "dark"\n',
} | {f"jobs/{job}/Makefile": b"start stop restart reload:\n\t@true\n" for job in ("api", "database", "web")}


class LittleFleet:
    """A client of the catalog that acts as operator and as executor."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._channel = open_channel(endpoint)
        self._runs = run_pb2_grpc.RunServiceStub(self._channel)
        self._invocations = invocation_pb2_grpc.InvocationServiceStub(self._channel)

    async def build(self) -> None:
        """Upload and build the workspace, set secrets."""
        await bucket_pb2_grpc.BucketServiceStub(self._channel).ApplyBucketConfig(
            bucket_pb2.ApplyBucketConfigRequest(bucket_id=BUCKET, maand_conf=f'bucket_id = "{BUCKET}"\n'.encode())
        )
        workspace = workspace_pb2_grpc.WorkspaceServiceStub(self._channel)
        await workspace.UploadBlobs(iter(uploads()))
        snapshot = await workspace.CreateSnapshot(
            workspace_pb2.CreateSnapshotRequest(bucket_id=BUCKET, files=[entry(*item) for item in WORKSPACE.items()])
        )
        run = await self.start_run(run_spec_pb2.RunSpec(build=run_spec_pb2.BuildSpec(snapshot_id=snapshot.snapshot_id)))
        await workspace.BuildSnapshot(
            workspace_pb2.BuildSnapshotRequest(
                bucket_id=BUCKET, snapshot_id=snapshot.snapshot_id, run_id=run.run_id, fence=run.fence
            )
        )
        await self._runs.FinishRun(
            run_pb2.FinishRunRequest(bucket_id=BUCKET, run_id=run.run_id, fence=run.fence, state=run_pb2.RUN_STATE_SUCCEEDED)
        )
        await self._set_secrets()

    async def _set_secrets(self) -> None:
        secrets = secret_pb2_grpc.SecretServiceStub(self._channel)
        for namespace, values in CONTENT.items():
            for key, value in values.items():
                if namespace.startswith("secrets/"):
                    await secrets.PutSecret(
                        secret_pb2.PutSecretRequest(bucket_id=BUCKET, namespace=namespace, key=key, value=value)
                    )

    async def start_run(self, spec: run_spec_pb2.RunSpec) -> run_pb2.Run:
        """Create a run and claim it."""
        created = await self._runs.CreateRun(
            run_pb2.CreateRunRequest(bucket_id=BUCKET, spec=spec, requested_by="test", lock_timeout_seconds=10)
        )
        claimed = await self._runs.ClaimRun(run_pb2.ClaimRunRequest(executor_id=EXECUTOR, wait_seconds=10, bucket_ids=[BUCKET]))
        assert claimed.run.run_id == created.run.run_id
        return claimed.run

    async def begin(self, run: run_pb2.Run, identities: Sequence[Identity]) -> list[str]:
        """Begin invocations; return their tokens."""
        begun = await self._invocations.BeginInvocations(
            invocation_pb2.BeginInvocationsRequest(
                bucket_id=BUCKET,
                run_id=run.run_id,
                fence=run.fence,
                invocations=[
                    invocation_pb2.InvocationStart(
                        allocation_id=who.allocation_id, hook=who.hook, event=enum_number(job_pb2.HookEvent, who.event)
                    )
                    for who in identities
                ],
            )
        )
        self.invocation_ids = {each.token: each.invocation_id for each in begun.invocations}
        return [each.token for each in begun.invocations]

    async def end(self, token: str) -> None:
        """End an invocation."""
        outcome = invocation_pb2.INVOCATION_OUTCOME_SUCCEEDED
        await self._invocations.EndInvocations(
            invocation_pb2.EndInvocationsRequest(
                bucket_id=BUCKET,
                invocations=[invocation_pb2.InvocationEnd(invocation_id=self.invocation_ids[token], outcome=outcome)],
            )
        )

    async def identities(self) -> dict[str, Identity]:
        """Return the callers with the allocation ids they have here."""
        listed = await allocation_pb2_grpc.AllocationServiceStub(self._channel).ListAllocations(
            allocation_pb2.ListAllocationsRequest(bucket_id=BUCKET)
        )
        ids = {(each.job, each.worker): each.allocation_id for each in listed.allocations}
        return {name: replace(who, allocation_id=ids[(who.job, who.worker)]) for name, who in CALLERS.items()}

    async def begin_all(self) -> tuple[dict[str, Identity], dict[str, str]]:
        """Begin every caller's invocation in one run; return identities and tokens."""
        identities = await self.identities()
        run = await self.start_run(run_spec_pb2.RunSpec(hooks=run_spec_pb2.HooksSpec(hook="hook_setup", job="api")))
        (dead,) = await self.begin(run, [identities["api"]])
        await self.end(dead)
        tokens = dict(zip(identities, await self.begin(run, list(identities.values())), strict=True))
        return identities, tokens | {DEAD: dead, STRANGER: "mh_never-heard-of"}

    async def value(self, namespace: str, key: str) -> str:
        """Read a value as an operator."""
        kv = kv_pb2_grpc.KvServiceStub(self._channel)
        return (await kv.Get(kv_pb2.GetRequest(bucket_id=BUCKET, namespace=namespace, key=key))).entry.value

    async def close(self) -> None:
        """Close the channel."""
        await self._channel.close()


def uploads() -> list[workspace_pb2.UploadBlobsRequest]:
    """Return the workspace's contents, one message each."""
    return [
        workspace_pb2.UploadBlobsRequest(bucket_id=BUCKET, sha256=hashlib.sha256(data).digest(), data=data, last=True)
        for data in set(WORKSPACE.values())
    ]


def entry(path: str, data: bytes) -> workspace_pb2.WorkspaceFile:
    """Describe a file."""
    return workspace_pb2.WorkspaceFile(path=path, sha256=hashlib.sha256(data).digest(), mode=0o644, size=len(data))


LEASE = 2 * LONGEST_LEASE - timedelta(seconds=1)
"""Longer ones are taken for what a clock left that was set back, and cut down."""


async def keep_leases(running: RunningCatalog) -> None:
    """Renew the leases of all runs, as their executors would."""

    def renew(tx: Transaction) -> None:
        tx.connection.execute(update(runs).where(runs.c.state == RunState.RUNNING).values(lease_until=tx.now + LEASE))

    while True:
        await asyncio.sleep(LEASE.total_seconds() / 6)
        await running.database.write(renew)


@asynccontextmanager
async def running_catalog(directory: Path, database_url: str = "") -> AsyncIterator[RunningCatalog]:
    """Serve a catalog with keys of its own, on SQLite in `directory` unless another database is named."""
    authority = await asyncio.to_thread(make_certificate_authority, "maand test", now=datetime.now(tz=UTC))
    (directory / "ca.crt").write_bytes(authority.public)
    (directory / "ca.key").write_bytes(authority.private)
    (directory / "kv.key").write_text(f"test:{base64.urlsafe_b64encode(bytes(32)).decode()}\n")
    (directory / "kv.key").chmod(0o600)
    sockets = Path(tempfile.mkdtemp(prefix="maand-"))
    running = await start_catalog(
        CatalogSettings(
            database_url=database_url or f"sqlite:///{directory / 'maand.db'}",
            kv_key_file=directory / "kv.key",
            ca_dir=directory,
            listen=f"unix:{sockets / 'catalog.sock'}",
            lease=LEASE,
            stop_grace=timedelta(),
        )
    )
    keeping = asyncio.create_task(keep_leases(running))
    try:
        yield running
    finally:
        await end_tasks(keeping)
        await running.stop()
        shutil.rmtree(sockets)
