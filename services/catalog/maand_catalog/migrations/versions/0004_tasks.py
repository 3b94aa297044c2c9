"""Create the table of tasks: the parts of runs that any executor may do."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Create it."""
    op.create_table(
        "tasks",
        sa.Column("task_id", sa.String(length=36), nullable=False),
        sa.Column("bucket_id", sa.String(length=36), nullable=False),
        sa.Column("run_id", sa.String(length=36), nullable=False),
        sa.Column("run_fence", sa.BigInteger(), nullable=False),
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column(
            "kind",
            sa.Enum("command", "probe", "preflight", "login", native_enum=False, create_constraint=True, length=16, name="kind"),
            nullable=False,
        ),
        sa.Column("spec", sa.LargeBinary(), nullable=False),
        sa.Column(
            "state",
            sa.Enum(
                "pending",
                "running",
                "finished",
                "lost",
                "dropped",
                native_enum=False,
                create_constraint=True,
                length=16,
                name="state",
            ),
            nullable=False,
        ),
        sa.Column("executor_id", sa.String(length=128), nullable=False),
        sa.Column("fence", sa.BigInteger(), nullable=False),
        sa.Column("lease_until", sa.BigInteger(), nullable=True),
        sa.Column("outcomes", sa.LargeBinary(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("(state = 'running') = (lease_until IS NOT NULL)", name=op.f("ck_tasks_lease")),
        sa.CheckConstraint("(state IN ('pending', 'running')) = (sequence = 0)", name=op.f("ck_tasks_sequence")),
        sa.ForeignKeyConstraint(["run_id"], ["runs.run_id"], name=op.f("fk_tasks_run_id")),
        sa.PrimaryKeyConstraint("task_id", name=op.f("pk_tasks")),
    )
    op.create_index(op.f("ix_tasks_run_id_run_fence_name"), "tasks", ["run_id", "run_fence", "name"], unique=True)
    op.create_index(
        "ix_tasks_open",
        "tasks",
        ["task_id"],
        unique=False,
        postgresql_where=sa.text("sequence = 0"),
        sqlite_where=sa.text("sequence = 0"),
    )
