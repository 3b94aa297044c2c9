"""A catalog beyond this machine: TLS and a token for people, a certificate on top of it for executors."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import grpc
import pytest

from maand_catalog.ids import new_api_token, new_id
from maand_catalog.rules.identity import Role, token_digest
from maand_catalog.service import RunningCatalog, start_catalog
from maand_catalog.store.tokens import create_token
from maand_contracts.catalog.v1 import run_pb2, run_pb2_grpc, token_pb2, token_pb2_grpc
from maand_wire.channels import HOOK_CALLER, bearer_header, open_channel
from maand_wire.endpoints import Endpoint, TlsFiles
from maand_wire.errors import RemoteError, remote_errors
from tests.contracts.catalog.serving import settings_for
from tests.testbed.authority import TestAuthority


@pytest.fixture
def authority(tmp_path: Path) -> TestAuthority:
    return TestAuthority(tmp_path / "ca")


@pytest.fixture
async def running(tmp_path: Path, sqlite_url: str, authority: TestAuthority) -> AsyncIterator[RunningCatalog]:
    tls = authority.files("catalog", "localhost", "127.0.0.1")
    settings = settings_for(tmp_path, listen="127.0.0.1:0", database_url=sqlite_url)
    catalog = await start_catalog(replace(settings, services_listen="127.0.0.1:0", tls=tls))
    yield catalog
    await catalog.stop()


async def token_file(catalog: RunningCatalog, role: Role, directory: Path) -> Path:
    """Make a token and keep it as services and people do: in a file."""
    secret, path = new_api_token(), directory / f"{role}.token"
    path.write_text(f"{secret}\n")
    await catalog.database.write(
        lambda tx: create_token(
            tx, token_id=new_id(), token_sha256=token_digest(secret), name=str(role), role=role, ttl=None, actor="test"
        )
    )
    return path


async def claim(endpoint: Endpoint) -> None:
    """Ask for work, as executors do."""
    async with open_channel(endpoint) as channel:
        with remote_errors():
            await run_pb2_grpc.RunServiceStub(channel).ClaimRun(
                run_pb2.ClaimRunRequest(executor_id="e", wait_seconds=0), timeout=5
            )


async def test_an_executor_with_token_and_certificate_may_claim(
    running: RunningCatalog, authority: TestAuthority, tmp_path: Path
) -> None:
    token = await token_file(running, Role.EXECUTOR, tmp_path)
    assert running.services_address
    await claim(Endpoint(address=running.services_address, tls=authority.files("executor"), token_file=token))


async def test_an_executors_token_without_its_certificate_is_worth_nothing(
    running: RunningCatalog, authority: TestAuthority, tmp_path: Path
) -> None:
    token = await token_file(running, Role.EXECUTOR, tmp_path)
    with pytest.raises(RemoteError) as caught:
        await claim(Endpoint(address=running.address, tls=TlsFiles(ca=authority.ca), token_file=token))
    assert (caught.value.status, caught.value.code) == (grpc.StatusCode.UNAUTHENTICATED, "certificate_needed")


async def test_a_certificate_alone_lets_nobody_in(running: RunningCatalog, authority: TestAuthority) -> None:
    assert running.services_address
    with pytest.raises(RemoteError, match="carries no API token") as caught:
        await claim(Endpoint(address=running.services_address, tls=authority.files("executor")))
    assert caught.value.status is grpc.StatusCode.UNAUTHENTICATED


async def test_people_need_a_token_and_no_certificate(running: RunningCatalog, authority: TestAuthority, tmp_path: Path) -> None:
    token = await token_file(running, Role.OPERATOR, tmp_path)
    async with open_channel(Endpoint(address=running.address, tls=TlsFiles(ca=authority.ca), token_file=token)) as channel:
        listed = await token_pb2_grpc.TokenServiceStub(channel).ListTokens(token_pb2.ListTokensRequest())
    assert [token.name for token in listed.tokens] == ["operator"]


async def test_a_channels_own_token_never_stands_in_for_a_hooks(
    running: RunningCatalog, authority: TestAuthority, tmp_path: Path
) -> None:
    token = await token_file(running, Role.OPERATOR, tmp_path)
    endpoint = Endpoint(address=running.address, tls=TlsFiles(ca=authority.ca), token_file=token)
    async with open_channel(endpoint) as channel:
        for metadata in ([HOOK_CALLER], [HOOK_CALLER, bearer_header("mh_" + "x" * 43)]):
            with pytest.raises(RemoteError) as caught, remote_errors():
                await token_pb2_grpc.TokenServiceStub(channel).ListTokens(token_pb2.ListTokensRequest(), metadata=metadata)
            assert caught.value.status is grpc.StatusCode.UNAUTHENTICATED
