"""A gateway before a real catalog on SQLite, and the one who begins invocations there."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from maand_contracts.catalog.v1 import run_pb2, run_spec_pb2
from maand_hook_sdk.memory_identity import Identity
from maand_runtime_gateway.service import RunningGateway, start_gateway
from maand_runtime_gateway.settings import GatewaySettings
from maand_wire.endpoints import Endpoint
from tests.contracts.hook_api.real_catalog import LittleFleet, running_catalog


@dataclass(frozen=True, kw_only=True)
class Chain:
    """The whole chain from HTTP to the database."""

    gateway: RunningGateway
    fleet: LittleFleet
    run: run_pb2.Run
    identities: dict[str, Identity]

    async def begin(self, caller: str, count: int = 1) -> list[str]:
        """Begin invocations of one of the callers; return their tokens."""
        return await self.fleet.begin(self.run, [self.identities[caller]] * count)


@pytest.fixture
async def chain(tmp_path: Path) -> AsyncIterator[Chain]:
    """Serve the chain."""
    async with running_catalog(tmp_path) as catalog:
        endpoint = Endpoint(address=catalog.address)
        fleet = LittleFleet(endpoint)
        await fleet.build()
        identities = await fleet.identities()
        run = await fleet.start_run(run_spec_pb2.RunSpec(hooks=run_spec_pb2.HooksSpec(hook="hook_setup", job="api")))
        gateway = await start_gateway(GatewaySettings(listen="127.0.0.1:0", catalog=endpoint, executor=endpoint))
        yield Chain(gateway=gateway, fleet=fleet, run=run, identities=identities)
        await gateway.stop()
        await fleet.close()
