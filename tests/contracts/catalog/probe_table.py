"""A table of its own for tests of the storage seam, and intentions on it."""

from collections.abc import Callable
from datetime import timedelta

from sqlalchemy import text

from maand_catalog.database.database import Database, Transaction
from tests.contracts.catalog.conftest import OpenReplica

LONG = timedelta(seconds=20)
PROBE = "CREATE TABLE probe (key VARCHAR(50) PRIMARY KEY, value INTEGER NOT NULL)"


def put(key: str, value: int = 0) -> Callable[[Transaction], str]:
    def intention(tx: Transaction) -> str:
        tx.notify(f"probe:{key}")
        tx.connection.execute(text("INSERT INTO probe VALUES (:key, :value)"), {"key": key, "value": value})
        return key

    return intention


def add_one(*keys: str) -> Callable[[Transaction], None]:
    def intention(tx: Transaction) -> None:
        for key in keys:
            tx.connection.execute(text("UPDATE probe SET value = value + 1 WHERE key = :key"), {"key": key})

    return intention


def content(tx: Transaction) -> dict[str, int]:
    return {str(row.key): int(row.value) for row in tx.connection.execute(text("SELECT key, value FROM probe"))}


async def two_replicas(open_replica: OpenReplica) -> tuple[Database, Database]:
    one, two = await open_replica(), await open_replica()
    await one.write(lambda tx: tx.connection.execute(text(PROBE)))
    return one, two
