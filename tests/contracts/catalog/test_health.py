"""A catalog's health is its database's: not ready while that is away."""

import asyncio
from datetime import timedelta
from pathlib import Path

import grpc.aio
import pytest

from maand_catalog.database.database import Database
from maand_catalog.serving import upkeep
from maand_wire.health import check_serving
from tests.contracts.catalog.serving import serve
from tests.testbed.postgres import running_postgres
from tests.waiting import until


async def test_it_is_ready_while_its_database_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upkeep, "LATELY", timedelta(seconds=1))
    with running_postgres() as cluster:
        database = await Database.open(cluster.create_database("maand"))
        async with serve(database, tmp_path) as catalog:
            channel = catalog.local.channel
            assert await check_serving(channel)

            await asyncio.to_thread(cluster.stop)
            await until(lambda: is_away(channel))

            await asyncio.to_thread(cluster.start)
            await until(lambda: check_serving(channel))
        await database.close()


async def is_away(channel: grpc.aio.Channel) -> bool:
    return not await check_serving(channel)
