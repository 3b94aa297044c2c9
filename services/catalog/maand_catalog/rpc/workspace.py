"""WorkspaceService: taking in content and trees, checking and building them."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import asdict
from typing import Any

from maand_catalog.building.builder import Builder, BuildRequest
from maand_catalog.building.documents.compiler import locate_finding
from maand_catalog.database.database import Database, Transaction
from maand_catalog.errors import InvalidArgument, InvalidWorkspace, LimitExceeded
from maand_catalog.rpc.callers import require_role
from maand_catalog.rpc.requests import checked_id, checked_text
from maand_catalog.rules.identity import Role
from maand_catalog.rules.workspace.problems import fit_in_trailer, sort_problems
from maand_catalog.rules.workspace.tree import HELP_LARGE, LARGEST_FILE_BYTES, TreeEntry, accept_tree, listing_findings
from maand_catalog.store.fleet.blobs import (
    PIECE_BYTES,
    Blob,
    find_missing_blobs,
    read_blob_piece,
    read_blob_sizes,
    read_blobs,
    store_blobs,
)
from maand_catalog.store.fleet.buckets import get_bucket
from maand_catalog.store.fleet.snapshots import create_snapshot, read_snapshot
from maand_contracts.catalog.v1 import workspace_pb2 as pb
from maand_contracts.catalog.v1.workspace_pb2_grpc import WorkspaceServiceServicer
from maand_wire.errors import problem_to_message

MOST_DIGESTS = 10_000
MOST_FILES = 200_000
BATCH_BYTES = 4 * 1024 * 1024
"""Contents stored by one write: few commits for many small files, little memory for large ones."""


class WorkspaceServicer(WorkspaceServiceServicer):
    """Takes in workspaces. Uploading needs an operator, reading contents and building an executor."""

    def __init__(self, database: Database, builder: Builder) -> None:
        self._database = database
        self._builder = builder

    async def FindMissingBlobs(self, request: pb.FindMissingBlobsRequest, context: Any) -> pb.FindMissingBlobsResponse:
        """Tell which contents are to be uploaded."""
        require_role(context, Role.OPERATOR, Role.EXECUTOR)
        digests = checked_digests(request.sha256)

        def intention(tx: Transaction) -> list[bytes]:
            get_bucket(tx, request.bucket_id)
            return find_missing_blobs(tx, request.bucket_id, digests)

        return pb.FindMissingBlobsResponse(missing_sha256=await self._database.read(intention))

    async def UploadBlobs(self, request_iterator: AsyncIterator[pb.UploadBlobsRequest], context: Any) -> pb.UploadBlobsResponse:
        """Store contents as they come; those before a wrong one stay stored."""
        require_role(context, Role.OPERATOR, Role.EXECUTOR)
        upload = Upload(self._database)
        try:
            async for piece in request_iterator:
                await upload.take(piece)
        finally:
            await upload.flush()
        upload.check_complete()
        return pb.UploadBlobsResponse(blobs=upload.stored, bytes=upload.stored_bytes)

    async def ReadBlobs(self, request: pb.ReadBlobsRequest, context: Any) -> AsyncIterator[pb.ReadBlobsResponse]:
        """Return contents in the order asked, piece by piece."""
        require_role(context, Role.EXECUTOR, Role.OPERATOR)
        digests = checked_digests(request.sha256)
        sizes = await self._database.read(lambda tx: read_blob_sizes(tx, request.bucket_id, digests))
        for group in groups_by_size(digests, sizes):
            if sizes[group[0]] > PIECE_BYTES:
                async for response in self._pieces(request.bucket_id, group[0], sizes[group[0]]):
                    yield response
                continue
            contents = await self._contents(request.bucket_id, group)
            for digest in group:
                yield pb.ReadBlobsResponse(sha256=digest, data=contents[digest], last=True)

    async def _pieces(self, bucket_id: str, digest: bytes, size: int) -> AsyncIterator[pb.ReadBlobsResponse]:
        count = -(-size // PIECE_BYTES)
        for number in range(count):
            data = await self._piece(bucket_id, digest, number)
            yield pb.ReadBlobsResponse(sha256=digest, data=data, last=number == count - 1)

    async def _contents(self, bucket_id: str, digests: list[bytes]) -> dict[bytes, bytes]:
        return await self._database.read(lambda tx: read_blobs(tx, bucket_id, digests))

    async def _piece(self, bucket_id: str, digest: bytes, number: int) -> bytes:
        return await self._database.read(lambda tx: read_blob_piece(tx, bucket_id, digest, number))

    async def CreateSnapshot(self, request: pb.CreateSnapshotRequest, context: Any) -> pb.CreateSnapshotResponse:
        """Remember a workspace tree."""
        require_role(context, Role.OPERATOR)
        if len(request.files) > MOST_FILES:
            raise LimitExceeded(f"the workspace has more than {MOST_FILES} files")
        entries = await asyncio.to_thread(accepted_tree, request.files)

        def intention(tx: Transaction) -> str:
            get_bucket(tx, request.bucket_id)
            return create_snapshot(tx, request.bucket_id, entries)

        return pb.CreateSnapshotResponse(snapshot_id=await self._database.write(intention))

    async def GetSnapshot(self, request: pb.GetSnapshotRequest, context: Any) -> pb.GetSnapshotResponse:
        """Return the entries of a workspace tree."""
        require_role(context, Role.VIEWER)
        entries = await self._database.read(lambda tx: read_snapshot(tx, request.bucket_id, request.snapshot_id))
        return pb.GetSnapshotResponse(files=[pb.WorkspaceFile(**asdict(entry)) for entry in entries])

    async def CheckSnapshot(self, request: pb.CheckSnapshotRequest, context: Any) -> pb.CheckSnapshotResponse:
        """Return every problem of a snapshot."""
        require_role(context, Role.VIEWER)
        problems = await self._builder.check(request.bucket_id, request.snapshot_id)
        return pb.CheckSnapshotResponse(problems=[problem_to_message(problem) for problem in problems])

    async def BuildSnapshot(self, request: pb.BuildSnapshotRequest, context: Any) -> pb.BuildSnapshotResponse:
        """Build a snapshot for a run."""
        require_role(context, Role.EXECUTOR)
        result = await self._builder.build(
            BuildRequest(
                bucket_id=checked_id(request.bucket_id, "bucket_id"),
                snapshot_id=checked_text(request.snapshot_id, "snapshot_id", longest=64, required=True),
                run_id=checked_id(request.run_id, "run_id"),
                fence=request.fence,
            )
        )
        return pb.BuildSnapshotResponse(**asdict(result))


class Upload:
    """One stream of contents: verified as they end, stored a few megabytes at a time."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._bucket_id = ""
        self._current = bytearray()
        self._current_sha256 = b""
        self._waiting: list[Blob] = []
        self._waiting_bytes = 0
        self.stored = 0
        self.stored_bytes = 0

    async def take(self, piece: pb.UploadBlobsRequest) -> None:
        """Take in one piece."""
        if not self._bucket_id:
            self._bucket_id = checked_id(piece.bucket_id, "bucket_id")
            await self._database.read(lambda tx: get_bucket(tx, self._bucket_id))
        if len(piece.data) > PIECE_BYTES:
            raise LimitExceeded("a piece is larger than 1 MiB")
        if self._current_sha256 not in (b"", piece.sha256):
            raise InvalidArgument(f"the content {self._current_sha256.hex()} was not finished before the next one began")
        self._current_sha256 = checked_digests([piece.sha256])[0]
        self._current += piece.data
        if len(self._current) > LARGEST_FILE_BYTES:
            raise LimitExceeded("a file is larger than 64 MiB", help=HELP_LARGE)
        if piece.last:
            await self._finish()

    async def _finish(self) -> None:
        """Verify the content that ended and queue it."""
        data, digest = bytes(self._current), self._current_sha256
        self._current, self._current_sha256 = bytearray(), b""
        if hashlib.sha256(data).digest() != digest:
            raise InvalidArgument(f"a content does not have the SHA-256 {digest.hex()}", code="digest_mismatch")
        self._waiting.append(Blob(sha256=digest, data=data))
        self._waiting_bytes += len(data)
        if self._waiting_bytes >= BATCH_BYTES or len(self._waiting) >= 1000:
            await self.flush()

    async def flush(self) -> None:
        """Store what is queued."""
        waiting, self._waiting, self._waiting_bytes = self._waiting, [], 0
        if not waiting:
            return
        blobs, count = await self._database.write(lambda tx: store_blobs(tx, self._bucket_id, waiting))
        self.stored += blobs
        self.stored_bytes += count

    def check_complete(self) -> None:
        """Refuse a stream that ended within a content."""
        if self._current_sha256:
            raise InvalidArgument(f"the stream ended within the content {self._current_sha256.hex()}")


