"""Starting, describing and stopping the gateway."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic_core import from_json

from maand_runtime_gateway import upstream
from maand_runtime_gateway.errors import NotLoopback, PortTaken
from maand_runtime_gateway.service import start_gateway
from maand_runtime_gateway.settings import GatewaySettings
from maand_wire.endpoints import Endpoint, EndpointError
from tests.unit.gateway.conftest import ServedGateway, serve
from tests.unit.gateway.raw_http import RawClient

NOWHERE = Endpoint(address="unix:/nowhere/service.sock")


def settings(listen: str) -> GatewaySettings:
    return GatewaySettings(listen=listen, catalog=NOWHERE, executor=NOWHERE)


@pytest.mark.parametrize(
    "listen", ["0.0.0.0:0", "[::]:0", "10.0.0.1:8080", ":8080", "example.org:80", "127.0.0.1", "127.0.0.1:x", ""]
)
async def test_only_loopback_is_bound(listen: str) -> None:
    with pytest.raises(NotLoopback, match="loopback"):
        await start_gateway(settings(listen))


async def test_it_listens_on_loopback_and_nowhere_else(gateway: ServedGateway) -> None:
    port = int(gateway.address.rpartition(":")[2])
    others = [str(address[4][0]) for address in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)]

    for address in others:
        if address.startswith("127.0.0.1"):
            continue
        with socket.socket() as probe:
            assert probe.connect_ex((address, port)) != 0


async def test_a_taken_port_says_which_and_what_to_do(gateway: ServedGateway) -> None:
    with pytest.raises(PortTaken, match="MAAND_HOOK_API_LISTEN"):
        await start_gateway(settings(gateway.address))


async def test_stopping_closes_idle_connections_and_may_be_repeated() -> None:
    async with serve() as served:
        client = await RawClient.open(served.address)
        assert (await served.call("GET", "/demands")).status == 200

        await served.running.stop()

        assert await client.is_closed()
        client.close()
        with pytest.raises(ConnectionRefusedError):
            await RawClient.open(served.address)


async def test_health_says_whether_the_catalog_can_be_reached(gateway: ServedGateway) -> None:
    well = await gateway.call("GET", "/healthz", caller=None)
    await gateway.fakes.stop()
    ill = await gateway.call("GET", "/healthz", caller=None)

    assert (well.status, well.json()["status"], well.json()["catalog"]) == (200, "ok", "reachable")
    assert (ill.status, ill.json()["status"], ill.json()["catalog"]) == (503, "degraded", "unreachable")


async def test_requests_are_counted_by_route_and_never_by_what_was_asked_for(gateway: ServedGateway) -> None:
    await gateway.call("GET", "/demands")
    await gateway.call("GET", "/some/unknown/path")

    text = (await gateway.call("GET", "/metrics", caller=None)).body.decode()

    assert 'maand_hook_api_requests_total{method="GET",route="/demands",status="200"} 1.0' in text
    assert 'maand_hook_api_requests_total{method="other",route="other",status="404"} 1.0' in text
    assert "unknown" not in text


async def test_the_page_needs_nothing_from_elsewhere(gateway: ServedGateway) -> None:
    page = (await gateway.call("GET", "/docs", caller=None)).body.decode()

    assert "PUT /kv/secret" in page
    assert "<script" not in page
    assert "http://" not in page
    assert "https://" not in page


async def test_the_document_describes_every_route_with_its_fields_and_errors(gateway: ServedGateway) -> None:
    document = from_json((await gateway.call("GET", "/openapi.json", caller=None)).body)

    put = document["paths"]["/kv"]["put"]
    assert put["security"] == [{"hookToken": []}]
    assert set(put["responses"]) == {"200", "400", "401", "403", "408", "409", "413", "415", "500", "503", "504"}
    assert put["requestBody"]["content"]["application/json"]["schema"]["required"] == ["namespace", "key", "value"]
    get = document["paths"]["/kv"]["get"]
    assert {field["name"]: field["required"] for field in get["parameters"]} == {"namespace": True, "key": True, "version": False}


def test_the_gateway_presents_no_token_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    opened: list[Endpoint] = []
    monkeypatch.setattr(upstream, "open_channel", opened.append)
    token_file = tmp_path / "token"
    token_file.write_text("ma_gateway")

    upstream.open_hook_channel(Endpoint(address="catalog:7600", token_file=token_file))

    assert opened == [Endpoint(address="catalog:7600")]


def test_settings_come_from_the_environment() -> None:
    environment = {"MAAND_CATALOG_ADDRESS": "unix:/c", "MAAND_EXECUTOR_ADDRESS": "unix:/e"}

    read = GatewaySettings.from_environment(environment | {"MAAND_HOOK_API_LISTEN": "127.0.0.1:9"})

    assert (read.listen, read.catalog.address, read.executor.address) == ("127.0.0.1:9", "unix:/c", "unix:/e")
    assert GatewaySettings.from_environment(environment).listen == "127.0.0.1:8080"
    with pytest.raises(EndpointError, match="MAAND_CATALOG_ADDRESS"):
        GatewaySettings.from_environment({})


def test_it_imports_neither_a_database_nor_ssh() -> None:
    script = "import sys, maand_runtime_gateway.__main__; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()

    loaded = {name.partition(".")[0] for name in modules}
    assert not loaded & {"sqlalchemy", "asyncssh", "sqlite3", "psycopg", "alembic", "jinja2"}
    assert not {name for name in loaded if name.startswith("maand_")} - {"maand_runtime_gateway", "maand_contracts", "maand_wire"}


def test_the_program_says_what_is_missing_and_ends_with_3() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "maand_runtime_gateway"], capture_output=True, text=True, env={"PATH": "/usr/bin"}, check=False
    )

    assert ended.returncode == 3
    assert ended.stderr.startswith("error: MAAND_CATALOG_ADDRESS is not set")
