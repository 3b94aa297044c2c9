"""Tables of workspace content: blobs by SHA-256 in pieces, and the trees that name them."""

from sqlalchemy import BigInteger, Column, ForeignKeyConstraint, Integer, LargeBinary, String, Table

from maand_catalog.database.metadata import UtcMicros, digest_type, id_type, metadata

blobs = Table(
    "blobs",
    metadata,
    Column("bucket_id", id_type(), primary_key=True),
    Column("sha256", digest_type(), primary_key=True),
    Column("size", BigInteger(), nullable=False),
    Column("created_at", UtcMicros(), nullable=False),
)

blob_pieces = Table(
    "blob_pieces",
    metadata,
    Column("bucket_id", id_type(), primary_key=True),
    Column("sha256", digest_type(), primary_key=True),
    Column("piece", Integer(), primary_key=True),
    Column("data", LargeBinary(), nullable=False),
    ForeignKeyConstraint(["bucket_id", "sha256"], ["blobs.bucket_id", "blobs.sha256"], ondelete="CASCADE"),
)
"""Pieces of at most 1 MiB, so that a large file never has to be in memory as a whole to be sent on."""

snapshots = Table(
    "snapshots",
    metadata,
    Column("bucket_id", id_type(), primary_key=True),
    Column("snapshot_id", String(64), primary_key=True),
    Column("created_at", UtcMicros(), nullable=False),
    Column("files", Integer(), nullable=False),
    Column("tree", LargeBinary(), nullable=False),
)
"""`tree` is the whole file list, compressed (`workspace_tree.pack`): it is only ever read as a whole."""
