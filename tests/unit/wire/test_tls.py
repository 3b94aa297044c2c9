"""TLS with real certificates: who gets through, what the others are told, new files without a restart."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2

from maand_wire import servers
from maand_wire.certificates import CertificateExpired, CertificateNotYetValid, UnusableCertificate
from maand_wire.channels import open_channel
from maand_wire.endpoints import Endpoint, EndpointError, TlsFiles
from maand_wire.errors import RemoteError, remote_errors
from tests.testbed.authority import DAY, TestAuthority

HERE = ("localhost", "127.0.0.1")

CLOSED = ("connection_closed", "unavailable")
"""TLS 1.3 servers judge a client after it believes to be connected: it then sees no more than an end, sooner or later."""


@pytest.fixture
def authority(tmp_path: Path) -> TestAuthority:
    return TestAuthority(tmp_path / "ours")


@asynccontextmanager
async def serving(tls: TlsFiles, *, mutual: bool = False) -> AsyncIterator[str]:
    server = servers.make_server()
    health = servers.add_standard_services(server, [])
    address = servers.bind_server(server, "127.0.0.1:0", tls, mutual=mutual)
    await server.start()
    health.announce(ready=True)
    yield address
    await server.stop(None)


async def ask(endpoint: Endpoint) -> int:
    """Ask for the server's health, as any client of maand would."""
    async with open_channel(endpoint) as channel:
        check: Callable[..., Awaitable[health_pb2.HealthCheckResponse]] = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            health_pb2.HealthCheckRequest.SerializeToString,
            health_pb2.HealthCheckResponse.FromString,
        )
        with remote_errors():
            return (await check(health_pb2.HealthCheckRequest(), timeout=5)).status


async def refusal(endpoint: Endpoint) -> RemoteError:
    """Ask and return why it did not work."""
    with pytest.raises(RemoteError) as caught:
        await ask(endpoint)
    assert caught.value.status is grpc.StatusCode.UNAVAILABLE
    return caught.value


def only_ca(authority: TestAuthority) -> TlsFiles:
    return TlsFiles(ca=authority.ca)


async def test_with_the_right_ca_a_client_gets_through(authority: TestAuthority) -> None:
    async with serving(authority.files("server", *HERE)) as address:
        assert await ask(Endpoint(address=address, tls=only_ca(authority))) == health_pb2.HealthCheckResponse.SERVING


async def test_a_list_of_addresses_is_dialled_by_the_name_of_the_first(authority: TestAuthority) -> None:
    tls = authority.files("server", *HERE)
    async with serving(tls) as one, serving(tls) as two:
        both = Endpoint(address=f"{one},{two}".replace("127.0.0.1", "localhost"), tls=only_ca(authority))
        assert (both.server_name, both.target()) == ("localhost", f"ipv4:{one},{two}")
        assert await ask(both) == health_pb2.HealthCheckResponse.SERVING


async def test_when_one_of_several_servers_is_down_the_other_answers(authority: TestAuthority) -> None:
    tls = authority.files("server", *HERE)
    async with serving(tls) as gone:
        pass
    async with serving(tls) as there:
        for _ in range(4):
            assert await ask(Endpoint(address=f"{gone},{there}", tls=only_ca(authority)))


async def test_a_server_whose_ca_is_not_trusted_is_refused_in_words(authority: TestAuthority, tmp_path: Path) -> None:
    stranger = TestAuthority(tmp_path / "stranger")
    async with serving(stranger.files("server", *HERE)) as address:
        error = await refusal(Endpoint(address=address, tls=only_ca(authority)))
    assert (error.code, "not signed by the CA" in error.message) == ("server_certificate_untrusted", True)


async def test_a_server_whose_certificate_expired_is_refused_in_words(authority: TestAuthority) -> None:
    async with serving(authority.files("server", *HERE, lives=(-2 * DAY, -DAY))) as address:
        error = await refusal(Endpoint(address=address, tls=only_ca(authority)))
    assert (error.code, error.message) == ("server_certificate_expired", "the server's certificate has expired")


async def test_a_server_that_is_somebody_else_is_refused_in_words(authority: TestAuthority) -> None:
    async with serving(authority.files("server", "elsewhere")) as address:
        error = await refusal(Endpoint(address=address, tls=only_ca(authority)))
    assert error.code == "server_certificate_wrong_name"


async def test_where_certificates_are_needed_a_client_with_one_gets_through(authority: TestAuthority) -> None:
    async with serving(authority.files("server", *HERE), mutual=True) as address:
        assert await ask(Endpoint(address=address, tls=authority.files("client")))


async def test_where_certificates_are_needed_nobody_else_gets_through(authority: TestAuthority, tmp_path: Path) -> None:
    stranger = replace(TestAuthority(tmp_path / "stranger").files("client"), ca=authority.ca)
    async with serving(authority.files("server", *HERE), mutual=True) as address:
        for tls in (only_ca(authority), stranger):
            assert (await refusal(Endpoint(address=address, tls=tls))).code in CLOSED


async def test_the_server_itself_refuses_an_expired_client_certificate(
    authority: TestAuthority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("maand_wire.channels.check_own_certificate", lambda tls: None)
    expired = authority.files("client", lives=(-2 * DAY, -DAY))
    async with serving(authority.files("server", *HERE), mutual=True) as address:
        assert (await refusal(Endpoint(address=address, tls=expired))).code in CLOSED


@pytest.mark.parametrize(
    ("lives", "kind", "words"),
    [((-2 * DAY, -DAY), CertificateExpired, "expired on"), ((DAY, 2 * DAY), CertificateNotYetValid, "valid from")],
)
def test_a_certificate_of_ones_own_that_cannot_work_is_not_even_shown(
    authority: TestAuthority, lives: tuple[object, object], kind: type[Exception], words: str
) -> None:
    tls = authority.files("client", lives=lives)  # type: ignore[arg-type]  # two timedeltas
    with pytest.raises(kind, match=words):
        open_channel(Endpoint(address="127.0.0.1:1", tls=tls))


def test_a_certificate_that_is_none_or_lacks_its_key_says_so(authority: TestAuthority) -> None:
    tls = authority.files("client")
    with pytest.raises(UnusableCertificate, match="set MAAND_TLS_KEY"):
        open_channel(Endpoint(address="127.0.0.1:1", tls=replace(tls, key=None)))
    with pytest.raises(UnusableCertificate, match="holds no certificate"):
        open_channel(Endpoint(address="127.0.0.1:1", tls=replace(tls, certificate=tls.key)))


def test_a_token_file_that_is_not_there_is_named(authority: TestAuthority, tmp_path: Path) -> None:
    with pytest.raises(EndpointError, match=r"cannot be read from .*no-token"):
        open_channel(Endpoint(address="127.0.0.1:1", tls=only_ca(authority), token_file=tmp_path / "no-token"))


async def test_a_server_takes_a_renewed_certificate_without_a_restart(authority: TestAuthority) -> None:
    async with serving(authority.files("server", *HERE, lives=(-2 * DAY, -DAY))) as address:
        endpoint = Endpoint(address=address, tls=only_ca(authority))
        assert (await refusal(endpoint)).code == "server_certificate_expired"
        authority.files("server", *HERE)
        assert await ask(endpoint)


async def test_serving_with_client_certificates_needs_a_ca(authority: TestAuthority) -> None:
    with pytest.raises(EndpointError, match="MAAND_TLS_CA, which is not set"):
        servers.bind_server(servers.make_server(), "127.0.0.1:0", replace(authority.files("s"), ca=None), mutual=True)
