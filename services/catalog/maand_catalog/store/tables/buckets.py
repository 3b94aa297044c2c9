"""Tables of buckets: settings, what the last build was made of, and content: blobs by SHA-256 in pieces, trees that name them."""

from sqlalchemy import BigInteger, Column, ForeignKeyConstraint, Index, Integer, LargeBinary, String, Table, Text

from maand_catalog.database.metadata import UtcMicros, digest_type, id_type, metadata

buckets = Table(
    "buckets",
    metadata,
    Column("bucket_id", id_type(), primary_key=True),
    Column("created_at", UtcMicros(), nullable=False),
    Column("maand_conf", LargeBinary(), nullable=False),
    Column("config_sha256", digest_type(), nullable=False),
    Index(None, "created_at", "bucket_id"),
)
"""`maand_conf` is the file as sent: the settings are read from it, and problems point into it."""

builds = Table(
    "builds",
    metadata,
    Column("bucket_id", id_type(), primary_key=True),
    Column("run_id", id_type(), nullable=False),
    Column("built_at", UtcMicros(), nullable=False),
    Column("snapshot_id", String(64), nullable=False),
    Column("inputs_sha256", digest_type(), nullable=False),
    Column("ca_certificate", Text(), nullable=False),
    Column("renew_at", UtcMicros()),
    Column("jobs", Integer(), nullable=False),
    Column("workers", Integer(), nullable=False),
    Column("active_allocations", Integer(), nullable=False),
)
"""The newest successful build of each bucket. A rebuild from equal inputs (workspace, settings, CA) before `renew_at` has nothing
to do."""


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
"""`tree` is the whole file list, compressed (`rules.workspace.tree.pack`): it is only ever read as a whole."""
