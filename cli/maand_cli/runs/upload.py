"""Sending the workspace: only contents that the catalog lacks, then the list of files, which becomes a snapshot."""

import hashlib
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

from maand_cli.errors import CliError
from maand_cli.local.workspace_scan import ScannedFile, scan_workspace
from maand_cli.output.rows import ask_confirmation, print_note
from maand_cli.output.text import format_count
from maand_cli.remote.session import Session
from maand_contracts.catalog.v1 import workspace_pb2

PIECE_BYTES = 1024 * 1024


class ChangedMeanwhile(CliError):
    """A file changed while it was being sent; nothing was built. Run the command again."""

    code = "changed_meanwhile"


async def upload_workspace(session: Session) -> str:
    """Send the workspace and return the id of its snapshot. Asks before every job would be removed."""
    files = scan_workspace(session.bucket.workspace, session.bucket.workspace_digests)
    await _confirm_without_jobs(session, files)
    for file in files:
        if file.warning:
            print_note(session.flags, f"warning: {file.warning}")
    by_digest = {file.sha256: file for file in files if file.sha256}
    missing = await session.catalog.missing_blobs(list(by_digest))
    if missing:
        await session.catalog.upload_blobs(cut_into_pieces(session.conf.bucket_id, session.bucket.workspace, missing, by_digest))
    return await session.catalog.create_snapshot(
        workspace_pb2.WorkspaceFile(
            path=file.path,
            sha256=file.sha256,
            mode=file.mode,
            size=file.size,
            link_target=file.link_target,
            directory=file.directory,
        )
        for file in files
    )


async def _confirm_without_jobs(session: Session, files: Sequence[ScannedFile]) -> None:
    """Ask whether a workspace without jobs is meant, where the last build had some: often its `jobs/` is only not there.

    Raises Refused, MissingPrerequisite.
    """
    if any(file.path == "jobs" or file.path.startswith("jobs/") for file in files):
        return
    built = (await session.catalog.get_bucket()).jobs
    if built:
        jobs = session.bucket.workspace / "jobs"
        what = f"{jobs} {'holds no job' if jobs.is_dir() else 'does not exist'}, the last build had {format_count(built, 'job')}"
        ask_confirmation(
            session.flags, f"{what}: build this, so that a deploy stops and removes {'it' if built == 1 else 'them all'}?"
        )


async def cut_into_pieces(
    bucket_id: str, workspace: Path, missing: Sequence[bytes], by_digest: Mapping[bytes, ScannedFile]
) -> AsyncIterator[workspace_pb2.UploadBlobsRequest]:
    """Cut files into pieces of at most 1 MiB. Raises ChangedMeanwhile when a file is no longer what was hashed."""
    for digest in missing:
        file = by_digest[digest]
        seen = hashlib.sha256()
        with (workspace / file.path).open("rb") as source:
            piece = source.read(PIECE_BYTES)
            while True:
                following = source.read(PIECE_BYTES)
                seen.update(piece)
                if not following and seen.digest() != digest:
                    raise ChangedMeanwhile(f"workspace/{file.path} changed while it was read", help="run the command again")
                yield workspace_pb2.UploadBlobsRequest(bucket_id=bucket_id, sha256=digest, data=piece, last=not following)
                if not following:
                    break
                piece = following
