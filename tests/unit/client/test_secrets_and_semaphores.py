"""Secrets are read by those who may and never printed; semaphores are held by hooks and watched over by operators."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import grpc
import pytest

from maand_catalog.rules.identity import Role
from maand_client import Client, connect
from maand_client.errors import FailedPrecondition, LostRace, NotFound, PermissionDenied, TimedOut
from maand_contracts.catalog.v1 import semaphore_pb2 as pb
from maand_contracts.catalog.v1.semaphore_pb2_grpc import SemaphoreServiceServicer, add_SemaphoreServiceServicer_to_server
from maand_wire import servers
from tests.contracts.catalog.hook_callers import Hook, a_running_hook
from tests.unit.client.conftest import Bed
from tests.waiting import until

VALUE = "correct horse battery staple"


@pytest.fixture
async def maand(bed: Bed) -> AsyncIterator[Client]:
    async with await bed.remote() as client:
        yield client


async def until_somebody_waits(maand: Client) -> None:
    async def somebody_waits() -> bool:
        return bool((await maand.semaphores.status("", "", "ddl")).waiters)

    await until(somebody_waits)


def token_of(hook: Hook) -> str:
    return hook.metadata[0][1].removeprefix("Bearer ")


async def test_an_operator_writes_and_reveals_a_secret_that_is_never_printed(maand: Client) -> None:
    assert await maand.secrets.put("api", "password", VALUE, if_absent=True) == 1
    secret = await maand.secrets.reveal("api", "password")
    assert (secret.value, secret.version) == (VALUE, 1)
    assert (repr(secret), f"{secret}") == ("Secret(value='***', version=1)",) * 2
    with pytest.raises(PermissionDenied):
        await maand.kv.get("secrets/job/api", "password")
    with pytest.raises(LostRace):
        await maand.secrets.put("api", "password", "other", if_version=7)


async def test_secrets_are_described_without_their_values_and_deleted(maand: Client) -> None:
    await maand.secrets.put("api", "password", VALUE, ttl=timedelta(hours=1))
    (info,) = await maand.secrets.infos("api")
    assert (info.key, info.version, VALUE in str(info)) == ("password", 1, False)
    assert await maand.secrets.delete("api", "password") == 2
    with pytest.raises(NotFound):
        await maand.secrets.reveal("api", "password")


async def test_a_viewer_reveals_nothing(bed: Bed, maand: Client) -> None:
    await maand.secrets.put("api", "password", VALUE)
    async with await bed.remote(Role.VIEWER) as viewer:
        with pytest.raises(PermissionDenied):
            await viewer.secrets.reveal("api", "password")


async def test_a_hook_reads_the_secrets_of_its_own_job(bed: Bed, maand: Client) -> None:
    await maand.secrets.put("api", "password", VALUE)
    await maand.secrets.put("web", "password", VALUE)
    async with bed.local(token=token_of(await a_running_hook(bed.database, bed.bucket_id))) as hook:
        assert (await hook.secrets.read("api", "password")).value == VALUE
        with pytest.raises(PermissionDenied):
            await hook.secrets.read("web", "password")


async def test_a_hook_holds_a_slot_while_the_block_runs_and_operators_see_it(bed: Bed, maand: Client) -> None:
    one = await a_running_hook(bed.database, bed.bucket_id)
    async with bed.local(token=token_of(one)) as hook:
        async with hook.semaphores.held("ddl") as grant:
            held = await maand.semaphores.status("api", "pre_deploy", "ddl")
            assert (held.available, held.holders[0].fencing_token) == (0, grant.fencing_token)
            assert held.holders[0].allocation_id == grant.allocation_id == one.allocation_id
            assert [semaphore.name for semaphore in await maand.semaphores.in_use()] == ["ddl"]
        assert (await hook.semaphores.status("", "", "ddl")).available == 1
    assert await maand.semaphores.in_use() == ()


async def test_the_next_hook_gets_the_slot_with_a_larger_fencing_token(bed: Bed) -> None:
    one = await a_running_hook(bed.database, bed.bucket_id)
    two = await a_running_hook(bed.database, bed.bucket_id, worker="10.0.0.2")
    async with bed.local(token=token_of(one)) as first, bed.local(token=token_of(two)) as second:

        async def hold() -> int:
            async with second.semaphores.held("ddl") as grant:
                return grant.fencing_token

        async with first.semaphores.held("ddl") as grant:
            waiting = asyncio.create_task(hold())
            await until_somebody_waits(first)
            with pytest.raises(FailedPrecondition):
                async with second.semaphores.held("ddl", capacity=2):
                    pass
        assert await waiting > grant.fencing_token


async def test_a_slot_that_is_not_granted_in_time_is_a_time_out(bed: Bed) -> None:
    one = await a_running_hook(bed.database, bed.bucket_id)
    two = await a_running_hook(bed.database, bed.bucket_id, worker="10.0.0.2")
    async with bed.local(token=token_of(one)) as first, bed.local(token=token_of(two)) as second:
        async with first.semaphores.held("ddl"):
            with pytest.raises(TimedOut):
                async with second.semaphores.held("ddl", wait=timedelta(milliseconds=1)):
                    pass


async def test_whose_slot_was_taken_away_is_told_after_the_block(bed: Bed, maand: Client) -> None:
    one = await a_running_hook(bed.database, bed.bucket_id)
    async with bed.local(token=token_of(one)) as hook:
        with pytest.raises(FailedPrecondition):
            async with hook.semaphores.held("ddl"):
                await maand.semaphores.force_release("api", "pre_deploy", "ddl")


class AnswersGetLost:
    """As much of a SemaphoreService as this test calls: it releases at the first call, but the answer does not arrive."""

    def __init__(self) -> None:
        self.releases = 0

    def __getattr__(self, name: str) -> None:
        """Every other method is missing."""

    async def Acquire(self, request: pb.AcquireRequest, context: Any) -> pb.AcquireResponse:
        return pb.AcquireResponse(fencing_token=1, capacity=1)

    async def Release(self, request: pb.ReleaseRequest, context: Any) -> None:
        self.releases += 1
        lost, held_none = grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.FAILED_PRECONDITION
        await context.abort(lost if self.releases == 1 else held_none, "")


async def test_a_slot_whose_release_was_answered_into_nowhere_counts_as_released(tmp_path: Path) -> None:
    server, service = servers.make_server(), AnswersGetLost()
    add_SemaphoreServiceServicer_to_server(cast("SemaphoreServiceServicer", service), server)
    address = servers.bind_server(server, f"unix:{tmp_path}/s")
    await server.start()
    async with connect(address) as hook, hook.semaphores.held("ddl"):
        pass
    await server.stop(None)
    assert service.releases == 2


class RestartsWhileOneWaits:
    """As much of a SemaphoreService as this test calls: it goes away under a call that waits, so many times."""

    def __init__(self, *, restarts: int, served: timedelta) -> None:
        self.left, self._served = restarts, served
        self.requests: list[str] = []

    def __getattr__(self, name: str) -> None:
        """Every other method is missing."""

    async def Acquire(self, request: pb.AcquireRequest, context: Any) -> pb.AcquireResponse:
        self.requests.append(request.request_id)
        if self.left:
            self.left -= 1
            await asyncio.sleep(self._served.total_seconds())
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the catalog stops")
        return pb.AcquireResponse(fencing_token=7, capacity=1)

    async def Release(self, request: pb.ReleaseRequest, context: Any) -> pb.ReleaseResponse:
        return pb.ReleaseResponse()


@pytest.mark.parametrize("restarts", [1, 3])
async def test_who_waited_longer_than_patience_lasts_keeps_its_place_through_restarts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, restarts: int
) -> None:
    patience, served = timedelta(milliseconds=300), timedelta(milliseconds=600)
    monkeypatch.setattr("maand_client.calls.SERVED", patience)
    server, service = servers.make_server(), RestartsWhileOneWaits(restarts=restarts, served=served)
    add_SemaphoreServiceServicer_to_server(cast("SemaphoreServiceServicer", service), server)
    address = servers.bind_server(server, f"unix:{tmp_path}/s")
    await server.start()
    async with connect(address, patience=patience) as hook, hook.semaphores.held("ddl") as grant:
        assert grant.fencing_token == 7
    await server.stop(None)
    assert (len(service.requests), len(set(service.requests))) == (restarts + 1, 1)


async def test_a_caller_that_is_no_hook_holds_nothing(maand: Client) -> None:
    with pytest.raises(PermissionDenied, match="only a running hook"):
        async with maand.semaphores.held("ddl"):
            pass
