"""A bucket of a served catalog: what its operator and its executor do with it, in one word each. Errors arrive as RemoteError."""

import datetime
import hashlib
import uuid
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from sqlalchemy import select

from maand_catalog.store.kv.entries import select_entries
from maand_catalog.store.tables.kv import kv_versions
from maand_contracts.catalog.v1 import allocation_pb2, bucket_pb2, job_pb2, run_pb2, workspace_pb2
from maand_contracts.catalog.v1.allocation_pb2_grpc import AllocationServiceStub
from maand_contracts.catalog.v1.bucket_pb2_grpc import BucketServiceStub
from maand_contracts.catalog.v1.job_pb2_grpc import JobServiceStub
from maand_contracts.catalog.v1.worker_pb2_grpc import WorkerServiceStub
from maand_contracts.catalog.v1.workspace_pb2_grpc import WorkspaceServiceStub
from maand_wire.errors import remote_errors
from tests.contracts.catalog import run_verbs
from tests.contracts.catalog.run_builders import BUILD, a_create
from tests.contracts.catalog.serving import ServedCatalog

FLEET = '[{"host": "10.0.0.1", "labels": ["api"]}, {"host": "10.0.0.2", "labels": ["api"]}]'
TLS = '{"certs": {"tls": {}}}'

WORKSPACE: Mapping[str, str] = {"workers.json": FLEET, "jobs/api/manifest.json": "{}", "jobs/api/Makefile": "start:\n"}


@dataclass(frozen=True, kw_only=True)
class BucketClient:
    """One bucket through the services that this part serves."""

    catalog: ServedCatalog
    bucket_id: str

    @property
    def buckets(self) -> BucketServiceStub:
        return BucketServiceStub(self.catalog.local.channel)

    @property
    def workspaces(self) -> WorkspaceServiceStub:
        return WorkspaceServiceStub(self.catalog.local.channel)

    @property
    def workers(self) -> WorkerServiceStub:
        return WorkerServiceStub(self.catalog.local.channel)

    @property
    def jobs(self) -> JobServiceStub:
        return JobServiceStub(self.catalog.local.channel)

    @property
    def placements(self) -> AllocationServiceStub:
        return AllocationServiceStub(self.catalog.local.channel)

    async def apply(self, extra: str = "") -> bucket_pb2.Bucket:
        """Send `maand.conf`."""
        conf = f'bucket_id = "{self.bucket_id}"\n{extra}'
        with remote_errors():
            request = bucket_pb2.ApplyBucketConfigRequest(bucket_id=self.bucket_id, maand_conf=conf.encode())
            return (await self.buckets.ApplyBucketConfig(request)).bucket

    async def get(self) -> bucket_pb2.Bucket:
        with remote_errors():
            return (await self.buckets.GetBucket(bucket_pb2.GetBucketRequest(bucket_id=self.bucket_id))).bucket

    async def upload(self, *contents: bytes) -> workspace_pb2.UploadBlobsResponse:
        """Send contents, each as one piece."""
        return await self.upload_pieces(
            workspace_pb2.UploadBlobsRequest(
                bucket_id=self.bucket_id, sha256=hashlib.sha256(content).digest(), data=content, last=True
            )
            for content in contents
        )

    async def upload_pieces(self, pieces: Iterable[workspace_pb2.UploadBlobsRequest]) -> workspace_pb2.UploadBlobsResponse:
        async def stream() -> AsyncIterator[workspace_pb2.UploadBlobsRequest]:
            for piece in pieces:
                yield piece

        with remote_errors():
            return await self.workspaces.UploadBlobs(stream())

    async def missing(self, *contents: bytes) -> list[bytes]:
        digests = [hashlib.sha256(content).digest() for content in contents]
        with remote_errors():
            request = workspace_pb2.FindMissingBlobsRequest(bucket_id=self.bucket_id, sha256=digests)
            return list((await self.workspaces.FindMissingBlobs(request)).missing_sha256)

    async def read(self, *digests: bytes) -> dict[bytes, bytes]:
        """Return contents, put together from their pieces."""
        contents: dict[bytes, bytes] = {}
        with remote_errors():
            request = workspace_pb2.ReadBlobsRequest(bucket_id=self.bucket_id, sha256=digests)
            async for piece in self.workspaces.ReadBlobs(request):
                contents[piece.sha256] = contents.get(piece.sha256, b"") + piece.data
        return contents

    async def snapshot(self, files: Mapping[str, str]) -> str:
        """Upload a workspace and remember its tree."""
        await self.upload(*{text.encode() for text in files.values()})
        return await self.snapshot_of(file_entry(path, text.encode()) for path, text in files.items())

    async def snapshot_of(self, entries: Iterable[workspace_pb2.WorkspaceFile]) -> str:
        with remote_errors():
            request = workspace_pb2.CreateSnapshotRequest(bucket_id=self.bucket_id, files=entries)
            return (await self.workspaces.CreateSnapshot(request)).snapshot_id

    async def begin(self) -> run_pb2.Run:
        """Create a run and claim it."""
        await run_verbs.create(self.catalog, a_create(self.bucket_id, BUILD))
        return await run_verbs.must_claim(self.catalog)

    async def build(self, files: Mapping[str, str | None] | None = None) -> workspace_pb2.BuildSnapshotResponse:
        """Build the usual workspace with these files laid over it (None removes one), in a run of its own."""
        wanted = {path: text for path, text in {**WORKSPACE, **(files or {})}.items() if text is not None}
        snapshot_id = await self.snapshot(wanted)
        run = await self.begin()
        try:
            return await self.build_for(run, snapshot_id)
        finally:
            await run_verbs.finish(self.catalog, run)

    async def build_for(self, run: run_pb2.Run, snapshot_id: str, *, fence: int = 0) -> workspace_pb2.BuildSnapshotResponse:
        with remote_errors():
            return await self.workspaces.BuildSnapshot(
                workspace_pb2.BuildSnapshotRequest(
                    bucket_id=self.bucket_id, snapshot_id=snapshot_id, run_id=run.run_id, fence=fence or run.fence
                )
            )

    async def allocations(self, *, jobs: Sequence[str] = (), removed: bool = True) -> list[allocation_pb2.Allocation]:
        with remote_errors():
            request = allocation_pb2.ListAllocationsRequest(bucket_id=self.bucket_id, jobs=jobs, include_removed=removed)
            return list((await self.placements.ListAllocations(request)).allocations)

    async def allocation(self, worker: str, job: str = "api") -> allocation_pb2.Allocation:
        [found] = [each for each in await self.allocations(jobs=[job]) if each.worker == worker]
        return found

    async def move(self, run: run_pb2.Run, *moves: allocation_pb2.AllocationMove, **fields: object) -> None:
        with remote_errors():
            await self.placements.MoveAllocations(
                allocation_pb2.MoveAllocationsRequest(
                    bucket_id=self.bucket_id,
                    run_id=run.run_id,
                    fence=run.fence,
                    moves=moves,
                    **fields,  # type: ignore[arg-type]
                )
            )

    async def promote(self, *workers: str, version: str = "0.0.0") -> None:
        """Deploy allocations of `api` as an executor would."""
        run = await self.begin()
        for worker in workers:
            each = await self.allocation(worker)
            await self.move(run, a_move(each, allocation_pb2.ALLOCATION_STATE_DEPLOYING))
            await self.move(run, promotion(each, version=version))
        await run_verbs.finish(self.catalog, run)

    async def settle(self, worker: str, state: allocation_pb2.AllocationState.ValueType) -> None:
        """Move one allocation of `api` in a run of its own."""
        run = await self.begin()
        try:
            await self.move(run, a_move(await self.allocation(worker), state))
        finally:
            await run_verbs.finish(self.catalog, run)

    async def ports(self) -> dict[str, int]:
        with remote_errors():
            found = await self.jobs.ListPorts(job_pb2.ListPortsRequest(bucket_id=self.bucket_id))
        return {port.name: port.number for port in found.ports}

    async def certificates(self) -> dict[tuple[str, str, str], str]:
        """Return serial numbers by job, name and worker."""
        with remote_errors():
            request = allocation_pb2.ListCertificatesRequest(bucket_id=self.bucket_id)
            found = await self.placements.ListCertificates(request)
        return {(leaf.job, leaf.name, leaf.worker): leaf.serial for leaf in found.certificates}

    async def entries(self, prefix: str = "") -> dict[str, dict[str, str]]:
        """Return the present KV entries in clear by namespace; sealed ones show as `***`."""
        query = select_entries(self.bucket_id).where(
            kv_versions.c.newest, kv_versions.c.namespace.startswith(prefix, autoescape=True)
        )
        rows = await self.catalog.database.read(lambda tx: tx.connection.execute(query).all())
        found: dict[str, dict[str, str]] = {}
        for row in rows:
            if row.value is not None or row.sealed is not None:
                found.setdefault(row.namespace, {})[row.key] = "***" if row.sealed is not None else row.value
        return found

    async def everything(self) -> dict[str, list[tuple[object, ...]]]:
        """Return all rows of all tables but those of runs, to prove that nothing changed."""
        tables = [
            table
            for table in kv_versions.metadata.sorted_tables
            if not table.name.startswith(
                ("run", "hook_inv", "invocation", "blob", "snapshot", "semaphore", "lease", "token", "audit")
            )
        ]
        return await self.catalog.database.read(
            lambda tx: {table.name: sorted(map(tuple, tx.connection.execute(select(table))), key=str) for table in tables}
        )


