import asyncio
from collections.abc import Callable
from datetime import timedelta

import pytest
from sqlalchemy import text

from maand_catalog.store.database import Database, Transaction
from maand_catalog.store.filelock import DatabaseInUse
from tests.contracts.catalog.conftest import OpenReplica


def put(key: str, value: str = "") -> Callable[[Transaction], int]:
    def intention(tx: Transaction) -> int:
        tx.connection.execute(text("CREATE TABLE IF NOT EXISTS probe (key VARCHAR(50) PRIMARY KEY, value VARCHAR(50))"))
        tx.notify(f"probe:{key}")
        return tx.connection.execute(text("INSERT INTO probe VALUES (:key, :value)"), {"key": key, "value": value}).rowcount

    return intention


async def test_x(database: Database) -> None:
    await database.write(put("a"))
    results = await asyncio.gather(*(database.write(put(k)) for k in ("b", "c", "a", "d")), return_exceptions=True)
    print(results)
    assert await database.read(lambda tx: tx.connection.execute(text("SELECT count(*) FROM probe")).scalar_one()) == 4
    with database.bus.subscribe("probe:z") as s:
        await database.write(put("z"))
        await s.wait(timedelta(seconds=5))


async def test_two(open_replica: OpenReplica) -> None:
    a, b = await open_replica(), await open_replica()
    await a.write(put("a"))
    with b.bus.subscribe("probe:z") as s:
        await a.write(put("z"))
        loop = asyncio.get_running_loop()
        t = loop.time()
        await s.wait(timedelta(seconds=5))
        print(loop.time() - t)
        assert loop.time() - t < 0.5


async def test_lock(sqlite_url: str) -> None:
    a = await Database.open(sqlite_url)
    with pytest.raises(DatabaseInUse, match="is open in process"):
        await Database.open(sqlite_url)
    await a.close()
