"""Create the tables of runs, hook invocations, API tokens, the audit trail."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Create them."""
    op.create_table(
        "api_tokens",
        sa.Column("token_id", sa.String(length=36), nullable=False),
        sa.Column("bucket_id", sa.String(length=36), nullable=True),
        sa.Column("name", sa.String(length=256), nullable=False),
        sa.Column(
            "role",
            sa.Enum(
                "viewer", "operator", "executor", "gateway", native_enum=False, create_constraint=True, length=16, name="role"
            ),
            nullable=False,
        ),
        sa.Column("token_sha256", sa.LargeBinary(length=32), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=True),
        sa.Column("revoked_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("token_id", name=op.f("pk_api_tokens")),
        sa.UniqueConstraint("token_sha256", name=op.f("uq_api_tokens_token_sha256")),
    )
    op.create_table(
        "audit_records",
        sa.Column("audit_id", sa.String(length=36), nullable=False),
        sa.Column("time", sa.BigInteger(), nullable=False),
        sa.Column("actor", sa.String(length=256), nullable=False),
        sa.Column("action", sa.String(length=64), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("bucket_id", sa.String(length=36), nullable=True),
        sa.PrimaryKeyConstraint("audit_id", name=op.f("pk_audit_records")),
    )
    op.create_index(op.f("ix_audit_records_bucket_id_audit_id"), "audit_records", ["bucket_id", "audit_id"], unique=False)
    op.create_table(
        "runs",
        sa.Column("run_id", sa.String(length=36), nullable=False),
        sa.Column("bucket_id", sa.String(length=36), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column(
            "kind",
            sa.Enum(
                "build",
                "deploy",
                "hooks",
                "run_command",
                "health_check",
                "job_control",
                "worker_probe",
                "gc",
                native_enum=False,
                create_constraint=True,
                length=16,
                name="kind",
            ),
            nullable=False,
        ),
        sa.Column("spec", sa.LargeBinary(), nullable=False),
        sa.Column(
            "state",
            sa.Enum(
                "pending",
                "running",
                "succeeded",
                "failed",
                "cancelled",
                "interrupted",
                native_enum=False,
                create_constraint=True,
                length=16,
                name="state",
            ),
            nullable=False,
        ),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("requested_by", sa.String(length=256), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("started_at", sa.BigInteger(), nullable=True),
        sa.Column("finished_at", sa.BigInteger(), nullable=True),
        sa.Column("executor_id", sa.String(length=128), nullable=False),
        sa.Column("lease_until", sa.BigInteger(), nullable=True),
        sa.Column("fence", sa.BigInteger(), nullable=False),
        sa.Column("cancel", sa.Integer(), nullable=False),
        sa.Column("last_sequence", sa.BigInteger(), nullable=False),
        sa.Column("result", sa.LargeBinary(), nullable=False),
        sa.Column("parent_run_id", sa.String(length=36), nullable=False),
        sa.Column("hold", sa.BigInteger(), nullable=True),
        sa.Column("lock_deadline", sa.BigInteger(), nullable=True),
        sa.Column("sealed_hook_env", sa.LargeBinary(), nullable=False),
        sa.Column("hook_env_key_id", sa.String(length=64), nullable=False),
        sa.Column("request_id", sa.String(length=128), nullable=True),
        sa.Column("steps", sa.BigInteger(), nullable=False),
        sa.Column("trimmed", sa.Boolean(), nullable=False),
        sa.CheckConstraint("(state = 'running') = (lease_until IS NOT NULL)", name=op.f("ck_runs_lease")),
        sa.PrimaryKeyConstraint("run_id", name=op.f("pk_runs")),
    )
    op.create_index(
        "ix_runs_active",
        "runs",
        ["created_at"],
        unique=False,
        postgresql_where=sa.text("finished_at IS NULL"),
        sqlite_where=sa.text("finished_at IS NULL"),
    )
    op.create_index(op.f("ix_runs_bucket_id_request_id"), "runs", ["bucket_id", "request_id"], unique=True)
    op.create_index(op.f("ix_runs_bucket_id_seq"), "runs", ["bucket_id", "seq"], unique=True)
    op.create_index(
        "uq_runs_one_runs_exclusively",
        "runs",
        ["bucket_id"],
        unique=True,
        postgresql_where=sa.text("state = 'running' AND hold = seq"),
        sqlite_where=sa.text("state = 'running' AND hold = seq"),
    )
    op.create_table(
        "invocations",
        sa.Column("invocation_id", sa.String(length=36), nullable=False),
        sa.Column("bucket_id", sa.String(length=36), nullable=False),
        sa.Column("run_id", sa.String(length=36), nullable=False),
        sa.Column("fence", sa.BigInteger(), nullable=False),
        sa.Column("job", sa.String(length=255), nullable=False),
        sa.Column("allocation_id", sa.String(length=36), nullable=False),
        sa.Column("worker", sa.String(length=255), nullable=False),
        sa.Column("hook", sa.String(length=255), nullable=False),
        sa.Column("event", sa.String(length=64), nullable=False),
        sa.Column("token_sha256", sa.LargeBinary(length=32), nullable=False),
        sa.Column("begun_at", sa.BigInteger(), nullable=False),
        sa.Column("ended_at", sa.BigInteger(), nullable=True),
        sa.Column(
            "outcome",
            sa.Enum(
                "succeeded",
                "failed",
                "timed_out",
                "cancelled",
                "interrupted",
                native_enum=False,
                create_constraint=True,
                length=16,
                name="outcome",
            ),
            nullable=True,
        ),
        sa.ForeignKeyConstraint(["run_id"], ["runs.run_id"], name=op.f("fk_invocations_run_id")),
        sa.PrimaryKeyConstraint("invocation_id", name=op.f("pk_invocations")),
        sa.UniqueConstraint("token_sha256", name=op.f("uq_invocations_token_sha256")),
    )
    op.create_index(
        "ix_invocations_live",
        "invocations",
        ["run_id"],
        unique=False,
        postgresql_where=sa.text("ended_at IS NULL"),
        sqlite_where=sa.text("ended_at IS NULL"),
    )
    op.create_index(op.f("ix_invocations_run_id"), "invocations", ["run_id"], unique=False)
    op.create_table(
        "run_appends",
        sa.Column("run_id", sa.String(length=36), nullable=False),
        sa.Column("request_id", sa.String(length=128), nullable=False),
        sa.Column("bucket_id", sa.String(length=36), nullable=False),
        sa.Column("last_sequence", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["runs.run_id"], name=op.f("fk_run_appends_run_id")),
        sa.PrimaryKeyConstraint("run_id", "request_id", name=op.f("pk_run_appends")),
    )
    op.create_table(
        "run_events",
        sa.Column("run_id", sa.String(length=36), nullable=False),
        sa.Column("sequence", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("bucket_id", sa.String(length=36), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("payload", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["runs.run_id"], name=op.f("fk_run_events_run_id")),
        sa.PrimaryKeyConstraint("run_id", "sequence", name=op.f("pk_run_events")),
    )
    op.create_table(
        "run_steps",
        sa.Column("run_id", sa.String(length=36), nullable=False),
        sa.Column("name", sa.String(length=512), nullable=False),
        sa.Column("bucket_id", sa.String(length=36), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("fence", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["runs.run_id"], name=op.f("fk_run_steps_run_id")),
        sa.PrimaryKeyConstraint("run_id", "name", name=op.f("pk_run_steps")),
    )