async def a_new_bucket(catalog: ServedCatalog) -> BucketClient:
    """Return a bucket with its settings applied and a CA on disk."""
    write_authority(catalog.running.settings.ca_dir)
    client = BucketClient(catalog=catalog, bucket_id=str(uuid.uuid4()))
    await client.apply()
    return client


def write_authority(directory: Path, *, days: int = 3650) -> None:
    """Make a CA as `maand init` does."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test CA")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (directory / "ca.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (directory / "ca.key").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )


def file_entry(path: str, content: bytes, *, mode: int = 0o644) -> workspace_pb2.WorkspaceFile:
    return workspace_pb2.WorkspaceFile(path=path, sha256=hashlib.sha256(content).digest(), mode=mode, size=len(content))


def a_move(
    each: allocation_pb2.Allocation, state: allocation_pb2.AllocationState.ValueType, *, message: str = ""
) -> allocation_pb2.AllocationMove:
    return allocation_pb2.AllocationMove(allocation_id=each.allocation_id, to_state=state, message=message)


def promotion(
    each: allocation_pb2.Allocation, *, version: str = "0.0.0", path: str = "Makefile"
) -> allocation_pb2.AllocationMove:
    digest = hashlib.sha256(path.encode()).digest()
    return allocation_pb2.AllocationMove(
        allocation_id=each.allocation_id,
        to_state=allocation_pb2.ALLOCATION_STATE_PROMOTED,
        current_version=version,
        deployed_sha256=digest,
        deployed_files=[allocation_pb2.DeployedFile(path=path, mode=0o644, sha256=digest)],
    )
