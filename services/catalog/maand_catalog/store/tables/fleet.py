"""Tables of what a build makes of a workspace: workers, jobs, hooks, ports, allocations, certificates."""

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    String,
    Table,
    Text,
    false,
)

from maand_catalog.database.metadata import UtcMicros, digest_type, id_type, metadata

NAME = String(255)

workers = Table(
    "workers",
    metadata,
    Column("bucket_id", id_type(), primary_key=True),
    Column("name", NAME, primary_key=True),
    Column("worker_id", id_type(), nullable=False),
    Column("hostname", NAME, nullable=False),
    Column("position", Integer(), nullable=False),
    Column("labels", JSON(), nullable=False),
    Column("memory_mb", BigInteger(), nullable=False),
    Column("cpu_mhz", BigInteger(), nullable=False),
    Column("tags", JSON(), nullable=False),
    Column("ssh_user", NAME, nullable=False),
    Column("ssh_port", Integer(), nullable=False),
    Column("disabled", Boolean(), nullable=False),
    Column("removed", Boolean(), nullable=False),
    Column("lost", Boolean(), nullable=False, server_default=false()),
)
"""`lost`: left the workspace, and was given up by a person."""

jobs = Table(
    "jobs",
    metadata,
    Column("bucket_id", id_type(), primary_key=True),
    Column("name", NAME, primary_key=True),
    Column("job_id", id_type(), nullable=False),
    Column("version", NAME, nullable=False),
    Column("deployment_seq", Integer(), nullable=False),
    Column("memory_mb", BigInteger(), nullable=False),
    Column("cpu_mhz", BigInteger(), nullable=False),
    Column("removed", Boolean(), nullable=False),
    Column("has_makefile", Boolean(), nullable=False),
    Column("facts", JSON(), nullable=False),
    Column("variables", JSON(), nullable=False),
    Column("tree", LargeBinary(), nullable=False),
)
"""`facts` holds what is only ever read with its job (selectors, concurrency, policy, probes); `variables` is `vars.toml` as last
built; `tree` the job's files, compressed."""

job_demands = Table(
    "job_demands",
    metadata,
    Column("bucket_id", id_type(), primary_key=True),
    Column("job", NAME, primary_key=True),
    Column("demanded_job", NAME, primary_key=True),
    ForeignKeyConstraint(["bucket_id", "job"], ["jobs.bucket_id", "jobs.name"], ondelete="CASCADE"),
)

hooks = Table(
    "hooks",
    metadata,
    Column("bucket_id", id_type(), primary_key=True),
    Column("job", NAME, primary_key=True),
    Column("name", NAME, primary_key=True),
    Column("path", Text(), nullable=False),
    Column("runtime", String(16), nullable=False),
    Column("executed_on", JSON(), nullable=False),
    Column("timeout_seconds", Integer(), nullable=False),
    Column("scope", String(16), nullable=False),
    Column("demands_job", NAME, nullable=False),
    Column("demands_hook", NAME, nullable=False),
    Column("demand_config", Text(), nullable=False),
    ForeignKeyConstraint(["bucket_id", "job"], ["jobs.bucket_id", "jobs.name"], ondelete="CASCADE"),
    Index(None, "bucket_id", "demands_job", "demands_hook"),
)

ports = Table(
    "ports",
    metadata,
    Column("bucket_id", id_type(), primary_key=True),
    Column("name", NAME, primary_key=True),
    Column("number", Integer(), nullable=False),
    Column("job", NAME, nullable=False),
    Column("fixed", Boolean(), nullable=False),
    CheckConstraint("number BETWEEN 1 AND 65535", name="number"),
)

allocations = Table(
    "allocations",
    metadata,
    Column("bucket_id", id_type(), primary_key=True),
    Column("allocation_id", id_type(), primary_key=True),
    Column("job", NAME, nullable=False),
    Column("worker", NAME, nullable=False),
    Column("position", Integer(), nullable=False),
    Column("removed", Boolean(), nullable=False),
    Column("disabled", Boolean(), nullable=False),
    Column("current_version", NAME, nullable=False),
    Column("previous_version", NAME, nullable=False, server_default=""),
    Column("held_ports", Text(), nullable=False, server_default=""),
    Column("new_version", NAME, nullable=False),
    Column("deployed_sha256", LargeBinary(), nullable=False),
    Column("target_sha256", digest_type(), nullable=False),
    Column("promoted_target_sha256", LargeBinary(), nullable=False),
    Column("state", String(16), nullable=False),
    Column("state_since", UtcMicros(), nullable=False),
    Column("message", Text(), nullable=False),
    Column("run_id", String(36), nullable=False),
    Column("post_deploy_owed", Boolean(), nullable=False),
    Column("start_owed", Boolean(), nullable=False, server_default=false()),
    Column("moves", Integer(), nullable=False),
    Index(None, "bucket_id", "job", "worker", unique=True),
    Index(None, "bucket_id", "worker"),
    CheckConstraint(
        "state IN ('planned', 'deploying', 'promoted', 'pending', 'failed', 'stopped', 'removed')",
        name="state",
    ),
)
"""`position` is the index among the job's allocations that are not removed. `target_sha256` stands for what the last build wants
there, `promoted_target_sha256` for what was wanted when it was last promoted (empty = never): they differ = pending.
`start_owed`: a stop was begun, and nothing was promoted since. `previous_version` ran before the current one; empty = unknown.
`held_ports`: numbers, comma-joined, that what runs there may hold."""

deployed_files = Table(
    "deployed_files",
    metadata,
    Column("bucket_id", id_type(), primary_key=True),
    Column("allocation_id", id_type(), primary_key=True),
    Column("files", LargeBinary(), nullable=False),
    ForeignKeyConstraint(
        ["bucket_id", "allocation_id"], ["allocations.bucket_id", "allocations.allocation_id"], ondelete="CASCADE"
    ),
)
"""The file list last promoted to an allocation, compressed."""

allocation_moves = Table(
    "allocation_moves",
    metadata,
    Column("bucket_id", id_type(), primary_key=True),
    Column("allocation_id", id_type(), primary_key=True),
    Column("number", Integer(), primary_key=True),
    Column("from_state", String(16), nullable=False),
    Column("to_state", String(16), nullable=False),
    Column("moved_at", UtcMicros(), nullable=False),
    Column("run_id", String(36), nullable=False),
    Column("message", Text(), nullable=False),
    ForeignKeyConstraint(
        ["bucket_id", "allocation_id"], ["allocations.bucket_id", "allocations.allocation_id"], ondelete="CASCADE"
    ),
)
"""Every change of state with the run that made it, numbered from 1 per allocation."""

certificates = Table(
    "certificates",
    metadata,
    Column("bucket_id", id_type(), primary_key=True),
    Column("job", NAME, primary_key=True),
    Column("name", NAME, primary_key=True),
    Column("worker", NAME, primary_key=True),
    Column("common_name", Text(), nullable=False),
    Column("serial", String(64), nullable=False),
    Column("not_before", UtcMicros(), nullable=False),
    Column("not_after", UtcMicros(), nullable=False),
    Column("spec_sha256", digest_type(), nullable=False),
    Column("ca_sha256", digest_type(), nullable=False),
    Column("pem", Text(), nullable=False),
)
"""Leaves without their keys: those are sealed KV entries of the allocation's namespace."""
