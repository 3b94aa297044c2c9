"""A real catalog in memory with one bucket, reached over a unix socket, and as two replicas over TLS.

bed                the catalog; `bed.catalog` is what executors' verbs (tests/contracts/catalog/run_verbs.py) take
bed.local()        a client over the unix socket
bed.remote(role)   a client over TLS, with a token of that role, that knows both replicas
bed.kill(0)        end one replica at once, as a crash does; bed.revive(0) starts it again at the same address
"""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import pytest

from maand_catalog.database.database import Database
from maand_catalog.rules.identity import Role
from maand_catalog.service import RunningCatalog, start_serving
from maand_catalog.settings import CatalogSettings
from maand_client import Client, connect
from tests.contracts.catalog.run_builders import a_bucket
from tests.contracts.catalog.serving import ServedCatalog, serve, settings_for
from tests.testbed.authority import TestAuthority

Item = TypeVar("Item")

PATIENCE = timedelta(seconds=20)


@dataclass(kw_only=True)
class Bed:
    """One bucket, who serves it, and how to reach them."""

    directory: Path
    catalog: ServedCatalog
    bucket_id: str
    authority: TestAuthority
    settings: CatalogSettings
    replicas: list[RunningCatalog] = field(default_factory=list)

    @property
    def database(self) -> Database:
        """The database of all of them."""
        return self.catalog.database

    @property
    def addresses(self) -> list[str]:
        """Where the replicas listen."""
        return [replica.address for replica in self.replicas]

    def local(self, **more: Any) -> AbstractAsyncContextManager[Client]:
        """Connect over the unix socket."""
        return connect(self.catalog.running.address, self.bucket_id, **{"patience": PATIENCE, **more})

    async def remote(self, role: Role = Role.OPERATOR, **more: Any) -> AbstractAsyncContextManager[Client]:
        """Connect to both replicas over TLS."""
        given = {"ca": self.authority.ca, "token": await self.token(role), "patience": PATIENCE, **more}
        return connect(self.addresses, self.bucket_id, **given)

    async def token(self, role: Role = Role.OPERATOR) -> str:
        """Make an API token."""
        return (await self.catalog.token_for(role))[0][1].removeprefix("Bearer ")

    async def kill(self, number: int) -> None:
        """End a replica: its connections break, its streams too."""
        await self.replicas[number].server.stop(None)
        await self.replicas[number].housekeeper.stop()

    async def revive(self, number: int) -> None:
        """Start a replica again where it was."""
        settings = replace(self.settings, listen=self.replicas[number].address)
        self.replicas[number] = await start_serving(settings, self.database)


async def first(items: AsyncIterator[Item]) -> Item:
    """Return the first item of a stream."""
    return await anext(items)


@pytest.fixture
async def bed(tmp_path: Path) -> AsyncIterator[Bed]:
    database = await Database.open("sqlite://")
    authority = TestAuthority(tmp_path / "ca")
    async with serve(database, tmp_path) as catalog:
        tls = authority.files("catalog", "127.0.0.1")
        made = Bed(
            directory=tmp_path,
            catalog=catalog,
            bucket_id=await a_bucket(database),
            authority=authority,
            settings=replace(settings_for(tmp_path, listen="127.0.0.1:0"), tls=tls),
        )
        made.replicas = [await start_serving(made.settings, database) for _ in range(2)]
        yield made
        for number in range(len(made.replicas)):
            await made.kill(number)
    await database.close()
