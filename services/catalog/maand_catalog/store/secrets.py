"""Secrets at rest: read for their job, revealed to a person, listed without values, masked in output, re-encrypted."""

from dataclasses import dataclass

from sqlalchemy import bindparam, func, select, update

from maand_catalog.keyring import Keyring
from maand_catalog.namespaces import SECRETS
from maand_catalog.store.hook_env import count_pending, rotate_hook_env
from maand_catalog.store.kv import Entry, below, binding, entries_of, open_entry, stream, to_entry
from maand_catalog.store.tables_kv import kv_buckets, kv_versions
from maand_catalog.store.tokens import record_audit
from maand_catalog.store.transaction import Transaction

ROTATED_AT_ONCE = 500
"""Values re-encrypted by one call: a transaction of some 20 ms, so that nobody notices a rotation."""

v = kv_versions.c


@dataclass(frozen=True, kw_only=True)
class Rotated:
    """How far a rotation came. `next_revision` None = it is through."""

    rotated: int
    remaining: int
    next_revision: int | None


def read_secret_revision(tx: Transaction, bucket_id: str) -> int:
    """Return the newest revision that changed a secret; 0 = there never was one."""
    return tx.connection.scalar(select(kv_buckets.c.secret_revision).where(kv_buckets.c.bucket_id == bucket_id)) or 0


def read_mask_values(tx: Transaction, keyring: Keyring, bucket_id: str, known_revision: int) -> tuple[int, list[str] | None]:
    """Return the secret revision and every kept value of every secret, or None when the caller knows them.

    Private keys of certificates are not among them: they are many, and reach hooks as files only.
    """
    revision = read_secret_revision(tx, bucket_id)
    if revision == known_revision:
        return revision, None
    wanted = entries_of(bucket_id).where(below(SECRETS), v.sealed.is_not(None))
    values = {to_entry(row).text(keyring) for row in stream(tx, wanted)}
    return revision, sorted(values - {""})


def rotate_page(tx: Transaction, keyring: Keyring, bucket_id: str, *, after_revision: int, actor: str) -> Rotated:
    """Re-encrypt the next values that an older key encrypts, in place: same version, same binding, new key and nonce.

    With the last page go the values of `hook_env` that runs wait or work with: then no older key is needed any more.
    """
    pending = (v.bucket_id == bucket_id) & v.key_id.is_not(None) & (v.key_id != keyring.newest)
    page = entries_of(bucket_id).where(pending, v.revision > after_revision).order_by(v.revision).limit(ROTATED_AT_ONCE)
    entries = [to_entry(row) for row in stream(tx, page)]
    if entries:
        stored = update(kv_versions).where(v.bucket_id == bucket_id, v.revision == bindparam("of"), v.key_id == bindparam("old"))
        changes = [resealed(keyring, entry) for entry in entries]
        tx.connection.execute(stored.values(sealed=bindparam("data"), key_id=bindparam("new")), changes)
    more = len(entries) == ROTATED_AT_ONCE
    rotated = len(entries) + (0 if more else rotate_hook_env(tx, keyring, bucket_id))
    if rotated:
        subject = f"{rotated} values to key {keyring.newest}"
        record_audit(tx, actor=actor, action="secret.rotate", subject=subject, bucket_id=bucket_id)
    remaining = (tx.connection.scalar(select(func.count()).where(pending)) or 0) + count_pending(tx, keyring, bucket_id)
    return Rotated(rotated=rotated, remaining=remaining, next_revision=entries[-1].revision if more else None)


def resealed(keyring: Keyring, entry: Entry) -> dict[str, object]:
    """Return the parameters that replace an entry's ciphertext by one under the newest key."""
    assert entry.sealed is not None
    place = binding(entry.bucket_id, entry.namespace, entry.key, entry.version)
    sealed = keyring.seal(open_entry(keyring, entry), place)
    return {"of": entry.revision, "old": entry.sealed.key_id, "new": sealed.key_id, "data": sealed.data}
