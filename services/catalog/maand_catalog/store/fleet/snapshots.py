"""Remembering workspace trees, and forgetting those, with their contents, that nothing names any more."""

from collections.abc import Sequence
from datetime import timedelta

from sqlalchemy import delete, select

from maand_catalog.database.statements import in_chunks, one_of, upsert_into
from maand_catalog.database.transaction import Transaction
from maand_catalog.errors import FailedPrecondition, NotFound
from maand_catalog.rules.workspace.tree import TreeEntry, pack_tree, snapshot_id_of, unpack_tree
from maand_catalog.store.fleet.blobs import find_missing_blobs
from maand_catalog.store.tables.buckets import blobs, builds, snapshots
from maand_catalog.store.tables.fleet import jobs

KEPT_FOR = timedelta(days=1)
"""A snapshot that nobody built, or a content that nobody names, may belong to an upload that is still going on."""


class ContentMissing(FailedPrecondition):
    """The tree names contents that were not uploaded. Ask FindMissingBlobs, upload them, then repeat."""

    code = "content_missing"


def create_snapshot(tx: Transaction, bucket_id: str, entries: Sequence[TreeEntry]) -> str:
    """Remember a tree whose contents are all kept, and return its id. Equal trees are one snapshot."""
    digests = [entry.sha256 for entry in entries if entry.sha256]
    missing = find_missing_blobs(tx, bucket_id, digests)
    if missing:
        raise ContentMissing(f"{len(missing)} contents of this tree were not uploaded", facts={"missing": len(missing)})
    name = snapshot_id_of(entries)
    row = {
        "bucket_id": bucket_id,
        "snapshot_id": name,
        "created_at": tx.now,
        "files": len(entries),
        "tree": pack_tree(entries),
    }
    refresh = upsert_into(tx.dialect, snapshots).values(row)
    refresh = refresh.on_conflict_do_update(index_elements=["bucket_id", "snapshot_id"], set_={"created_at": tx.now})
    tx.connection.execute(refresh)
    return name


def read_snapshot(tx: Transaction, bucket_id: str, name: str) -> tuple[TreeEntry, ...]:
    """Return a tree's entries by path. NotFound."""
    wanted = select(snapshots.c.tree).where(snapshots.c.bucket_id == bucket_id, snapshots.c.snapshot_id == name)
    tree = tx.connection.scalar(wanted)
    if tree is None:
        raise NotFound(f"there is no snapshot {name[:64]}", help="create it from the workspace first")
    return unpack_tree(bytes(tree))


def forget_unused_content(tx: Transaction, bucket_id: str) -> int:
    """Forget snapshots and contents that neither a job nor the last build names; return how many contents went. For gc."""
    built = select(builds.c.snapshot_id).where(builds.c.bucket_id == bucket_id)
    old = tx.now - KEPT_FOR
    tx.connection.execute(
        delete(snapshots).where(
            snapshots.c.bucket_id == bucket_id, snapshots.c.created_at < old, snapshots.c.snapshot_id.not_in(built)
        )
    )
    trees = [*tx.connection.scalars(select(snapshots.c.tree).where(snapshots.c.bucket_id == bucket_id))]
    trees += tx.connection.scalars(select(jobs.c.tree).where(jobs.c.bucket_id == bucket_id))
    used = {entry.sha256 for tree in trees for entry in unpack_tree(bytes(tree))}
    held = tx.connection.scalars(select(blobs.c.sha256).where(blobs.c.bucket_id == bucket_id, blobs.c.created_at < old))
    unused = [bytes(digest) for digest in held if bytes(digest) not in used]
    for chunk in in_chunks(unused):
        tx.connection.execute(delete(blobs).where(blobs.c.bucket_id == bucket_id, one_of(tx, blobs.c.sha256, chunk)))
    return len(unused)
