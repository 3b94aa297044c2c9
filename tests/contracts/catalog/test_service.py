"""The catalog as a service and as a process: complete, reflected, healthy, measured; its command line."""

import asyncio
import base64
import os
import signal
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import grpc
import pytest

from maand_catalog import errors
from maand_catalog.database.database import Database
from maand_catalog.errors import CatalogError
from maand_catalog.rpc.services import CONTRACTS, SERVICE_NAMES, STATUS_BY_ERROR
from maand_catalog.sealing.keyring import BadKeyFile
from maand_catalog.service import start_catalog
from maand_contracts.catalog.v1 import token_pb2, token_pb2_grpc
from maand_wire.channels import OPTIONS, bearer_header
from maand_wire.endpoints import EndpointError
from maand_wire.errors import RemoteError, remote_errors
from tests.contracts.catalog.run_builders import HEALTH, a_bucket, a_create
from tests.contracts.catalog.run_verbs import claim_within, create, finish, must_claim, watch
from tests.contracts.catalog.serving import ServedCatalog, serve, settings_for

METHODS = [
    f"/{service.full_name}/{method.name}"
    for module in CONTRACTS
    for service in module.DESCRIPTOR.services_by_name.values()
    for method in service.methods
]


def test_every_service_of_the_contracts_is_served() -> None:
    contracts = Path(sys.modules["maand_contracts.catalog.v1.run_pb2"].__file__ or "").parent
    assert len(SERVICE_NAMES) == len(list(contracts.glob("*_pb2_grpc.py")))


@pytest.mark.parametrize("method", METHODS)
async def test_every_rpc_is_implemented(catalog: ServedCatalog, method: str) -> None:
    """An empty request is answered or refused for what it lacks; never UNIMPLEMENTED, never INTERNAL."""
    status = await knock(catalog, method)
    assert status not in (grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN)


async def knock(catalog: ServedCatalog, method: str) -> grpc.StatusCode:
    """Call a method with an empty message; a call that blocks (a long poll, a watch) counts as answered."""
    call = catalog.local.channel.stream_stream(method, request_serializer=bytes, response_deserializer=bytes)(
        iter([b""]), timeout=0.5
    )
    try:
        async for _ in call:
            break
    except grpc.RpcError as error:
        return grpc.StatusCode[error.code().name]
    finally:
        call.cancel()
    return grpc.StatusCode.OK


def test_every_error_has_a_status_a_code_and_a_remedy() -> None:
    for kind in every_subclass(CatalogError):
        assert any(base in STATUS_BY_ERROR for base in kind.__mro__), kind
        assert kind.code.islower(), kind
        assert kind.__doc__, kind


def every_subclass(kind: type[CatalogError]) -> list[type[CatalogError]]:
    return [each for child in kind.__subclasses__() for each in (child, *every_subclass(child))]


def test_the_tree_drawn_in_errors_is_the_tree() -> None:
    drawn = errors.__doc__ or ""
    own = [kind for kind in every_subclass(CatalogError) if kind.__module__ == errors.__name__]
    assert all(kind.__name__ in drawn for kind in own)


async def test_activity_counts_calls_and_open_streams_but_not_waiting_executors(catalog: ServedCatalog) -> None:
    running = catalog.running
    bucket = await a_bucket(catalog.database)
    await create(catalog, a_create(bucket, HEALTH))
    called_at = running.last_call_at
    run = await must_claim(catalog)
    assert running.last_call_at == called_at, "a claim is no activity"
    stream = watch(catalog, run)
    watching = asyncio.create_task(drain(stream))
    await until(lambda: running.open_streams == 1)
    await finish(catalog, run)
    assert await watching == 1
    await until(lambda: running.open_streams == 0)
    assert called_at < running.last_call_at <= time.monotonic()


async def drain(stream: AsyncIterator[object]) -> int:
    return len([event async for event in stream])


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - a counter tells nobody that it changed
            await asyncio.sleep(0.01)


async def test_who_waits_is_told_at_once_when_the_catalog_stops(database: Database, tmp_path: Path) -> None:
    async with serve(database, tmp_path, stop_grace=timedelta(seconds=30)) as catalog:
        await create(catalog, a_create(await a_bucket(database), HEALTH))
        run = await must_claim(catalog)
        watching = asyncio.create_task(drain(watch(catalog, run)))
        claiming = asyncio.create_task(claim_within(catalog, seconds=60))
        await until(lambda: catalog.running.open_streams == 1)
        async with asyncio.timeout(5):
            await catalog.running.stop()
        for waiting in (watching, claiming):
            with pytest.raises(RemoteError) as caught:
                await waiting
            assert caught.value.is_temporary


async def test_metrics_count_calls_by_status(sqlite_url: str, tmp_path: Path) -> None:
    settings = settings_for(tmp_path, listen="127.0.0.1:0", database_url=sqlite_url)
    catalog = await start_catalog(replace(settings, metrics_listen="127.0.0.1:0"))
    channel = grpc.aio.insecure_channel(catalog.address, options=OPTIONS)
    with pytest.raises(RemoteError), remote_errors():
        await token_pb2_grpc.TokenServiceStub(channel).ListTokens(token_pb2.ListTokensRequest())
    page = await asyncio.to_thread(read, f"http://{catalog.metrics_address}/metrics")
    await channel.close()
    await catalog.stop()
    method = "/maand.catalog.v1.TokenService/ListTokens"
    assert f'maand_catalog_calls_total{{method="{method}",status="UNAUTHENTICATED"}} 1.0' in page
    assert f'maand_catalog_call_seconds_count{{method="{method}"}} 1.0' in page


