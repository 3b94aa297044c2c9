"""A gateway before fake services: `gateway.address`, `gateway.tokens`, `gateway.fakes`."""

import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from maand_runtime_gateway.service import RunningGateway, start_gateway
from maand_runtime_gateway.settings import Deadlines, GatewaySettings, RequestLimits
from tests.contracts.hook_api.world import begin_all, make_memory
from tests.unit.gateway.fake_services import RunningFakes
from tests.unit.gateway.raw_http import Answer, call

IMPATIENT = RequestLimits(
    body_time=timedelta(milliseconds=300), head_time=timedelta(milliseconds=300), write_time=timedelta(milliseconds=500)
)
"""Limits that a test can wait for."""


@dataclass(frozen=True, kw_only=True)
class ServedGateway:
    """A gateway that serves, with what is behind it."""

    running: RunningGateway
    fakes: RunningFakes
    tokens: dict[str, str]

    @property
    def address(self) -> str:
        """Where it serves."""
        return self.running.address

    async def call(self, method: str, path: str, caller: str | None = "api", **more: Any) -> Answer:
        """Make one call as one of the callers."""
        token = self.tokens[caller] if caller else None
        return await call(self.address, method, path, token=token, **more)


@asynccontextmanager
async def serve(
    limits: RequestLimits | None = None, deadlines: Deadlines | None = None, *, listen: str = "127.0.0.1:0"
) -> AsyncIterator[ServedGateway]:
    """Serve a gateway before fakes until the block ends."""
    directory = Path(tempfile.mkdtemp(prefix="maand-"))
    memory = make_memory()
    fakes = RunningFakes(memory)
    await fakes.start(directory)
    settings = GatewaySettings(
        listen=listen,
        catalog=fakes.endpoint,
        executor=fakes.endpoint,
        limits=limits or RequestLimits(),
        deadlines=deadlines or Deadlines(),
        stop_time=timedelta(seconds=1),
    )
    running = await start_gateway(settings)
    try:
        yield ServedGateway(running=running, fakes=fakes, tokens=begin_all(memory))
    finally:
        await running.stop()
        await fakes.stop()
        shutil.rmtree(directory)


@pytest.fixture
async def gateway() -> AsyncIterator[ServedGateway]:
    """Give a gateway with the limits it has in life."""
    async with serve() as served:
        yield served


@pytest.fixture
async def impatient() -> AsyncIterator[ServedGateway]:
    """Give a gateway that waits for nobody."""
    async with serve(limits=IMPATIENT) as served:
        yield served
