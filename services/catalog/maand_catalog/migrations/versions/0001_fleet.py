"""Create the tables of buckets, workspace content, and what a build makes of it."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create them."""
    op.create_table(
        "allocations",
        sa.Column("bucket_id", sa.String(length=36), nullable=False),
        sa.Column("allocation_id", sa.String(length=36), nullable=False),
        sa.Column("job", sa.String(length=255), nullable=False),
        sa.Column("worker", sa.String(length=255), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("removed", sa.Boolean(), nullable=False),
        sa.Column("disabled", sa.Boolean(), nullable=False),
        sa.Column("current_version", sa.String(length=255), nullable=False),
        sa.Column("new_version", sa.String(length=255), nullable=False),
        sa.Column("deployed_sha256", sa.LargeBinary(), nullable=False),
        sa.Column("target_sha256", sa.LargeBinary(length=32), nullable=False),
        sa.Column("promoted_target_sha256", sa.LargeBinary(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("state_since", sa.BigInteger(), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("run_id", sa.String(length=36), nullable=False),
        sa.Column("post_deploy_owed", sa.Boolean(), nullable=False),
        sa.Column("moves", sa.Integer(), nullable=False),
        sa.CheckConstraint(
            "state IN ('planned', 'deploying', 'promoted', 'pending', 'failed', 'stopped', 'removed')",
            name=op.f("ck_allocations_state"),
        ),
        sa.PrimaryKeyConstraint("bucket_id", "allocation_id", name=op.f("pk_allocations")),
    )
    op.create_index(op.f("ix_allocations_bucket_id_job_worker"), "allocations", ["bucket_id", "job", "worker"], unique=True)
    op.create_index(op.f("ix_allocations_bucket_id_worker"), "allocations", ["bucket_id", "worker"], unique=False)
    op.create_table(
        "blobs",
        sa.Column("bucket_id", sa.String(length=36), nullable=False),
        sa.Column("sha256", sa.LargeBinary(length=32), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("bucket_id", "sha256", name=op.f("pk_blobs")),
    )
    op.create_table(
        "buckets",
        sa.Column("bucket_id", sa.String(length=36), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("maand_conf", sa.LargeBinary(), nullable=False),
        sa.Column("config_sha256", sa.LargeBinary(length=32), nullable=False),
        sa.PrimaryKeyConstraint("bucket_id", name=op.f("pk_buckets")),
    )
    op.create_index(op.f("ix_buckets_created_at_bucket_id"), "buckets", ["created_at", "bucket_id"], unique=False)
    op.create_table(
        "builds",
        sa.Column("bucket_id", sa.String(length=36), nullable=False),
        sa.Column("run_id", sa.String(length=36), nullable=False),
        sa.Column("built_at", sa.BigInteger(), nullable=False),
        sa.Column("snapshot_id", sa.String(length=64), nullable=False),
        sa.Column("inputs_sha256", sa.LargeBinary(length=32), nullable=False),
        sa.Column("ca_certificate", sa.Text(), nullable=False),
        sa.Column("renew_at", sa.BigInteger(), nullable=True),
        sa.Column("jobs", sa.Integer(), nullable=False),
        sa.Column("workers", sa.Integer(), nullable=False),
        sa.Column("active_allocations", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("bucket_id", name=op.f("pk_builds")),
    )
    op.create_table(
        "certificates",
        sa.Column("bucket_id", sa.String(length=36), nullable=False),
        sa.Column("job", sa.String(length=255), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("worker", sa.String(length=255), nullable=False),
        sa.Column("common_name", sa.Text(), nullable=False),
        sa.Column("serial", sa.String(length=64), nullable=False),
        sa.Column("not_before", sa.BigInteger(), nullable=False),
        sa.Column("not_after", sa.BigInteger(), nullable=False),
        sa.Column("spec_sha256", sa.LargeBinary(length=32), nullable=False),
        sa.Column("ca_sha256", sa.LargeBinary(length=32), nullable=False),
        sa.Column("pem", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("bucket_id", "job", "name", "worker", name=op.f("pk_certificates")),
    )
    op.create_table(
        "jobs",
        sa.Column("bucket_id", sa.String(length=36), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("job_id", sa.String(length=36), nullable=False),
        sa.Column("version", sa.String(length=255), nullable=False),
        sa.Column("deployment_seq", sa.Integer(), nullable=False),
        sa.Column("memory_mb", sa.BigInteger(), nullable=False),
        sa.Column("cpu_mhz", sa.BigInteger(), nullable=False),
        sa.Column("removed", sa.Boolean(), nullable=False),
        sa.Column("has_makefile", sa.Boolean(), nullable=False),
        sa.Column("facts", sa.JSON(), nullable=False),
        sa.Column("variables", sa.JSON(), nullable=False),
        sa.Column("tree", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("bucket_id", "name", name=op.f("pk_jobs")),
    )
    op.create_table(
        "ports",
        sa.Column("bucket_id", sa.String(length=36), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("job", sa.String(length=255), nullable=False),
        sa.Column("fixed", sa.Boolean(), nullable=False),
        sa.CheckConstraint("number BETWEEN 1 AND 65535", name=op.f("ck_ports_number")),
        sa.PrimaryKeyConstraint("bucket_id", "name", name=op.f("pk_ports")),
    )
    op.create_table(
        "snapshots",
        sa.Column("bucket_id", sa.String(length=36), nullable=False),
        sa.Column("snapshot_id", sa.String(length=64), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("files", sa.Integer(), nullable=False),
        sa.Column("tree", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("bucket_id", "snapshot_id", name=op.f("pk_snapshots")),
    )
    op.create_table(
        "workers",
        sa.Column("bucket_id", sa.String(length=36), nullable=False),
        sa.Column("host", sa.String(length=255), nullable=False),
        sa.Column("worker_id", sa.String(length=36), nullable=False),
        sa.Column("hostname", sa.String(length=255), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("labels", sa.JSON(), nullable=False),
        sa.Column("memory_mb", sa.BigInteger(), nullable=False),
        sa.Column("cpu_mhz", sa.BigInteger(), nullable=False),
        sa.Column("tags", sa.JSON(), nullable=False),
        sa.Column("ssh_user", sa.String(length=255), nullable=False),
        sa.Column("ssh_port", sa.Integer(), nullable=False),
        sa.Column("disabled", sa.Boolean(), nullable=False),
        sa.Column("removed", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("bucket_id", "host", name=op.f("pk_workers")),
    )
    op.create_table(
        "allocation_moves",
        sa.Column("bucket_id", sa.String(length=36), nullable=False),
        sa.Column("allocation_id", sa.String(length=36), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("from_state", sa.String(length=16), nullable=False),
        sa.Column("to_state", sa.String(length=16), nullable=False),
        sa.Column("moved_at", sa.BigInteger(), nullable=False),
        sa.Column("run_id", sa.String(length=36), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["bucket_id", "allocation_id"],
            ["allocations.bucket_id", "allocations.allocation_id"],
            name=op.f("fk_allocation_moves_bucket_id_allocation_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("bucket_id", "allocation_id", "number", name=op.f("pk_allocation_moves")),
    )
    op.create_table(
        "blob_pieces",
        sa.Column("bucket_id", sa.String(length=36), nullable=False),
        sa.Column("sha256", sa.LargeBinary(length=32), nullable=False),
        sa.Column("piece", sa.Integer(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["bucket_id", "sha256"],
            ["blobs.bucket_id", "blobs.sha256"],
            name=op.f("fk_blob_pieces_bucket_id_sha256"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("bucket_id", "sha256", "piece", name=op.f("pk_blob_pieces")),
    )
    op.create_table(
        "deployed_files",
        sa.Column("bucket_id", sa.String(length=36), nullable=False),
        sa.Column("allocation_id", sa.String(length=36), nullable=False),
        sa.Column("files", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["bucket_id", "allocation_id"],
            ["allocations.bucket_id", "allocations.allocation_id"],
            name=op.f("fk_deployed_files_bucket_id_allocation_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("bucket_id", "allocation_id", name=op.f("pk_deployed_files")),
    )
    op.create_table(
        "hooks",
        sa.Column("bucket_id", sa.String(length=36), nullable=False),
        sa.Column("job", sa.String(length=255), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("runtime", sa.String(length=16), nullable=False),
        sa.Column("executed_on", sa.JSON(), nullable=False),
        sa.Column("timeout_seconds", sa.Integer(), nullable=False),
        sa.Column("scope", sa.String(length=16), nullable=False),
        sa.Column("demands_job", sa.String(length=255), nullable=False),
        sa.Column("demands_hook", sa.String(length=255), nullable=False),
        sa.Column("demand_config", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["bucket_id", "job"], ["jobs.bucket_id", "jobs.name"], name=op.f("fk_hooks_bucket_id_job"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("bucket_id", "job", "name", name=op.f("pk_hooks")),
    )
    op.create_index(
        op.f("ix_hooks_bucket_id_demands_job_demands_hook"), "hooks", ["bucket_id", "demands_job", "demands_hook"], unique=False
    )
    op.create_table(
        "job_demands",
        sa.Column("bucket_id", sa.String(length=36), nullable=False),
        sa.Column("job", sa.String(length=255), nullable=False),
        sa.Column("demanded_job", sa.String(length=255), nullable=False),
        sa.ForeignKeyConstraint(
            ["bucket_id", "job"], ["jobs.bucket_id", "jobs.name"], name=op.f("fk_job_demands_bucket_id_job"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("bucket_id", "job", "demanded_job", name=op.f("pk_job_demands")),
    )
