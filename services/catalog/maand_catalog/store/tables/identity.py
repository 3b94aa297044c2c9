"""Tables of identity: running hooks, API tokens, and what was done with them. Of tokens only SHA-256 digests are kept."""

from sqlalchemy import BigInteger, Column, ForeignKey, Index, String, Table, Text, text

from maand_catalog.database.metadata import UtcMicros, digest_type, id_type, metadata, word_type
from maand_catalog.rules.identity import InvocationOutcome, Role

invocations = Table(
    "invocations",
    metadata,
    Column("invocation_id", id_type(), primary_key=True),
    Column("bucket_id", id_type(), nullable=False),
    Column("run_id", id_type(), ForeignKey("runs.run_id"), nullable=False),
    Column("fence", BigInteger(), nullable=False),
    Column("task_id", id_type()),
    Column("job", String(255), nullable=False),
    Column("allocation_id", id_type(), nullable=False),
    Column("worker", String(255), nullable=False),
    Column("hook", String(255), nullable=False),
    Column("event", String(64), nullable=False),
    Column("token_sha256", digest_type(), nullable=False, unique=True),
    Column("begun_at", UtcMicros(), nullable=False),
    Column("ended_at", UtcMicros()),
    Column("outcome", word_type(InvocationOutcome, "outcome")),
    Index(
        "ix_invocations_live",
        "run_id",
        postgresql_where=text("ended_at IS NULL"),
        sqlite_where=text("ended_at IS NULL"),
    ),
    Index(None, "run_id"),
)
"""A token is good while `ended_at` is NULL and its run is running under the same fence with a lease that lasts.

`task_id`: the task of the run under whose claim it began, whose lease must last too; NULL = the run's own claim.
"""

api_tokens = Table(
    "api_tokens",
    metadata,
    Column("token_id", id_type(), primary_key=True),
    Column("bucket_id", id_type()),
    Column("name", String(256), nullable=False),
    Column("role", word_type(Role, "role"), nullable=False),
    Column("token_sha256", digest_type(), nullable=False, unique=True),
    Column("created_at", UtcMicros(), nullable=False),
    Column("expires_at", UtcMicros()),
    Column("revoked_at", UtcMicros()),
)
"""`bucket_id` is NULL: today's tokens reach every bucket of their catalog."""

audit_records = Table(
    "audit_records",
    metadata,
    Column("audit_id", id_type(), primary_key=True),
    Column("time", UtcMicros(), nullable=False),
    Column("actor", String(256), nullable=False),
    Column("action", String(64), nullable=False),
    Column("subject", Text(), nullable=False),
    Column("bucket_id", id_type()),
    Index(None, "bucket_id", "audit_id"),
)
"""Acts worth remembering for good; ids rise with time."""
