"""Tables of the KV store: one row per version of a key, one row per bucket that orders its writes."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Index,
    LargeBinary,
    String,
    Table,
    Text,
    column,
)

from maand_catalog.database.metadata import UtcMicros, id_type, metadata, name_type

kv_buckets = Table(
    "kv_buckets",
    metadata,
    Column("bucket_id", id_type(), primary_key=True),
    Column("revision", BigInteger(), nullable=False),
    Column("secret_revision", BigInteger(), nullable=False),
    Column("trimmed_revision", BigInteger(), nullable=False),
)
"""Its row lock orders the writes of a bucket: revisions become visible in order, so a watcher never skips one.
`secret_revision` is the newest revision that changed a secret, `trimmed_revision` the newest one that was trimmed."""

kv_versions = Table(
    "kv_versions",
    metadata,
    Column("bucket_id", id_type(), primary_key=True),
    Column("namespace", name_type(256), primary_key=True),
    Column("key", name_type(512), primary_key=True),
    Column("version", BigInteger(), primary_key=True, autoincrement=False),
    Column("revision", BigInteger(), nullable=False),
    Column("newest", Boolean(), nullable=False),
    Column("value", Text()),
    Column("sealed", LargeBinary()),
    Column("key_id", String(64)),
    Column("created_at", UtcMicros(), nullable=False),
    Column("expires_at", UtcMicros()),
    Column("writer", Text(), nullable=False),
    Index(
        "uq_kv_versions_newest",
        "bucket_id",
        "namespace",
        "key",
        unique=True,
        sqlite_where=column("newest"),
        postgresql_where=column("newest"),
    ),
    Index("uq_kv_versions_revision", "bucket_id", "revision", unique=True),
    Index(
        "ix_kv_versions_key_id",
        "bucket_id",
        "key_id",
        "revision",
        sqlite_where=column("key_id").is_not(None),
        postgresql_where=column("key_id").is_not(None),
    ),
    CheckConstraint("value IS NULL OR sealed IS NULL", name="value"),
    CheckConstraint("(sealed IS NULL) = (key_id IS NULL)", name="key_id"),
)
"""`value` in clear, or `sealed` with the id of its key, or neither: a tombstone. `newest` marks one version of each key."""

kv_requests = Table(
    "kv_requests",
    metadata,
    Column("bucket_id", id_type(), primary_key=True),
    Column("request_id", String(128), primary_key=True),
    Column("namespace", name_type(256), nullable=False),
    Column("key", name_type(512), nullable=False),
    Column("version", BigInteger(), nullable=False),
    Column("revision", BigInteger(), nullable=False),
    Column("created_at", UtcMicros(), nullable=False),
    Index(None, "bucket_id", "created_at"),
)
"""Outcomes of writes that may be repeated, for a day: a repeat is answered from here and writes nothing."""
