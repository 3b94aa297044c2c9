"""The book of one bucket's KV writes: opened under the bucket's row lock, filled in memory, written in bulk.

    open (lock, hand out revisions)  ->  look up newest versions  ->  enter new ones  ->  write (an UPDATE and an INSERT)

Revisions are handed out under the lock and become visible with the commit that releases it: in order, for every replica.
"""

from collections.abc import Collection
from datetime import datetime
from typing import Any

from sqlalchemy import bindparam, exists, insert, select, update

from maand_catalog.database.statements import DIALECTS, ROWS_AT_ONCE, OneOf, in_chunks, upsert_into
from maand_catalog.database.transaction import Transaction
from maand_catalog.errors import NotFound
from maand_catalog.rules.kv_writes import UNREADABLE, Head
from maand_catalog.sealing.keyring import CannotDecrypt, Keyring, Plaintext
from maand_catalog.store.kv.entries import Entry, Name, find_newest_entries, kv_binding
from maand_catalog.store.tables.buckets import buckets
from maand_catalog.store.tables.kv import kv_buckets, kv_versions

v = kv_versions.c

Row = dict[str, Any]

RESERVE = (
    update(kv_buckets)
    .where(kv_buckets.c.bucket_id == bindparam("bucket"))
    .values(revision=kv_buckets.c.revision + bindparam("room"))
    .returning(kv_buckets.c.revision)
)

REPLACED = OneOf("replaced", v.revision)
SUPERSEDE = {
    dialect: update(kv_versions).where(v.bucket_id == bindparam("bucket"), REPLACED.condition(dialect)).values(newest=False)
    for dialect in DIALECTS
}

ADD = insert(kv_versions)


def kv_topic(bucket_id: str) -> str:
    """Return the topic that every write of a bucket notifies."""
    return f"kv:{bucket_id}"


class Ledger:
    """Writes to one bucket within one transaction. Nothing is stored before `write`, or before it holds very many rows."""

    def __init__(self, tx: Transaction, keyring: Keyring, bucket_id: str, *, room: int) -> None:
        """Lock the bucket and reserve `room` revisions. `NotFound` when there is no such bucket."""
        self._tx = tx
        self._keyring = keyring
        self._bucket_id = bucket_id
        self._revision = reserve_revisions(tx, bucket_id, room) - room
        self._entered: dict[Name, Row] = {}
        self._superseded: list[Row] = []
        self._replaced: list[int] = []
        self._secrets_changed_at = 0

    def look_up(self, names: Collection[Name]) -> dict[Name, Head]:
        """Return the newest versions of these keys, decrypted; a key never written is missing."""
        return {
            name: Head(
                version=entry.version,
                revision=entry.revision,
                value=comparable_value(self._keyring, entry),
                expires_at=entry.expires_at,
            )
            for name, entry in find_newest_entries(self._tx, self._bucket_id, names).items()
        }

    def enter(
        self,
        name: Name,
        value: str | None,
        *,
        version: int,
        writer: str,
        secret: bool = False,
        expires_at: datetime | None = None,
        replaces: int | None = None,
    ) -> int:
        """Enter a new version (value None = tombstone) and return its revision; `replaces` is the revision of the newest one."""
        # Entered before in this batch: that version is stored too, but not as the newest; what it replaced was noted with it.
        if name in self._entered:
            self._superseded.append({**self._entered[name], "newest": False})
        elif replaces is not None:
            self._replaced.append(replaces)
        revision = self._next_revision(changes_secret=secret)
        self._entered[name] = {
            "bucket_id": self._bucket_id,
            "namespace": name[0],
            "key": name[1],
            "version": version,
            "revision": revision,
            "newest": True,
            **self._stored(name, version, value, secret=secret),
            "created_at": self._tx.now,
            "expires_at": expires_at,
            "writer": writer,
        }
        if len(self._entered) >= ROWS_AT_ONCE:
            self.write()
        return revision

    def extend(self, name: Name, revision: int, expires_at: datetime | None) -> int:
        """Move the expiry of the newest version, whose revision is given, and return its new revision."""
        new = {"revision": self._next_revision(changes_secret=False), "expires_at": expires_at}
        if name in self._entered:
            self._entered[name].update(new)
        else:
            stored = update(kv_versions).where(v.bucket_id == self._bucket_id, v.revision == revision)
            self._tx.connection.execute(stored.values(new))
            self._tx.notify(kv_topic(self._bucket_id))
        return int(str(new["revision"]))

    def write(self) -> None:
        """Store what was entered, and wake the bucket's watchers."""
        rows = [*self._superseded, *self._entered.values()]
        if not rows:
            return
        for chunk in in_chunks(self._replaced):
            asked = {"bucket": self._bucket_id, **REPLACED.parameters(self._tx.dialect, chunk)}
            self._tx.connection.execute(SUPERSEDE[self._tx.dialect], asked)
        self._tx.connection.execute(ADD, rows)
        if self._secrets_changed_at:
            mark_secrets_changed(self._tx, self._bucket_id, self._secrets_changed_at)
        self._tx.notify(kv_topic(self._bucket_id))
        self._entered, self._superseded, self._replaced = {}, [], []

    def _next_revision(self, *, changes_secret: bool) -> int:
        self._revision += 1
        if changes_secret:
            self._secrets_changed_at = self._revision
        return self._revision

    def _stored(self, name: Name, version: int, value: str | None, *, secret: bool) -> Row:
        """Return the columns of a value: in clear, sealed for exactly this place, or a tombstone."""
        if value is None or not secret:
            return {"value": value, "sealed": None, "key_id": None}
        sealed = self._keyring.seal(Plaintext(value), kv_binding(self._bucket_id, *name, version))
        return {"value": None, "sealed": sealed.data, "key_id": sealed.key_id}


def comparable_value(keyring: Keyring, entry: Entry) -> str | None:
    """Return an entry's value to compare with; one whose key is lost equals nothing, so that it can be written anew."""
    try:
        return None if entry.is_tombstone else entry.text(keyring)
    except CannotDecrypt:
        return UNREADABLE


def reserve_revisions(tx: Transaction, bucket_id: str, room: int) -> int:
    """Lock the bucket's row until the transaction ends, reserve revisions, and return the last of them."""
    asked = {"bucket": bucket_id, "room": room}
    last: int | None = tx.connection.scalar(RESERVE, asked)
    if last is not None:
        return last
    begin_kv_bucket(tx, bucket_id)
    return int(tx.connection.execute(RESERVE, asked).scalar_one())


def begin_kv_bucket(tx: Transaction, bucket_id: str) -> None:
    """Store the row that orders the bucket's writes; another replica may do so at the same time."""
    if not tx.connection.scalar(select(exists().where(buckets.c.bucket_id == bucket_id))):
        raise NotFound(f"there is no bucket {bucket_id}", help="run `maand init`, or name the bucket that maand.conf names")
    first = {"bucket_id": bucket_id, "revision": 0, "secret_revision": 0, "trimmed_revision": 0}
    tx.connection.execute(upsert_into(tx.dialect, kv_buckets).values(first).on_conflict_do_nothing())


def mark_secrets_changed(tx: Transaction, bucket_id: str, revision: int) -> None:
    """Note that masks are out of date since this revision."""
    tx.connection.execute(update(kv_buckets).where(kv_buckets.c.bucket_id == bucket_id).values(secret_revision=revision))
