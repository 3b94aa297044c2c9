"""The door to the KV store for everything asynchronous: gets and puts of many callers, each in batches of their own."""

import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from maand_catalog.database.batching import Batcher
from maand_catalog.database.database import Database
from maand_catalog.database.transaction import Transaction
from maand_catalog.errors import CatalogError
from maand_catalog.rules.kv_writes import KeyNotFound, Write
from maand_catalog.rules.meter import Meter
from maand_catalog.sealing.keyring import Keyring
from maand_catalog.store.kv.entries import Entry, find_newest_entries, get_entry, is_absent
from maand_catalog.store.kv.writes import KvWriter, Written


@dataclass(frozen=True, kw_only=True)
class Lookup:
    """One get; version 0 = the newest."""

    bucket_id: str
    namespace: str
    key: str
    version: int = 0


def get_entries(tx: Transaction, lookups: Sequence[Lookup]) -> list[Entry | Exception]:
    """Answer every lookup in the order asked: the entry, or `KeyNotFound`."""
    names = defaultdict(set)
    for lookup in lookups:
        if not lookup.version:
            names[lookup.bucket_id].add((lookup.namespace, lookup.key))
    newest = {bucket_id: find_newest_entries(tx, bucket_id, wanted) for bucket_id, wanted in names.items()}
    return [
        answer_version(tx, lookup)
        if lookup.version
        else answer_newest(tx, lookup, newest[lookup.bucket_id].get((lookup.namespace, lookup.key)))
        for lookup in lookups
    ]


def answer_newest(tx: Transaction, lookup: Lookup, entry: Entry | None) -> Entry | Exception:
    """Answer with the newest version unless a read at this moment does not find it."""
    if entry is None or is_absent(tx, entry):
        return KeyNotFound(lookup.namespace, lookup.key)
    return entry


def answer_version(tx: Transaction, lookup: Lookup) -> Entry | Exception:
    """Answer with the version named."""
    try:
        return get_entry(tx, lookup.bucket_id, lookup.namespace, lookup.key, lookup.version)
    except CatalogError as error:
        return error


@dataclass(frozen=True, kw_only=True)
class KvStore:
    """What servicers of KV and secrets share."""

    database: Database
    keyring: Keyring
    reads: Batcher[Lookup, Entry]
    writes: Batcher[Write, Written]
    meter: Meter

    @classmethod
    def on(cls, database: Database, keyring: Keyring, meter: Meter | None = None) -> "KvStore":
        """Make the store on an open database."""
        return cls(
            database=database,
            keyring=keyring,
            reads=Batcher(database.read, get_entries),
            writes=Batcher(database.write, KvWriter(keyring).carry_out),
            meter=meter or Meter(),
        )

    async def get(self, bucket_id: str, namespace: str, key: str, version: int = 0) -> Entry:
        """Return the newest version, or the one named. `KeyNotFound`."""
        began = time.perf_counter()
        entry = await self.reads.submit(Lookup(bucket_id=bucket_id, namespace=namespace, key=key, version=version))
        self.meter.kv_done("read", time.perf_counter() - began)
        return entry

    async def write(self, write: Write) -> Written:
        """Write; durable and visible to everyone when it returns. `KvPreconditionLost`, `KeyNotFound`."""
        began = time.perf_counter()
        written = await self.writes.submit(write)
        self.meter.kv_done("write", time.perf_counter() - began)
        return written
