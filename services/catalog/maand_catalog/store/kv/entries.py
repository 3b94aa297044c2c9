"""Reading the KV store. An entry is absent from the moment it expires, by the database's clock at the time of the read."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Row, Select, and_, bindparam, or_, select

from maand_catalog.database.statements import DIALECTS, OneOf, in_chunks, select_page
from maand_catalog.database.transaction import Transaction
from maand_catalog.errors import OutOfRange
from maand_catalog.rules.kv_writes import KeyNotFound, has_expired
from maand_catalog.rules.namespaces import is_private_key
from maand_catalog.sealing.keyring import CannotDecrypt, Keyring, Plaintext, Sealed, associated_data
from maand_catalog.store.tables.kv import kv_buckets, kv_versions

v = kv_versions.c

PAGE_BYTES = 8 * 1024 * 1024
"""Values on one page at most, far below the largest message; the last entry may exceed it."""

FETCHED_AT_ONCE = 200

Name = tuple[str, str]
"""Namespace and key."""

ENTRIES: Select[tuple[object, ...]] = select(
    *(v[name] for name in ("bucket_id", "namespace", "key", "version", "revision", "value")),
    *(v[name] for name in ("sealed", "key_id", "created_at", "expires_at", "writer")),
)
"""What an `Entry` is made of."""

NAMES = OneOf("names", v.namespace, v.key)
NEWEST = {dialect: ENTRIES.where(v.bucket_id == bindparam("bucket"), v.newest, NAMES.condition(dialect)) for dialect in DIALECTS}
"""The newest versions of some keys: made once, since every get and every put asks for them."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One version of one key, as stored. Neither `value` nor `sealed`: a tombstone."""

    bucket_id: str
    namespace: str
    key: str
    version: int
    revision: int
    value: str | None = field(repr=False)
    sealed: Sealed | None = field(repr=False)
    created_at: datetime
    expires_at: datetime | None
    writer: str

    @property
    def is_tombstone(self) -> bool:
        """Whether this version says that the key was deleted."""
        return self.value is None and self.sealed is None

    @property
    def size(self) -> int:
        """About how much memory the value takes, in clear or sealed."""
        return len(self.value or "") if self.sealed is None else len(self.sealed.data)

    def text(self, keyring: Keyring) -> str:
        """Return the value in clear; decrypts when it is sealed. `CannotDecrypt`."""
        if self.sealed is not None:
            return open_entry(keyring, self).reveal()
        return self.value or ""


def kv_binding(bucket_id: str, namespace: str, key: str, version: int) -> bytes:
    """Return what a sealed value is bound to."""
    return associated_data("kv", bucket_id, namespace, key, version)


def open_entry(keyring: Keyring, entry: Entry) -> Plaintext:
    """Decrypt a sealed entry. `CannotDecrypt` names it, and what to do."""
    assert entry.sealed is not None
    try:
        return keyring.open(entry.sealed, kv_binding(entry.bucket_id, entry.namespace, entry.key, entry.version))
    except CannotDecrypt as error:
        instead = "run `maand build`" if is_private_key(entry.namespace, entry.key) else "write a new version"
        raise CannotDecrypt(
            f"{entry.namespace} {entry.key} version {entry.version} cannot be opened: {error}",
            help=f"{error.help}, or {instead}",
            facts={**error.facts, "namespace": entry.namespace, "key": entry.key, "version": entry.version},
        ) from error


def get_entry(tx: Transaction, bucket_id: str, namespace: str, key: str, version: int = 0) -> Entry:
    """Return the newest version, or the one named. `KeyNotFound` when absent, deleted or expired."""
    wanted = select_entries(bucket_id).where(v.namespace == namespace, v.key == key)
    row = tx.connection.execute(wanted.where(v.version == version) if version else wanted.where(v.newest)).first()
    entry = entry_from_row(row) if row else None
    if entry is None or is_absent(tx, entry):
        raise KeyNotFound(namespace, key, version)
    return entry


def find_newest_entries(tx: Transaction, bucket_id: str, names: Collection[Name]) -> dict[Name, Entry]:
    """Return the newest versions of these keys, tombstones and expired ones too; a key never written is missing."""
    found = {}
    for chunk in in_chunks(sorted(names)):
        asked = {"bucket": bucket_id, **NAMES.parameters(tx.dialect, chunk)}
        for row in tx.connection.execute(NEWEST[tx.dialect], asked):
            entry = entry_from_row(row)
            found[entry.namespace, entry.key] = entry
    return found


def find_lost_values(tx: Transaction, keyring: Keyring, bucket_id: str, *, below_namespace: str) -> frozenset[Name]:
    """Return the keys below a namespace whose newest version is sealed under a key that is not in kv.key.

    Which keys seal anything at all is asked first: the index alone answers that, and mostly none is missing.
    """
    key_ids = set(tx.connection.scalars(select(v.key_id).where(v.bucket_id == bucket_id, v.key_id.is_not(None)).distinct()))
    lost = keyring.missing(key_ids)
    if not lost:
        return frozenset()
    wanted = select(v.namespace, v.key).where(v.bucket_id == bucket_id, v.key_id.in_(lost), v.newest, is_below(below_namespace))
    return frozenset((row.namespace, row.key) for row in tx.connection.execute(wanted))


