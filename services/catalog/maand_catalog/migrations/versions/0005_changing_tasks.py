"""Let tasks change workers and run hooks, and hook invocations begin under a task."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

KINDS = ("command", "probe", "preflight", "login", "lifecycle", "hooks")
STATES = ("pending", "running", "finished", "lost", "dropped")


def upgrade() -> None:
    """Widen the words of `tasks.kind`; add `invocations.task_id`."""
    if op.get_bind().dialect.name == "sqlite":
        with op.batch_alter_table("tasks", copy_from=tasks_as_they_shall_be(), recreate="always"):
            pass  # SQLite cannot change a constraint: the table is made anew and its rows are copied
    else:
        op.drop_constraint(op.f("ck_tasks_kind"), "tasks", type_="check")
        op.create_check_constraint(op.f("ck_tasks_kind"), "tasks", sa.column("kind").in_(KINDS))
    op.add_column("invocations", sa.Column("task_id", sa.String(length=36), nullable=True))


def tasks_as_they_shall_be() -> sa.Table:
    """Describe the whole table, indexes included."""
    return sa.Table(
        "tasks",
        sa.MetaData(),
        sa.Column("task_id", sa.String(length=36), nullable=False),
        sa.Column("bucket_id", sa.String(length=36), nullable=False),
        sa.Column("run_id", sa.String(length=36), nullable=False),
        sa.Column("run_fence", sa.BigInteger(), nullable=False),
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("spec", sa.LargeBinary(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("executor_id", sa.String(length=128), nullable=False),
        sa.Column("fence", sa.BigInteger(), nullable=False),
        sa.Column("lease_until", sa.BigInteger(), nullable=True),
        sa.Column("outcomes", sa.LargeBinary(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.CheckConstraint(sa.column("kind").in_(KINDS), name=op.f("ck_tasks_kind")),
        sa.CheckConstraint(sa.column("state").in_(STATES), name=op.f("ck_tasks_state")),
        sa.CheckConstraint("(state = 'running') = (lease_until IS NOT NULL)", name=op.f("ck_tasks_lease")),
        sa.CheckConstraint("(state IN ('pending', 'running')) = (sequence = 0)", name=op.f("ck_tasks_sequence")),
        sa.ForeignKeyConstraint(["run_id"], ["runs.run_id"], name=op.f("fk_tasks_run_id")),
        sa.PrimaryKeyConstraint("task_id", name=op.f("pk_tasks")),
        sa.Index("ix_tasks_run_id_run_fence_name", "run_id", "run_fence", "name", unique=True),
        sa.Index("ix_tasks_open", "task_id", sqlite_where=sa.text("sequence = 0")),
    )
