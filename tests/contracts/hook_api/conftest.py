"""Hook APIs that serve the little fleet, and the drivers that call them."""

import asyncio
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import ExitStack, asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest

from maand_runtime_gateway.service import start_gateway
from maand_runtime_gateway.settings import GatewaySettings
from maand_wire.endpoints import Endpoint
from tests.contracts.hook_api.drivers import Driver, RawHttp, SdkProcess
from tests.contracts.hook_api.real_catalog import LittleFleet, running_catalog
from tests.contracts.hook_api.world import CALLERS, ServedApi, begin_all, make_memory
from tests.testbed.postgres import running_postgres
from tests.unit.gateway.fake_services import RunningFakes


class Loop:
    """An event loop in a thread of its own: the drivers block, the services must not."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run something on the loop and wait for it."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=30)

    def close(self) -> None:
        """End the loop."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@asynccontextmanager
async def gateway_before_fakes(directory: Path) -> AsyncIterator[ServedApi]:
    """Serve the real gateway before fake services."""
    memory = make_memory()
    tokens = begin_all(memory)
    fakes = RunningFakes(memory)
    await fakes.start(directory)
    gateway = await start_gateway(GatewaySettings(listen="127.0.0.1:0", catalog=fakes.endpoint, executor=fakes.endpoint))
    try:
        yield ServedApi(address=gateway.address, tokens=tokens, identities=CALLERS)
    finally:
        await gateway.stop()
        await fakes.stop()


@asynccontextmanager
async def gateway_before_catalog(directory: Path, database_url: str = "") -> AsyncIterator[ServedApi]:
    """Serve the real gateway before a real catalog that has built the little fleet, and a fake executor."""
    async with running_catalog(directory, database_url) as catalog:
        endpoint = Endpoint(address=catalog.address)
        fleet = LittleFleet(endpoint)
        await fleet.build()
        identities, tokens = await fleet.begin_all()
        memory = make_memory()
        for name, identity in identities.items():
            memory.adopt(tokens[name], identity)
        fakes = RunningFakes(memory)
        await fakes.start(directory)
        gateway = await start_gateway(GatewaySettings(listen="127.0.0.1:0", catalog=endpoint, executor=fakes.endpoint))
        try:
            yield ServedApi(address=gateway.address, tokens=tokens, identities=identities)
        finally:
            await gateway.stop()
            await fakes.stop()
            await fleet.close()


@pytest.fixture(scope="module", params=["memory", "gateway", "sqlite", "postgresql"])
def api(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedApi]:
    """Serve the hook API: the SDK's in-memory one, the gateway before fakes, the gateway before real catalogs."""
    if request.param == "memory":
        with make_memory() as memory:
            yield ServedApi(address=memory.address, tokens=begin_all(memory), identities=CALLERS)
        return
    with ExitStack() as stack:
        loop = stack.enter_context(closing(Loop()))
        database = stack.enter_context(running_postgres()).create_database("hooks") if request.param == "postgresql" else ""
        directory = tmp_path_factory.mktemp("api")
        fakes = request.param == "gateway"
        serving = gateway_before_fakes(directory) if fakes else gateway_before_catalog(directory, database)
        yield loop.run(serving.__aenter__())
        loop.run(serving.__aexit__(None, None, None))


LANGUAGES = ["python", "typescript", "node"]


@pytest.fixture(scope="module", params=["raw", *LANGUAGES])
def driver(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driver]:
    """Call it: by raw HTTP, by maand.py, by maand.ts."""
    made = RawHttp() if request.param == "raw" else start_sdk(request.param, tmp_path_factory)
    yield made
    made.close()


@pytest.fixture(scope="module", params=LANGUAGES)
def sdk(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driver]:
    """Call SDK functions by name."""
    made = start_sdk(request.param, tmp_path_factory)
    yield made
    made.close()


def start_sdk(language: str, tmp_path_factory: pytest.TempPathFactory) -> SdkProcess:
    """Start a process beside a copy of the SDK."""
    makers = {"python": SdkProcess.python, "typescript": SdkProcess.typescript, "node": SdkProcess.node}
    return makers[language](tmp_path_factory.mktemp(language))
