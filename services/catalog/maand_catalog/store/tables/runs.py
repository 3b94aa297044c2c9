"""Tables of runs and their tasks: what was asked, who owns it, what happened; and the epoch of the database."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    String,
    Table,
    Text,
    text,
)

from maand_catalog.database.metadata import UtcMicros, id_type, metadata, word_type
from maand_catalog.rules.runs import RunKind, RunState
from maand_catalog.rules.tasks import TaskKind, TaskState

runs = Table(
    "runs",
    metadata,
    Column("run_id", id_type(), primary_key=True),
    Column("bucket_id", id_type(), nullable=False),
    Column("seq", BigInteger(), nullable=False),
    Column("kind", word_type(RunKind, "kind"), nullable=False),
    Column("spec", LargeBinary(), nullable=False),
    Column("state", word_type(RunState, "state"), nullable=False),
    Column("message", Text(), nullable=False),
    Column("requested_by", String(256), nullable=False),
    Column("created_at", UtcMicros(), nullable=False),
    Column("started_at", UtcMicros()),
    Column("finished_at", UtcMicros()),
    Column("executor_id", String(128), nullable=False),
    Column("lease_until", UtcMicros()),
    Column("fence", BigInteger(), nullable=False),
    Column("cancel", Integer(), nullable=False),
    Column("last_sequence", BigInteger(), nullable=False),
    Column("result", LargeBinary(), nullable=False),
    Column("parent_run_id", String(36), nullable=False),
    Column("hold", BigInteger()),
    Column("lock_deadline", UtcMicros()),
    Column("sealed_hook_env", LargeBinary(), nullable=False),
    Column("hook_env_key_id", String(64), nullable=False),
    Column("request_id", String(128)),
    Column("steps", BigInteger(), nullable=False),
    Column("trimmed", Boolean(), nullable=False),
    Column("traceparent", String(64), nullable=False, server_default=""),
    Column("steps_at_claim", BigInteger(), nullable=False, server_default="0"),
    Column("barren_takeovers", Integer(), nullable=False, server_default="0"),
    Column("not_before", UtcMicros()),
    CheckConstraint("(state = 'running') = (lease_until IS NOT NULL)", name="lease"),
    Index(None, "bucket_id", "seq", unique=True),
    Index(None, "bucket_id", "request_id", unique=True),
    Index(
        "uq_runs_one_runs_exclusively",
        "bucket_id",
        unique=True,
        postgresql_where=text("state = 'running' AND hold = seq"),
        sqlite_where=text("state = 'running' AND hold = seq"),
    ),
    Index(
        "ix_runs_active",
        "created_at",
        postgresql_where=text("finished_at IS NULL"),
        sqlite_where=text("finished_at IS NULL"),
    ),
)
"""`hold` is the `seq` of the run whose hold on the bucket it is part of: its own for an exclusive run, an ancestor's for one that
joined, NULL for none. `steps` counts recorded steps, `steps_at_claim` those recorded before the newest claim; `barren_takeovers`
counts the takeovers in a row that ended without a new one, and the next claim waits until `not_before`. `trimmed`: its events
were removed by retention, but the last."""

run_events = Table(
    "run_events",
    metadata,
    Column("run_id", id_type(), ForeignKey("runs.run_id"), primary_key=True),
    Column("sequence", BigInteger(), primary_key=True, autoincrement=False),
    Column("bucket_id", id_type(), nullable=False),
    Column("kind", String(32), nullable=False),
    Column("payload", LargeBinary(), nullable=False),
)
"""`payload` is the contract's RunEvent without its sequence; `kind` the name of what happened."""

run_appends = Table(
    "run_appends",
    metadata,
    Column("run_id", id_type(), ForeignKey("runs.run_id"), primary_key=True),
    Column("request_id", String(128), primary_key=True),
    Column("bucket_id", id_type(), nullable=False),
    Column("last_sequence", BigInteger(), nullable=False),
)
"""Appends that named a request id, so that a repeat appends nothing."""

run_steps = Table(
    "run_steps",
    metadata,
    Column("run_id", id_type(), ForeignKey("runs.run_id"), primary_key=True),
    Column("name", String(512), primary_key=True),
    Column("bucket_id", id_type(), nullable=False),
    Column("position", BigInteger(), nullable=False),
    Column("fence", BigInteger(), nullable=False),
)
"""Steps that are done, by every owner of the run, in the order they were recorded."""


database_facts = Table(
    "database_facts",
    metadata,
    Column("one", Integer(), primary_key=True, autoincrement=False),
    Column("epoch", BigInteger(), nullable=False),
    Column("owner_id", String(255), nullable=False, server_default=""),
    Column("copied_from", String(255), nullable=False, server_default=""),
    Column("home", String(255), nullable=False, server_default=""),
    CheckConstraint("one = 1", name="one"),
)
"""At most one row. None: the database lives its first life, epoch 1 (see `store.runs.epochs`). `owner_id`: who it is towards
workers; `home`: where it lives; `copied_from`: the owner whose copy it is (see `store.runs.database_owner`)."""


tasks = Table(
    "tasks",
    metadata,
    Column("task_id", id_type(), primary_key=True),
    Column("bucket_id", id_type(), nullable=False),
    Column("run_id", id_type(), ForeignKey("runs.run_id"), nullable=False),
    Column("run_fence", BigInteger(), nullable=False),
    Column("name", String(128), nullable=False),
    Column("kind", word_type(TaskKind, "kind"), nullable=False),
    Column("spec", LargeBinary(), nullable=False),
    Column("state", word_type(TaskState, "state"), nullable=False),
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
