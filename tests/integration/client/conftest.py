"""A whole bucket as other services see it: two catalogs over TLS, an executor, a real SSH worker, and a token.

calling.addresses, calling.ca, calling.token_file, calling.bucket_id    what a caller is given
calling.environment()                                                   the same, as the examples read it
calling.bed                                                             the bucket behind it: workspace, builds, workers
await calling.kill(0), calling.revive(0)                                one catalog address dies, and comes back
"""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from maand_catalog.ids import new_api_token, new_id
from maand_catalog.rules.identity import Role, token_digest
from maand_catalog.service import RunningCatalog, start_serving
from maand_catalog.store.tokens import create_token
from maand_client import Client, connect
from tests.integration.executor.deploy_bed import DeployBed, deploy_bed
from tests.testbed.authority import TestAuthority
from tests.testbed.sshd import SshTestBed


@dataclass(kw_only=True)
class Calling:
    """What a caller is given, and what stands behind it."""

    bed: DeployBed
    replicas: list[RunningCatalog]
    ca: Path
    token_file: Path

    @property
    def addresses(self) -> list[str]:
        """Where the catalogs listen."""
        return [replica.address for replica in self.replicas]

    @property
    def bucket_id(self) -> str:
        """The bucket."""
        return self.bed.bucket_id

    def connect(self) -> AbstractAsyncContextManager[Client]:
        """Connect as a service does."""
        return connect(self.addresses, self.bucket_id, ca=self.ca, token_file=self.token_file)

    def environment(self) -> dict[str, str]:
        """Return what the examples read."""
        return {
            "MAAND_CATALOG_ADDRESS": ",".join(self.addresses),
            "MAAND_TLS_CA": str(self.ca),
            "MAAND_API_TOKEN_FILE": str(self.token_file),
            "BUCKET_ID": self.bucket_id,
        }

    async def kill(self, number: int) -> None:
        """End one catalog at once: its connections break."""
        await self.replicas[number].server.stop(None)
        await self.replicas[number].housekeeper.stop()

    async def revive(self, number: int) -> None:
        """Start a catalog again at the address where one died."""
        dead = self.replicas[number]
        self.replicas[number] = await start_serving(replace(dead.settings, listen=dead.address), dead.database)


@pytest.fixture
async def calling(tmp_path: Path, test_bed: SshTestBed) -> AsyncIterator[Calling]:
    authority = TestAuthority(tmp_path / "ca")
    async with deploy_bed(tmp_path, test_bed, workers=1) as bed:
        settings = replace(bed.catalog.settings, listen="127.0.0.1:0", tls=authority.files("catalog", "127.0.0.1"))
        replicas = [await start_serving(settings, bed.catalog.database) for _ in range(2)]
        made = Calling(bed=bed, replicas=replicas, ca=authority.ca, token_file=await a_token_file(bed, tmp_path))
        yield made
        for number in range(len(replicas)):
            await made.kill(number)


async def a_token_file(bed: DeployBed, directory: Path) -> Path:
    """Make an operator's token and keep it as services do: in a file."""
    secret, path = new_api_token(), directory / "operator.token"
    path.touch(mode=0o600)
    path.write_text(f"{secret}\n")
    await bed.catalog.database.write(
        lambda tx: create_token(
            tx, token_id=new_id(), token_sha256=token_digest(secret), name="reports", role=Role.OPERATOR, ttl=None, actor="test"
        )
    )
    return path