def read(url: str) -> str:
    with urllib.request.urlopen(url, timeout=5) as response:
        return str(response.read().decode())


async def test_a_catalog_in_clear_is_bound_to_loopback_only(sqlite_url: str, tmp_path: Path) -> None:
    with pytest.raises(EndpointError, match="is not loopback"):
        await start_catalog(settings_for(tmp_path, listen="0.0.0.0:0", database_url=sqlite_url))
    again = await start_catalog(settings_for(tmp_path, listen="127.0.0.1:0", database_url=sqlite_url))
    await again.stop()


async def test_a_catalog_without_a_usable_key_does_not_start_and_lets_go_of_the_database(sqlite_url: str, tmp_path: Path) -> None:
    settings = settings_for(tmp_path, listen="127.0.0.1:0", database_url=sqlite_url)
    settings.kv_key_file.chmod(0o644)
    with pytest.raises(BadKeyFile, match="may be read by others"):
        await start_catalog(settings)
    settings.kv_key_file.chmod(0o600)
    await (await start_catalog(settings)).stop()


# -- the process ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "kv.key").write_text(f"k1:{base64.urlsafe_b64encode(bytes(32)).decode()}\n")
    (tmp_path / "kv.key").chmod(0o600)
    return {
        **os.environ,
        "MAAND_DATABASE_URL": f"sqlite:///{tmp_path}/maand.db",
        "MAAND_KV_KEY_FILE": f"{tmp_path}/kv.key",
        "MAAND_CA_DIR": str(tmp_path),
        "MAAND_CATALOG_LISTEN": "127.0.0.1:0",
    }


async def command(environment: dict[str, str], *arguments: str) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "maand_catalog",
        *arguments,
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, complaints = await process.communicate()
    return process.returncode or 0, output.decode(), complaints.decode()


async def test_the_first_token_is_made_on_the_command_line_and_works_over_tcp(environment: dict[str, str]) -> None:
    code, output, complaints = await command(environment, "token", "create", "--role", "operator", "--name", "me")
    assert (code, complaints) == (0, "")
    async with serving(environment) as address:
        channel = grpc.aio.insecure_channel(address, options=OPTIONS)
        listed = await token_pb2_grpc.TokenServiceStub(channel).ListTokens(
            token_pb2.ListTokensRequest(), metadata=[bearer_header(output.strip())]
        )
        await channel.close()
    assert [(token.name, token.role) for token in listed.tokens] == [("me", token_pb2.ROLE_OPERATOR)]


async def test_tokens_are_listed_and_revoked_on_the_command_line(environment: dict[str, str]) -> None:
    secret = (await command(environment, "token", "create", "--role", "viewer", "--name", "board", "--ttl-days", "3"))[1].strip()
    code, output, _ = await command(environment, "token", "list")
    token_id, role, name, *state = output.split()
    assert (code, role, name, state[:2]) == (0, "viewer", "board", ["valid", "until"])
    assert secret not in output
    assert [(await command(environment, "token", "revoke", token_id))[0] for _ in range(2)] == [0, 0]
    assert "revoked on" in (await command(environment, "token", "list"))[1]
    code, _, complaints = await command(environment, "token", "revoke", "nobody")
    assert (code, complaints) == (1, "error: there is no token nobody\n  help: list the tokens to see their ids\n")


async def test_migrating_is_a_command_that_may_be_repeated(environment: dict[str, str]) -> None:
    assert [(await command(environment, "migrate"))[0] for _ in range(2)] == [0, 0]


async def test_a_missing_setting_is_named_with_an_example(environment: dict[str, str]) -> None:
    del environment["MAAND_KV_KEY_FILE"]
    code, _, complaints = await command(environment)
    assert code == 1
    assert (
        complaints == "error: MAAND_KV_KEY_FILE is not set\n  help: set it, for example MAAND_KV_KEY_FILE=/run/secrets/kv.key\n"
    )


async def test_a_second_catalog_on_a_sqlite_database_says_who_has_it(environment: dict[str, str]) -> None:
    async with serving(environment):
        code, _, complaints = await command(environment, "migrate")
    assert code == 1
    assert "is open in process" in complaints
    assert "Traceback" not in complaints


class serving:  # noqa: N801 - reads as what it does
    """A catalog process that serves; ends by SIGTERM."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._environment = environment

    async def __aenter__(self) -> str:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "maand_catalog", env=self._environment, stderr=asyncio.subprocess.PIPE
        )
        assert self._process.stderr is not None
        async for line in self._process.stderr:
            fields = dict(field.partition("=")[::2] for field in line.decode().split())
            if "address" in fields:
                return fields["address"].strip("'")
        raise AssertionError("the catalog ended before it served")

    async def __aexit__(self, *_: object) -> None:
        self._process.send_signal(signal.SIGTERM)
        await self._process.communicate()
        assert self._process.returncode == 0
