"""Buckets: their settings, and the newest build of each."""

import hashlib
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Row, Select, select, tuple_

from maand_catalog.database.statements import upsert_into
from maand_catalog.database.transaction import Transaction
from maand_catalog.errors import NotFound
from maand_catalog.store.tables.buckets import buckets, builds
from maand_catalog.store.tables.runs import database_facts


@dataclass(frozen=True, kw_only=True)
class LastBuild:
    """The newest successful build."""

    run_id: str
    built_at: datetime
    snapshot_id: str
    inputs_sha256: bytes
    ca_certificate: str
    renew_at: datetime | None
    jobs: int
    workers: int
    active_allocations: int


@dataclass(frozen=True, kw_only=True)
class StoredBucket:
    """A bucket as it is kept; `maand_conf` is the file that was accepted."""

    bucket_id: str
    created_at: datetime
    maand_conf: bytes
    config_sha256: bytes
    owner_id: str
    last_build: LastBuild | None


def apply_config(tx: Transaction, bucket_id: str, maand_conf: bytes) -> StoredBucket:
    """Make an accepted `maand.conf` the bucket's settings; create the bucket at first. Equal content changes nothing."""
    settings = {"maand_conf": maand_conf, "config_sha256": hashlib.sha256(maand_conf).digest()}
    statement = upsert_into(tx.dialect, buckets).values(bucket_id=bucket_id, created_at=tx.now, **settings)
    changed = buckets.c.config_sha256 != settings["config_sha256"]
    tx.connection.execute(statement.on_conflict_do_update(index_elements=["bucket_id"], set_=settings, where=changed))
    return get_bucket(tx, bucket_id)


def get_bucket(tx: Transaction, bucket_id: str) -> StoredBucket:
    """Return one bucket. NotFound."""
    row = tx.connection.execute(select_buckets().where(buckets.c.bucket_id == bucket_id)).one_or_none()
    if row is None:
        raise NotFound(f"there is no bucket {bucket_id[:64]}", help="run `maand init`, or name the bucket that maand.conf names")
    return bucket_from_row(row)


def list_buckets(tx: Transaction, *, after: str, limit: int) -> list[StoredBucket]:
    """Return buckets, oldest first, from the one after a bucket's id."""
    wanted = select_buckets().order_by(buckets.c.created_at, buckets.c.bucket_id).limit(limit)
    if after:
        before = get_bucket(tx, after)
        wanted = wanted.where(tuple_(buckets.c.created_at, buckets.c.bucket_id) > (before.created_at, before.bucket_id))
    return [bucket_from_row(row) for row in tx.connection.execute(wanted)]


def select_buckets() -> Select[tuple[object, ...]]:
    """Select buckets with their newest build, and who the database is towards workers."""
    owner = select(database_facts.c.owner_id).scalar_subquery().label("owner_id")
    return select(buckets, owner, *(column.label(f"build_{column.name}") for column in builds.columns)).outerjoin(
        builds, buckets.c.bucket_id == builds.c.bucket_id
    )


def bucket_from_row(row: Row[tuple[object, ...]]) -> StoredBucket:
    """Read one selected row."""
    return StoredBucket(
        bucket_id=row.bucket_id,
        created_at=row.created_at,
        maand_conf=bytes(row.maand_conf),
        config_sha256=bytes(row.config_sha256),
        owner_id=row.owner_id or "",
        last_build=None
        if row.build_run_id is None
        else LastBuild(
            run_id=row.build_run_id,
            built_at=row.build_built_at,
            snapshot_id=row.build_snapshot_id,
            inputs_sha256=bytes(row.build_inputs_sha256),
            ca_certificate=row.build_ca_certificate,
            renew_at=row.build_renew_at,
            jobs=row.build_jobs,
            workers=row.build_workers,
            active_allocations=row.build_active_allocations,
        ),
    )
