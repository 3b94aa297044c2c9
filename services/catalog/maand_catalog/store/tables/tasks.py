"""Table of tasks: the parts of runs that any executor may do."""

from sqlalchemy import BigInteger, CheckConstraint, Column, ForeignKey, Index, LargeBinary, String, Table, text

from maand_catalog.database.metadata import UtcMicros, id_type, metadata
from maand_catalog.rules.tasks import TaskKind, TaskState
from maand_catalog.store.tables.runs import words

tasks = Table(
    "tasks",
    metadata,
    Column("task_id", id_type(), primary_key=True),
    Column("bucket_id", id_type(), nullable=False),
    Column("run_id", id_type(), ForeignKey("runs.run_id"), nullable=False),
    Column("run_fence", BigInteger(), nullable=False),
    Column("name", String(128), nullable=False),
    Column("kind", words(TaskKind, "kind"), nullable=False),
    Column("spec", LargeBinary(), nullable=False),
    Column("state", words(TaskState, "state"), nullable=False),
    Column("executor_id", String(128), nullable=False),
    Column("fence", BigInteger(), nullable=False),
    Column("lease_until", UtcMicros()),
    Column("outcomes", LargeBinary(), nullable=False),
    Column("sequence", BigInteger(), nullable=False),
    CheckConstraint("(state = 'running') = (lease_until IS NOT NULL)", name="lease"),
    CheckConstraint("(state IN ('pending', 'running')) = (sequence = 0)", name="sequence"),
    Index(None, "run_id", "run_fence", "name", unique=True),
    Index(
        "ix_tasks_open",
        "task_id",
        postgresql_where=text("sequence = 0"),
        sqlite_where=text("sequence = 0"),
    ),
)
"""`run_fence`: the claim of the run that created it. `sequence`: place among the ended tasks of its run, 0 while it is open."""
