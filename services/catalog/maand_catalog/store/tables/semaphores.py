"""Tables of semaphores: one row that orders everybody, one per invocation in it, one per catalog that waits for somebody."""

from sqlalchemy import BigInteger, CheckConstraint, Column, ForeignKey, Index, Integer, String, Table, UniqueConstraint

from maand_catalog.database.metadata import UtcMicros, id_type, metadata, name_type, word_type
from maand_catalog.rules.semaphores import State

semaphores = Table(
    "semaphores",
    metadata,
    Column("semaphore_id", id_type(), primary_key=True),
    Column("bucket_id", id_type(), nullable=False),
    Column("job", name_type(255), nullable=False),
    Column("event", name_type(64), nullable=False),
    Column("name", name_type(128), nullable=False),
    Column("capacity", Integer(), nullable=False),
    Column("seq", BigInteger(), nullable=False),
    Column("granted", BigInteger(), nullable=False),
    UniqueConstraint("bucket_id", "job", "event", "name"),
    CheckConstraint("capacity BETWEEN 1 AND 64", name="capacity"),
)
"""`seq` is the last ticket handed out, `granted` the largest one granted. Every change of a claim happens under this row's lock.
Rows stay when nobody is in them: tickets never begin anew."""

semaphore_claims = Table(
    "semaphore_claims",
    metadata,
    Column("semaphore_id", id_type(), ForeignKey("semaphores.semaphore_id"), primary_key=True),
    Column("ticket", BigInteger(), primary_key=True, autoincrement=False),
    Column("bucket_id", id_type(), nullable=False),
    Column("invocation_id", id_type(), nullable=False),
    Column("allocation_id", id_type(), nullable=False),
    Column("worker", String(255), nullable=False),
    Column("run_id", id_type(), nullable=False),
    Column("state", word_type(State, "state"), nullable=False),
    Column("since", UtcMicros(), nullable=False),
    Column("request_id", String(64), nullable=False),
    Column("call_id", String(36), nullable=False),
    Column("room_id", String(36), nullable=False),
    Column("earlier_calls", String(320), nullable=False, server_default=""),
    UniqueConstraint("semaphore_id", "invocation_id"),
    Index(None, "invocation_id"),
    Index(None, "room_id"),
)
"""`call_id` is the newest call that waits for the slot or was given it, `room_id` the waiting room of the catalog that serves it,
`earlier_calls` the calls that were given the slot before it and have not gone away, by blanks."""

waiting_rooms = Table(
    "waiting_rooms",
    metadata,
    Column("room_id", String(36), primary_key=True),
    Column("lease_until", UtcMicros(), nullable=False),
)
"""Catalog processes that wait on behalf of callers. Of no bucket: one lease keeps all waiters of a process in line."""
