"""The door to the KV store for everything asynchronous: gets and puts of many callers, batched each in a lane of its own."""

import time
from dataclasses import dataclass

from maand_catalog.database.batching import Lane
from maand_catalog.database.database import Database
from maand_catalog.rules.kv import Write
from maand_catalog.rules.meter import Meter
from maand_catalog.sealing.keyring import Keyring
from maand_catalog.store.kv.reads import Lookup, get_entries
from maand_catalog.store.kv.rows import Entry
from maand_catalog.store.kv.writes import KvWriter, Written


@dataclass(frozen=True, kw_only=True)
class KvStore:
    """What servicers of KV and secrets share."""

    database: Database
    keyring: Keyring
    reads: Lane[Lookup, Entry]
    writes: Lane[Write, Written]
    meter: Meter

    @classmethod
    def on(cls, database: Database, keyring: Keyring, meter: Meter | None = None) -> "KvStore":
        """Make the store on an open database."""
        return cls(
            database=database,
            keyring=keyring,
            reads=Lane(database.read, get_entries),
            writes=Lane(database.write, KvWriter(keyring).carry_out),
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
