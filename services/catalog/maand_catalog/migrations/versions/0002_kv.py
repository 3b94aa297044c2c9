"""Create the tables of KV entries and semaphores."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Create them."""
    op.create_table(
        "kv_buckets",
        sa.Column("bucket_id", sa.String(length=36), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("secret_revision", sa.BigInteger(), nullable=False),
        sa.Column("trimmed_revision", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("bucket_id", name=op.f("pk_kv_buckets")),
    )
    op.create_table(
        "kv_requests",
        sa.Column("bucket_id", sa.String(length=36), nullable=False),
        sa.Column("request_id", sa.String(length=128), nullable=False),
        sa.Column(
            "namespace", sa.String(length=256).with_variant(sa.String(length=256, collation="C"), "postgresql"), nullable=False
        ),
        sa.Column("key", sa.String(length=512).with_variant(sa.String(length=512, collation="C"), "postgresql"), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("bucket_id", "request_id", name=op.f("pk_kv_requests")),
    )
    op.create_index(op.f("ix_kv_requests_bucket_id_created_at"), "kv_requests", ["bucket_id", "created_at"], unique=False)
    op.create_table(
        "kv_versions",
        sa.Column("bucket_id", sa.String(length=36), nullable=False),
        sa.Column(
            "namespace", sa.String(length=256).with_variant(sa.String(length=256, collation="C"), "postgresql"), nullable=False
        ),
        sa.Column("key", sa.String(length=512).with_variant(sa.String(length=512, collation="C"), "postgresql"), nullable=False),
        sa.Column("version", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("newest", sa.Boolean(), nullable=False),
        sa.Column("value", sa.Text(), nullable=True),
        sa.Column("sealed", sa.LargeBinary(), nullable=True),
        sa.Column("key_id", sa.String(length=64), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=True),
        sa.Column("writer", sa.Text(), nullable=False),
        sa.CheckConstraint("(sealed IS NULL) = (key_id IS NULL)", name=op.f("ck_kv_versions_key_id")),
        sa.CheckConstraint("value IS NULL OR sealed IS NULL", name=op.f("ck_kv_versions_value")),
        sa.PrimaryKeyConstraint("bucket_id", "namespace", "key", "version", name=op.f("pk_kv_versions")),
    )
    op.create_index(
        "ix_kv_versions_key_id",
        "kv_versions",
        ["bucket_id", "key_id", "revision"],
        unique=False,
        sqlite_where=sa.text("key_id IS NOT NULL"),
        postgresql_where=sa.text("key_id IS NOT NULL"),
    )
    op.create_index(
        "uq_kv_versions_newest",
        "kv_versions",
        ["bucket_id", "namespace", "key"],
        unique=True,
        sqlite_where=sa.text("newest"),
        postgresql_where=sa.text("newest"),
    )
    op.create_index("uq_kv_versions_revision", "kv_versions", ["bucket_id", "revision"], unique=True)
    op.create_table(
        "semaphores",
        sa.Column("semaphore_id", sa.String(length=36), nullable=False),
        sa.Column("bucket_id", sa.String(length=36), nullable=False),
        sa.Column("job", sa.String(length=255).with_variant(sa.String(length=255, collation="C"), "postgresql"), nullable=False),
        sa.Column("event", sa.String(length=64).with_variant(sa.String(length=64, collation="C"), "postgresql"), nullable=False),
        sa.Column("name", sa.String(length=128).with_variant(sa.String(length=128, collation="C"), "postgresql"), nullable=False),
        sa.Column("capacity", sa.Integer(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("granted", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("capacity BETWEEN 1 AND 64", name=op.f("ck_semaphores_capacity")),
        sa.PrimaryKeyConstraint("semaphore_id", name=op.f("pk_semaphores")),
        sa.UniqueConstraint("bucket_id", "job", "event", "name", name=op.f("uq_semaphores_bucket_id_job_event_name")),
    )
    op.create_table(
        "waiting_rooms",
        sa.Column("room_id", sa.String(length=36), nullable=False),
        sa.Column("lease_until", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("room_id", name=op.f("pk_waiting_rooms")),
    )
    op.create_table(
        "semaphore_claims",
        sa.Column("semaphore_id", sa.String(length=36), nullable=False),
        sa.Column("ticket", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("bucket_id", sa.String(length=36), nullable=False),
        sa.Column("invocation_id", sa.String(length=36), nullable=False),
        sa.Column("allocation_id", sa.String(length=36), nullable=False),
        sa.Column("worker", sa.String(length=255), nullable=False),
        sa.Column("run_id", sa.String(length=36), nullable=False),
        sa.Column(
            "state",
            sa.Enum("waiting", "granted", "held", "left", native_enum=False, create_constraint=True, length=16, name="state"),
            nullable=False,
        ),
        sa.Column("since", sa.BigInteger(), nullable=False),
        sa.Column("request_id", sa.String(length=64), nullable=False),
        sa.Column("call_id", sa.String(length=36), nullable=False),
        sa.Column("room_id", sa.String(length=36), nullable=False),
        sa.ForeignKeyConstraint(["semaphore_id"], ["semaphores.semaphore_id"], name=op.f("fk_semaphore_claims_semaphore_id")),
        sa.PrimaryKeyConstraint("semaphore_id", "ticket", name=op.f("pk_semaphore_claims")),
        sa.UniqueConstraint("semaphore_id", "invocation_id", name=op.f("uq_semaphore_claims_semaphore_id_invocation_id")),
    )
    op.create_index(op.f("ix_semaphore_claims_call_id"), "semaphore_claims", ["call_id"], unique=False)
    op.create_index(op.f("ix_semaphore_claims_invocation_id"), "semaphore_claims", ["invocation_id"], unique=False)
    op.create_index(op.f("ix_semaphore_claims_room_id"), "semaphore_claims", ["room_id"], unique=False)