def checked_digests(digests: Sequence[bytes]) -> list[bytes]:
    """Return digests that are digests, and not too many."""
    if len(digests) > MOST_DIGESTS:
        raise LimitExceeded(f"more than {MOST_DIGESTS} digests in one call")
    if any(len(digest) != 32 for digest in digests):
        raise InvalidArgument("a SHA-256 has 32 bytes", facts={"field": "sha256"})
    return list(digests)


def groups_by_size(digests: Iterable[bytes], sizes: dict[bytes, int]) -> list[list[bytes]]:
    """Cut a list into groups that are read together: a few megabytes of small contents, or one large content alone."""
    groups: list[list[bytes]] = []
    room = -1
    for digest in digests:
        size = sizes[digest]
        if size > PIECE_BYTES or size > room or len(groups[-1]) >= 500:
            groups.append([])
            room = BATCH_BYTES
        groups[-1].append(digest)
        room = -1 if size > PIECE_BYTES else room - size
    return groups


def accepted_tree(files: Iterable[pb.WorkspaceFile]) -> tuple[TreeEntry, ...]:
    """Return the tree that a listing describes; InvalidWorkspace says what is wrong with one that is no tree."""
    entries = accept_tree(
        TreeEntry(
            path=file.path,
            sha256=file.sha256,
            mode=file.mode,
            size=file.size,
            link_target=file.link_target,
            directory=file.directory,
        )
        for file in files
    )
    findings = (locate_finding({}, finding) for finding in listing_findings(entries))
    problems = sort_problems(findings)
    if problems:
        raise InvalidWorkspace("the workspace cannot be taken in as it is listed", problems=fit_in_trailer(problems))
    return entries
