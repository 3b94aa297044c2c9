"""Keeping contents: each once per bucket, by its SHA-256, in pieces."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

from sqlalchemy import select

from maand_catalog.database.statements import in_chunks, one_of, upsert_into
from maand_catalog.database.transaction import Transaction
from maand_catalog.errors import NotFound
from maand_catalog.store.tables.buckets import blob_pieces, blobs

PIECE_BYTES = 1024 * 1024
"""Largest piece stored, and sent."""


@dataclass(frozen=True, kw_only=True)
class Blob:
    """One whole content with its digest."""

    sha256: bytes
    data: bytes


def find_missing_blobs(tx: Transaction, bucket_id: str, digests: Sequence[bytes]) -> list[bytes]:
    """Return which of these contents are not kept, in the order asked, each once."""
    held: set[bytes] = set()
    for chunk in in_chunks(digests):
        held.update(
            tx.connection.scalars(select(blobs.c.sha256).where(blobs.c.bucket_id == bucket_id, one_of(tx, blobs.c.sha256, chunk)))
        )
    return [digest for digest in dict.fromkeys(digests) if digest not in held]


def store_blobs(tx: Transaction, bucket_id: str, contents: Iterable[Blob]) -> tuple[int, int]:
    """Keep contents that are not kept yet; return how many were new, and their bytes. Digests were verified before."""
    by_digest = {blob.sha256: blob for blob in contents}
    new = [by_digest[digest] for digest in find_missing_blobs(tx, bucket_id, list(by_digest))]
    if not new:
        return 0, 0
    rows = [{"bucket_id": bucket_id, "sha256": blob.sha256, "size": len(blob.data), "created_at": tx.now} for blob in new]
    tx.connection.execute(upsert_into(tx.dialect, blobs).on_conflict_do_nothing(), rows)
    pieces = [
        {"bucket_id": bucket_id, "sha256": blob.sha256, "piece": number, "data": piece}
        for blob in new
        for number, piece in enumerate(cut_in_pieces(blob.data))
    ]
    tx.connection.execute(upsert_into(tx.dialect, blob_pieces).on_conflict_do_nothing(), pieces)
    return len(new), sum(len(blob.data) for blob in new)


def cut_in_pieces(data: bytes) -> Iterator[bytes]:
    """Cut a content into pieces; an empty one is one empty piece."""
    for start in range(0, max(len(data), 1), PIECE_BYTES):
        yield data[start : start + PIECE_BYTES]


def read_blobs(tx: Transaction, bucket_id: str, digests: Collection[bytes]) -> dict[bytes, bytes]:
    """Return whole contents by digest; those not kept are missing. For small files: all of it is in memory."""
    found: dict[bytes, list[bytes]] = {}
    for chunk in in_chunks(list(digests)):
        wanted = (
            select(blob_pieces.c.sha256, blob_pieces.c.data)
            .where(blob_pieces.c.bucket_id == bucket_id, one_of(tx, blob_pieces.c.sha256, chunk))
            .order_by(blob_pieces.c.sha256, blob_pieces.c.piece)
        )
        for digest, data in tx.connection.execute(wanted):
            found.setdefault(bytes(digest), []).append(bytes(data))
    return {digest: b"".join(pieces) for digest, pieces in found.items()}


def read_blob_sizes(tx: Transaction, bucket_id: str, digests: Sequence[bytes]) -> dict[bytes, int]:
    """Return the size of each content; `NotFound` names the first that is not kept."""
    sizes: dict[bytes, int] = {}
    for chunk in in_chunks(digests):
        wanted = select(blobs.c.sha256, blobs.c.size).where(blobs.c.bucket_id == bucket_id, one_of(tx, blobs.c.sha256, chunk))
        sizes.update({bytes(digest): size for digest, size in tx.connection.execute(wanted)})
    unknown = next((digest for digest in digests if digest not in sizes), None)
    if unknown is not None:
        raise NotFound(f"the content {unknown.hex()} is not kept", help="upload it, or build again")
    return sizes


def read_blob_piece(tx: Transaction, bucket_id: str, digest: bytes, piece: int) -> bytes:
    """Return one piece of a content that is kept."""
    wanted = select(blob_pieces.c.data).where(
        blob_pieces.c.bucket_id == bucket_id, blob_pieces.c.sha256 == digest, blob_pieces.c.piece == piece
    )
    return bytes(tx.connection.execute(wanted).scalar_one())
