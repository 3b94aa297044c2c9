"""Bulk writing for build and gc: whole namespaces compared with what is wanted, only the differences written.

    stored newest versions, one namespace after another  ──compare──▶  differences  ──Ledger──▶  new versions and tombstones

10,000 allocations are about 300,000 keys: one ordered read, and statements over thousands of rows; never a query per key.
"""

import enum
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import chain, groupby

from sqlalchemy import ColumnElement, delete, func, or_, select, update

from maand_catalog.database.statements import in_chunks, one_of
from maand_catalog.database.transaction import Transaction
from maand_catalog.rules.namespaces import BUILD_OWNED, check_key, check_namespace, check_value
from maand_catalog.sealing.keyring import Keyring, Plaintext
from maand_catalog.store.kv.entries import Entry, entry_from_row, is_below, select_entries, stream_rows
from maand_catalog.store.kv.ledger import Ledger, comparable_value, reserve_revisions
from maand_catalog.store.kv.writes import REQUESTS_KEPT
from maand_catalog.store.tables.kv import kv_buckets, kv_requests, kv_versions

v = kv_versions.c

ANALYZE_BEYOND = 5_000
"""Changes after which PostgreSQL's statistics are renewed at once: planned for a small table, a lookup would read all of it."""


class Keep(enum.Enum):
    """Stands for a value that is stored and stays as it is, without being at hand: an unchanged private key."""

    KEEP = "keep"


KEEP = Keep.KEEP

Wanted = str | Plaintext | Keep
"""What a key shall hold: text in clear, text stored encrypted, or what it holds already."""

WantedKeys = Mapping[str, Wanted]


@dataclass(frozen=True, kw_only=True)
class Changed:
    """What a bulk write did."""

    written: int = 0
    deleted: int = 0


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One key that must change; value None = tombstone."""

    namespace: str
    key: str
    value: str | None = field(repr=False)
    secret: bool
    version: int
    replaces: int | None


def replace_owned_namespaces(
    tx: Transaction,
    keyring: Keyring,
    *,
    bucket_id: str,
    wanted: Mapping[str, WantedKeys],
    writer: str,
    owned: Collection[str] = BUILD_OWNED,
    spared: Collection[str] = frozenset(),
) -> Changed:
    """Make everything below the owned prefixes hold exactly what is wanted.

    Equal values make no version, stale keys get a tombstone, sealed keys too unless wanted as `KEEP`. Namespaces in `spared`
    (those of removed allocations, until gc) stay as they are.
    """
    reserve_revisions(tx, bucket_id, 0)
    wanted = {namespace: keys for namespace, keys in wanted.items() if namespace not in spared}
    where = or_(*(is_below(prefix) for prefix in owned))
    stored = (pair for pair in read_namespaces(tx, bucket_id, where) if pair[0] not in spared)
    return write_differences(tx, keyring, bucket_id, list(find_differences(keyring, stored, wanted, stale=None)), writer)


def merge_namespaces(
    tx: Transaction,
    keyring: Keyring,
    *,
    bucket_id: str,
    wanted: Mapping[str, WantedKeys],
    writer: str,
    stale: Mapping[str, Collection[str]] | None = None,
) -> Changed:
    """Write the wanted keys and leave all others alone, but for those named `stale` (wanted by an earlier build), which go."""
    reserve_revisions(tx, bucket_id, 0)
    stale = stale or {}
    namespaces = sorted({*wanted, *stale})
    chunks = in_chunks(namespaces)
    stored = chain.from_iterable(read_namespaces(tx, bucket_id, one_of(tx, v.namespace, chunk)) for chunk in chunks)
    return write_differences(tx, keyring, bucket_id, list(find_differences(keyring, stored, wanted, stale=stale)), writer)


def read_sealed(tx: Transaction, keyring: Keyring, bucket_id: str, namespaces: Iterable[str]) -> dict[tuple[str, str], Plaintext]:
    """Return the present sealed values of these namespaces by namespace and key, decrypted: an allocation's private keys."""
    opened = {}
    for chunk in in_chunks(sorted(namespaces)):
        wanted = select_entries(bucket_id).where(v.newest, v.sealed.is_not(None), one_of(tx, v.namespace, chunk))
        for row in stream_rows(tx, wanted):
            entry = entry_from_row(row)
            opened[entry.namespace, entry.key] = Plaintext(entry.text(keyring))
    return opened


def purge_namespaces(tx: Transaction, bucket_id: str, prefixes: Collection[str]) -> int:
    """Forget everything below these prefixes, history and all; return how many versions went. For gc."""
    reserve_revisions(tx, bucket_id, 0)
    purged = 0
    for chunk in in_chunks(sorted(prefixes)):
        gone = (v.bucket_id == bucket_id) & or_(*(is_below(prefix) for prefix in chunk))
        purged += forget_versions(tx, bucket_id, gone)
    return purged


def forget_versions(tx: Transaction, bucket_id: str, gone: ColumnElement[bool]) -> int:
    """Remove versions and note the newest revision removed: a watch cannot resume from before it."""
    newest = tx.connection.scalar(select(func.max(v.revision)).where(gone))
    if newest is None:
        return 0
    trimmed = update(kv_buckets).where(kv_buckets.c.bucket_id == bucket_id, kv_buckets.c.trimmed_revision < newest)
    tx.connection.execute(trimmed.values(trimmed_revision=newest))
    return tx.connection.execute(delete(kv_versions).where(gone)).rowcount


