"""Secrets at rest: read for their job, revealed to a person, listed without values, masked in output, re-encrypted.

A version whose key is gone stops neither masks nor a rotation: it is left out, and returned to be named to people.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from sqlalchemy import bindparam, func, select, update

from maand_catalog.database.statements import DIALECTS, OneOf
from maand_catalog.database.transaction import Transaction
from maand_catalog.rules.namespaces import SECRETS
from maand_catalog.sealing.keyring import CannotDecrypt, Keyring, Plaintext
from maand_catalog.store.kv.entries import (
    ENTRIES,
    PAGE_BYTES,
    Entry,
    entry_from_row,
    kv_binding,
    open_entry,
    read_page,
    select_entries,
)
from maand_catalog.store.runs.hook_env import count_stale_hook_env, rotate_hook_env
from maand_catalog.store.tables.kv import kv_buckets, kv_versions
from maand_catalog.store.tokens import record_audit

ROTATED_AT_ONCE = 500
"""Values re-encrypted by one call: a transaction of some 20 ms, so that nobody notices a rotation."""

MASKS_AT_ONCE = 5_000
"""Values read in one transaction, unless they are so large that fewer do."""

v = kv_versions.c

REVISIONS = OneOf("revisions", v.revision)
ENTRIES_BY_REVISION = {
    dialect: ENTRIES.where(v.bucket_id == bindparam("bucket"), REVISIONS.condition(dialect)) for dialect in DIALECTS
}


@dataclass(frozen=True, kw_only=True)
class Rotated:
    """How far a rotation came. `next_revision` None = it is through."""

    rotated: int
    remaining: int
    next_revision: int | None
    unreadable: tuple[Entry, ...] = ()


@dataclass(frozen=True, kw_only=True)
class MaskPage:
    """Values to be masked; with them everything up to `revision` is told. `more`: ask again after that revision."""

    revision: int
    more: bool = False
    values: frozenset[str] = field(default=frozenset(), repr=False)
    unreadable: tuple[Entry, ...] = ()


def read_mask_page(tx: Transaction, keyring: Keyring, bucket_id: str, after_revision: int, *, whole: bool) -> MaskPage:
    """Return the next values of secrets, all kept versions, that were written after a revision, oldest first.

    `whole`: this goes on with what began at 0, so that most secrets are wanted. Each page reads on from where the last ended,
    without an upper bound: a version whose expiry is moved gets a new revision, and must not slip between two pages.

    Private keys of certificates are not among them: they are many, and reach hooks as files only.
    """
    revision, secret_revision = read_marks(tx, bucket_id)
    if after_revision > revision:  # told by a database that was replaced by an older backup
        after_revision, whole = 0, True
    if secret_revision <= after_revision:
        return MaskPage(revision=revision)
    sizes = list_sealed(tx, bucket_id, after_revision, whole=whole)
    wanted = cut_page(sizes)
    entries = read_entries_by_revision(tx, bucket_id, wanted)
    values, unreadable = open_entries(keyring, entries)
    more = len(wanted) < len(sizes)
    return MaskPage(
        revision=wanted[-1] if more else revision,
        more=more,
        values=frozenset(value.reveal() for _, value in values) - {""},
        unreadable=unreadable,
    )


def read_marks(tx: Transaction, bucket_id: str) -> tuple[int, int]:
    """Return the bucket's newest revision, and the newest one that changed a secret; 0 = there never was one."""
    marks = select(kv_buckets.c.revision, kv_buckets.c.secret_revision).where(kv_buckets.c.bucket_id == bucket_id)
    row = tx.connection.execute(marks).one_or_none()
    return (row.revision, row.secret_revision) if row else (0, 0)


def list_sealed(tx: Transaction, bucket_id: str, after_revision: int, *, whole: bool) -> list[tuple[int, int]]:
    """Return revision and size of every version of a secret written after a revision, in order.

    The two ways to ask lead a database to the index that fits: all secrets lie together by name, changes by revision. A bucket
    holds hundreds of thousands of other keys.
    """
    wanted = select(v.revision, func.length(v.sealed)).where(v.bucket_id == bucket_id, v.sealed.is_not(None))
    if whole:
        below = (v.namespace >= SECRETS + "/") & (v.namespace < SECRETS + "0")
        wanted = wanted.where(below, v.revision + 0 > after_revision)
    else:
        wanted = wanted.where(func.substr(v.namespace, 1, len(SECRETS) + 1) == SECRETS + "/", v.revision > after_revision)
    return sorted((revision, size) for revision, size in tx.connection.execute(wanted))


