"""Servers bind only what is safe; endpoints come from the environment; health and reflection answer."""

import asyncio
import stat
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from maand_wire import servers
from maand_wire.channels import make_channel_credentials
from maand_wire.endpoints import Endpoint, EndpointError, TlsFiles

SERVICE = "maand.catalog.v1.RunService"


async def test_health_and_reflection_answer_on_tcp() -> None:
    server = servers.make_server()
    health = servers.add_standard_services(server, [SERVICE])
    address = servers.bind_server(server, "127.0.0.1:0")
    await server.start()
    health.announce(ready=True)
    status, services = await asyncio.to_thread(ask, address)
    await server.stop(None)
    assert status == health_pb2.HealthCheckResponse.SERVING
    assert SERVICE in services


def ask(address: str) -> tuple[int, list[str]]:
    """Ask a server for its health and its services, as a stranger with a blocking client would."""
    with grpc.insecure_channel(address) as channel:
        check = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            health_pb2.HealthCheckRequest.SerializeToString,
            health_pb2.HealthCheckResponse.FromString,
        )
        database = ProtoReflectionDescriptorDatabase(channel)
        return check(health_pb2.HealthCheckRequest(service=SERVICE)).status, list(database.get_services())


async def test_a_unix_socket_is_for_its_user_only_and_replaces_a_stale_file(tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    path.write_text("stale")
    server = servers.make_server()
    servers.bind_server(server, f"unix:{path}")
    await server.start()
    mode = stat.S_IMODE(path.stat().st_mode)
    await server.stop(None)
    assert mode == 0o600


async def test_a_path_too_long_for_a_unix_socket_says_so(tmp_path: Path) -> None:
    with pytest.raises(EndpointError, match="too long for a unix socket"):
        servers.bind_server(servers.make_server(), f"unix:{tmp_path}/{'x' * 100}")


async def test_in_clear_only_loopback_is_bound() -> None:
    with pytest.raises(EndpointError, match="is not loopback: set MAAND_TLS_CERTIFICATE"):
        servers.bind_server(servers.make_server(), "0.0.0.0:0")


async def test_a_taken_port_is_an_error_that_names_it() -> None:
    first = servers.make_server()
    address = servers.bind_server(first, "127.0.0.1:0")
    await first.start()
    with pytest.raises(EndpointError, match=f"cannot listen on {address}"):
        servers.bind_server(servers.make_server(), address)
    await first.stop(None)


def test_an_endpoint_is_read_from_the_environment(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("ma_1\n")
    endpoint = Endpoint.from_environment(
        "CATALOG", {"MAAND_CATALOG_ADDRESS": "10.0.0.1:1,10.0.0.2:1", "MAAND_API_TOKEN_FILE": str(token)}
    )
    assert (endpoint.target(), endpoint.token(), endpoint.is_local) == ("ipv4:10.0.0.1:1,10.0.0.2:1", "ma_1", False)


@pytest.mark.parametrize("environment", [{}, {"MAAND_CATALOG_ADDRESS": ""}])
def test_a_missing_address_names_the_variable(environment: dict[str, str]) -> None:
    with pytest.raises(EndpointError, match="MAAND_CATALOG_ADDRESS is not set"):
        Endpoint.from_environment("CATALOG", environment)


def test_a_tls_file_that_is_not_there_names_its_variable(tmp_path: Path) -> None:
    with pytest.raises(EndpointError, match="MAAND_TLS_CA names"):
        TlsFiles.from_environment({"MAAND_TLS_CA": str(tmp_path / "no")})


def test_reaching_over_tcp_without_a_ca_says_what_to_set() -> None:
    with pytest.raises(EndpointError, match="set MAAND_TLS_CA"):
        make_channel_credentials(Endpoint(address="10.0.0.1:1"))