# -- comparing ----------------------------------------------------------------------------------------------------------------

StoredNamespace = tuple[str, list[Entry]]


def read_namespaces(tx: Transaction, bucket_id: str, where: ColumnElement[bool]) -> Iterator[StoredNamespace]:
    """Yield the newest versions of each namespace, in order, without holding more than one namespace."""
    wanted = select_entries(bucket_id).where(v.newest, where).order_by(v.namespace, v.key)
    entries = (entry_from_row(row) for row in stream_rows(tx, wanted))
    for namespace, group in groupby(entries, key=lambda entry: entry.namespace):
        yield namespace, list(group)


def find_differences(
    keyring: Keyring,
    stored: Iterable[StoredNamespace],
    wanted: Mapping[str, WantedKeys],
    stale: Mapping[str, Collection[str]] | None,
) -> Iterator[Difference]:
    """Yield what must be written. `stale` names the keys to remove by namespace; None = every key that is not wanted."""
    seen = set()
    for namespace, entries in stored:
        seen.add(namespace)
        keys = wanted.get(namespace, {})
        yield from find_changed_entries(keyring, entries, keys, None if stale is None else stale.get(namespace, ()))
        known = {entry.key for entry in entries}
        yield from first_versions(namespace, {key: value for key, value in keys.items() if key not in known})
    for namespace, keys in wanted.items():
        if namespace not in seen:
            yield from first_versions(namespace, keys)


def find_changed_entries(
    keyring: Keyring, entries: Iterable[Entry], wanted: WantedKeys, stale: Collection[str] | None
) -> Iterator[Difference]:
    """Yield the keys of one namespace whose stored value differs from the wanted one, or that shall go."""
    for entry in entries:
        value = wanted.get(entry.key)
        if value is None and (entry.is_tombstone or not (stale is None or entry.key in stale)):
            continue
        if value is not None and holds_wanted(keyring, entry, value):
            continue
        yield Difference(
            namespace=entry.namespace,
            key=entry.key,
            value=None if value is None else wanted_text(value),
            secret=isinstance(value, Plaintext) or entry.sealed is not None,
            version=entry.version + 1,
            replaces=entry.revision,
        )


def holds_wanted(keyring: Keyring, entry: Entry, value: Wanted) -> bool:
    """Whether an entry already holds the value, in the form it is wanted in, for good."""
    if isinstance(value, Keep):
        return True
    if entry.is_tombstone or entry.expires_at is not None or isinstance(value, Plaintext) != (entry.sealed is not None):
        return False
    return comparable_value(keyring, entry) == wanted_text(value)


def first_versions(namespace: str, keys: WantedKeys) -> Iterator[Difference]:
    """Yield the first versions of keys never written."""
    check_namespace(namespace)
    for key, value in keys.items():
        if not isinstance(value, Keep):
            check_key(key)
            secret = isinstance(value, Plaintext)
            yield Difference(namespace=namespace, key=key, value=wanted_text(value), secret=secret, version=1, replaces=None)


def wanted_text(value: str | Plaintext | Keep) -> str:
    """Return a wanted value's text."""
    assert not isinstance(value, Keep)
    text = value if isinstance(value, str) else value.reveal()
    check_value(text)
    return text


def write_differences(tx: Transaction, keyring: Keyring, bucket_id: str, changes: Collection[Difference], writer: str) -> Changed:
    """Write all differences through one ledger."""
    if not changes:
        return Changed()
    ledger = Ledger(tx, keyring, bucket_id, room=len(changes))
    for change in changes:
        ledger.enter(
            (change.namespace, change.key),
            change.value,
            version=change.version,
            writer=writer,
            secret=change.secret,
            replaces=change.replaces,
        )
    ledger.write()
    if tx.dialect == "postgresql" and len(changes) > ANALYZE_BEYOND:
        tx.connection.exec_driver_sql("ANALYZE kv_versions")
    deleted = sum(change.value is None for change in changes)
    return Changed(written=len(changes) - deleted, deleted=deleted)


VERSIONS_KEPT = 7
"""Versions of a key that stay however old they are."""


def trim_history(tx: Transaction, bucket_id: str, *, retain: timedelta) -> int:
    """Remove versions older than `retain` beyond the latest seven of their key; return how many went. For gc."""
    reserve_revisions(tx, bucket_id, 0)
    tx.connection.execute(
        delete(kv_requests).where(kv_requests.c.bucket_id == bucket_id, kv_requests.c.created_at < tx.now - REQUESTS_KEPT)
    )
    newest = kv_versions.alias("newest")
    newest_version = (
        select(newest.c.version)
        .where(newest.c.bucket_id == v.bucket_id, newest.c.namespace == v.namespace, newest.c.key == v.key, newest.c.newest)
        .correlate(kv_versions)
        .scalar_subquery()
    )
    old = (v.bucket_id == bucket_id) & (v.created_at < tx.now - retain) & (v.version <= newest_version - VERSIONS_KEPT)
    return forget_versions(tx, bucket_id, old)