def cut_page(sizes: Sequence[tuple[int, int]]) -> list[int]:
    """Return the revisions of one page: at least one, as many as fit."""
    page: list[int] = []
    taken = 0
    for revision, size in sizes[:MASKS_AT_ONCE]:
        if page and taken + size > PAGE_BYTES:
            break
        page.append(revision)
        taken += size
    return page


def read_entries_by_revision(tx: Transaction, bucket_id: str, revisions: Sequence[int]) -> list[Entry]:
    """Return entries by their revisions."""
    if not revisions:
        return []
    asked = {"bucket": bucket_id, **REVISIONS.parameters(tx.dialect, revisions)}
    return [entry_from_row(row) for row in tx.connection.execute(ENTRIES_BY_REVISION[tx.dialect], asked)]


Opened = tuple[Entry, Plaintext]


def open_entries(keyring: Keyring, entries: Sequence[Entry]) -> tuple[list[Opened], tuple[Entry, ...]]:
    """Open sealed entries, and return those that cannot be opened apart. A missing key is looked for in the file once."""
    opened: list[Opened] = []
    unreadable: list[Entry] = []
    missing = keyring.missing({entry.sealed.key_id for entry in entries if entry.sealed is not None})
    for entry in entries:
        value = None if entry.sealed is None or entry.sealed.key_id in missing else try_open_entry(keyring, entry)
        if value is None:
            unreadable.append(entry)
        else:
            opened.append((entry, value))
    return opened, tuple(unreadable)


def try_open_entry(keyring: Keyring, entry: Entry) -> Plaintext | None:
    """Open an entry whose key is there; None when it was moved or damaged."""
    try:
        return open_entry(keyring, entry)
    except CannotDecrypt:
        return None


def rotate_page(tx: Transaction, keyring: Keyring, bucket_id: str, *, after_revision: int, actor: str) -> Rotated:
    """Re-encrypt the next values that an older key encrypts, in place: same version, same binding, new key and nonce.

    What cannot be opened stays as it is, and is returned. With the last page go the values of `hook_env` that runs wait or work
    with: then no older key is needed any more.
    """
    pending = (v.bucket_id == bucket_id) & v.key_id.is_not(None) & (v.key_id != keyring.newest)
    page = select_entries(bucket_id).where(pending, v.revision > after_revision).order_by(v.revision).limit(ROTATED_AT_ONCE + 1)
    entries, more = read_page(tx, page, ROTATED_AT_ONCE)
    opened, unreadable = open_entries(keyring, entries)
    if opened:
        stored = update(kv_versions).where(v.bucket_id == bucket_id, v.revision == bindparam("of"), v.key_id == bindparam("old"))
        changes = [reseal_entry(keyring, entry, value) for entry, value in opened]
        tx.connection.execute(stored.values(sealed=bindparam("data"), key_id=bindparam("new")), changes)
    rotated = len(opened) + (0 if more else rotate_hook_env(tx, keyring, bucket_id))
    if rotated:
        subject = f"{rotated} values to key {keyring.newest}"
        record_audit(tx, actor=actor, action="secret.rotate", subject=subject, bucket_id=bucket_id)
    remaining = (tx.connection.scalar(select(func.count()).where(pending)) or 0) + count_stale_hook_env(tx, keyring, bucket_id)
    next_revision = entries[-1].revision if more else None
    return Rotated(rotated=rotated, remaining=remaining, next_revision=next_revision, unreadable=unreadable)


def reseal_entry(keyring: Keyring, entry: Entry, value: Plaintext) -> dict[str, object]:
    """Return the parameters that replace an entry's ciphertext by one under the newest key."""
    assert entry.sealed is not None
    place = kv_binding(entry.bucket_id, entry.namespace, entry.key, entry.version)
    sealed = keyring.seal(value, place)
    return {"of": entry.revision, "old": entry.sealed.key_id, "new": sealed.key_id, "data": sealed.data}