def list_keys(tx: Transaction, bucket_id: str, namespace: str, *, after: Sequence[str] | None = None) -> list[str]:
    """Return the keys present in one namespace, sorted."""
    wanted = select(v.key).where(v.bucket_id == bucket_id, v.namespace == namespace, is_present(tx))
    return list(tx.connection.scalars(select_page(wanted, v.key, after=after)))


def list_entries(
    tx: Transaction, bucket_id: str, prefix: str, *, limit: int, after: tuple[Any, ...] | None, secrets: bool = False
) -> tuple[list[Entry], bool]:
    """Return one page of present entries below a prefix by namespace and key, and whether more follow. Secrets on request."""
    wanted = select_entries(bucket_id).where(
        is_present(tx), is_below(prefix), v.sealed.is_not(None) if secrets else v.sealed.is_(None)
    )
    return read_page(tx, select_page(wanted, v.namespace, v.key, after=after, limit=limit + 1), limit)


def list_versions(
    tx: Transaction, bucket_id: str, namespace: str, key: str, *, limit: int, before: int | None
) -> tuple[list[Entry], bool]:
    """Return one page of a key's versions, newest first, tombstones too, and whether more follow."""
    wanted = select_entries(bucket_id).where(v.namespace == namespace, v.key == key)
    if before is not None:
        wanted = wanted.where(v.version < before)
    return read_page(tx, wanted.order_by(v.version.desc()).limit(limit + 1), limit)


def read_revision(tx: Transaction, bucket_id: str) -> int:
    """Return the bucket's newest revision; 0 before its first write."""
    return tx.connection.scalar(select(kv_buckets.c.revision).where(kv_buckets.c.bucket_id == bucket_id)) or 0


def check_resumable(tx: Transaction, bucket_id: str, after_revision: int) -> None:
    """Refuse to resume a watch from a revision whose successors are gone, or that never was."""
    marks = select(kv_buckets.c.revision, kv_buckets.c.trimmed_revision).where(kv_buckets.c.bucket_id == bucket_id)
    revision, trimmed = tx.connection.execute(marks).one_or_none() or (0, 0)
    if not trimmed <= after_revision <= revision:
        raise OutOfRange(
            f"changes after revision {after_revision} cannot be told: {trimmed} to {revision} are kept",
            help="list anew, then watch from the largest revision listed",
            facts={"oldest": trimmed, "newest": revision},
        )


def list_changes(tx: Transaction, bucket_id: str, prefix: str, after_revision: int) -> tuple[list[Entry], int]:
    """Return the next changes below a prefix in revision order, and the revision up to which they are told completely."""
    check_resumable(tx, bucket_id, after_revision)
    told = read_revision(tx, bucket_id)
    wanted = (
        select_entries(bucket_id)
        .where(v.revision > after_revision, is_below(prefix))
        .order_by(v.revision)
        .limit(FETCHED_AT_ONCE + 1)
    )
    entries, more = read_page(tx, wanted, FETCHED_AT_ONCE)
    return entries, entries[-1].revision if more else told


# -- parts of the statements ------------------------------------------------------------------------------------------------


def select_entries(bucket_id: str) -> Select[tuple[object, ...]]:
    """Select what an `Entry` is made of."""
    return ENTRIES.where(v.bucket_id == bucket_id)


def entry_from_row(row: Any) -> Entry:
    """Make an entry of a row of `ENTRIES`."""
    return Entry(
        bucket_id=row.bucket_id,
        namespace=row.namespace,
        key=row.key,
        version=row.version,
        revision=row.revision,
        value=row.value,
        sealed=None if row.key_id is None else Sealed(key_id=row.key_id, data=row.sealed),
        created_at=row.created_at,
        expires_at=row.expires_at,
        writer=row.writer,
    )


def is_absent(tx: Transaction, entry: Entry) -> bool:
    """Whether a read at this moment does not find it. The clock is read only when there is an expiry to compare."""
    return entry.is_tombstone or (entry.expires_at is not None and has_expired(entry.expires_at, tx.now))


def is_present(tx: Transaction) -> ColumnElement[bool]:
    """Keep the newest versions that a read at this moment finds."""
    return and_(v.newest, or_(v.value.is_not(None), v.sealed.is_not(None)), or_(v.expires_at.is_(None), v.expires_at > tx.now))


def is_below(prefix: str) -> ColumnElement[bool]:
    """Keep namespaces that equal the prefix or begin with it and `/`. A range, so that the index serves it: `0` follows `/`."""
    if not prefix:
        return v.namespace >= ""
    return or_(v.namespace == prefix, and_(v.namespace >= prefix + "/", v.namespace < prefix + "0"))


def read_page(tx: Transaction, wanted: Select[tuple[object, ...]], limit: int) -> tuple[list[Entry], bool]:
    """Take rows until the page is full by number or by size, and say whether there was one more."""
    page: list[Entry] = []
    size = 0
    for row in stream_rows(tx, wanted):
        if len(page) == limit or size >= PAGE_BYTES:
            return page, True
        page.append(entry_from_row(row))
        size += page[-1].size
    return page, False


def stream_rows(tx: Transaction, wanted: Select[tuple[object, ...]]) -> Iterator[Row[tuple[object, ...]]]:
    """Fetch rows a few hundred at a time: a page of large values is not read in whole to be cut."""
    with tx.connection.execute(wanted.execution_options(yield_per=FETCHED_AT_ONCE)) as rows:
        yield from rows
