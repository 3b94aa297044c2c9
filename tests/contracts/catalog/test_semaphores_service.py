"""SemaphoreService over real gRPC: scope by token, callers that go away, operators."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random
from typing import Any

import grpc
import pytest

from maand_catalog.database.database import Database
from maand_catalog.rules.identity import Role
from maand_contracts.catalog.v1 import invocation_pb2, job_pb2, token_pb2
from maand_contracts.catalog.v1 import semaphore_pb2 as pb
from maand_contracts.catalog.v1.semaphore_pb2_grpc import SemaphoreServiceStub
from maand_contracts.catalog.v1.token_pb2_grpc import TokenServiceStub
from maand_wire.errors import RemoteError, remote_errors
from tests.contracts.catalog.conftest import OpenReplica
from tests.contracts.catalog.hook_callers import Hook, Metadata, a_running_hook
from tests.contracts.catalog.run_builders import a_bucket
from tests.contracts.catalog.serving import ServedCatalog, serve

Status = grpc.StatusCode

PRE_DEPLOY = job_pb2.HOOK_EVENT_PRE_DEPLOY


class Semaphores:
    """The service in short words; errors arrive as RemoteError."""

    def __init__(self, catalog: ServedCatalog, bucket_id: str) -> None:
        self.catalog = catalog
        self.bucket_id = bucket_id
        self.stub = SemaphoreServiceStub(catalog.local.channel)

    async def call(self, method: str, who: Metadata | None = None, **fields: Any) -> Any:
        request = getattr(pb, f"{method}Request")(**fields)
        with remote_errors():
            return await getattr(self.stub, method)(request, metadata=who or [])

    async def acquire(self, hook: Hook, **fields: Any) -> pb.AcquireResponse:
        response: pb.AcquireResponse = await self.call("Acquire", hook.metadata, **{"name": "ddl", **fields})
        return response

    async def status(self, **fields: Any) -> pb.Semaphore:
        named = {"bucket_id": self.bucket_id, "job": "api", "event": PRE_DEPLOY, "name": "ddl"}
        semaphore: pb.Semaphore = (await self.call("GetStatus", **{**named, **fields})).semaphore
        return semaphore

    async def waiting(self, count: int) -> None:
        async with asyncio.timeout(20):
            while len((await self.status()).waiters) != count:  # noqa: ASYNC110 - what is waited for is in the database
                await asyncio.sleep(0.01)

    async def hook(self, worker: str, **more: str) -> Hook:
        return await a_running_hook(self.catalog.database, self.bucket_id, worker=worker, **more)


@pytest.fixture
async def semaphores(database: Database, tmp_path: Path) -> AsyncIterator[Semaphores]:
    async with serve(database, tmp_path) as catalog:
        yield Semaphores(catalog, await a_bucket(database))


async def refused(attempt: Any) -> RemoteError:
    with pytest.raises(RemoteError) as caught:
        await attempt
    return caught.value


async def test_a_hook_acquires_and_releases(semaphores: Semaphores) -> None:
    hook = await semaphores.hook("10.0.0.1")

    granted = await semaphores.acquire(hook, capacity=2)
    held = await semaphores.status()
    await semaphores.call("Release", hook.metadata, name="ddl")

    assert (granted.fencing_token, granted.capacity, granted.allocation_id) == (1, 2, hook.allocation_id)
    assert (held.capacity, held.available, len(held.waiters)) == (2, 1, 0)
    assert (held.holders[0].allocation_id, held.holders[0].worker) == (hook.allocation_id, "10.0.0.1")
    assert (held.holders[0].fencing_token, held.holders[0].invocation_id) == (1, hook.invocation_id)
    assert (await semaphores.status()).available == 2
    error = await refused(semaphores.call("Release", hook.metadata, name="ddl"))
    assert (error.status, error.code) == (Status.FAILED_PRECONDITION, "semaphore_not_held")


async def test_jobs_and_events_have_semaphores_of_their_own(semaphores: Semaphores) -> None:
    hooks = [
        await semaphores.hook("10.0.0.1"),
        await semaphores.hook("10.0.0.2", job="web"),
        await semaphores.hook("10.0.0.3", event="post_deploy"),
    ]

    tokens = [(await semaphores.acquire(hook, timeout_seconds=1)).fencing_token for hook in hooks]

    assert tokens == [1, 1, 1]
    listed = await semaphores.call("ListSemaphores", bucket_id=semaphores.bucket_id)
    assert [(each.job, each.event, each.name) for each in listed.semaphores] == [
        ("api", job_pb2.HOOK_EVENT_POST_DEPLOY, "ddl"),
        ("api", PRE_DEPLOY, "ddl"),
        ("web", PRE_DEPLOY, "ddl"),
    ]


async def test_a_timeout_is_told_apart(semaphores: Semaphores) -> None:
    one, two = await semaphores.hook("10.0.0.1"), await semaphores.hook("10.0.0.2")
    await semaphores.acquire(one)

    error = await refused(semaphores.acquire(two, timeout_seconds=1))

    assert (error.status, error.code) == (Status.DEADLINE_EXCEEDED, "semaphore_timeout")
    assert not (await semaphores.status()).waiters


async def test_another_capacity_is_refused_with_the_one_in_force(semaphores: Semaphores) -> None:
    one, two = await semaphores.hook("10.0.0.1"), await semaphores.hook("10.0.0.2")
    await semaphores.acquire(one, capacity=2)

    error = await refused(semaphores.acquire(two, capacity=1))

    assert (error.status, error.code, error.facts) == (Status.FAILED_PRECONDITION, "semaphore_capacity", {"capacity": "2"})


@pytest.mark.parametrize("how", ["cancel", "deadline", "channel"])
async def test_a_caller_that_goes_away_leaves_the_line_at_once(semaphores: Semaphores, how: str) -> None:
    one, two, three = [await semaphores.hook(f"10.0.0.{number}") for number in (1, 2, 3)]
    await semaphores.acquire(one)
    own = semaphores.catalog.anonymous()
    call = SemaphoreServiceStub(own.channel).Acquire(
        pb.AcquireRequest(name="ddl"), metadata=two.metadata, timeout=1 if how == "deadline" else None
    )
    gone = asyncio.create_task(asyncio.wait([asyncio.ensure_future(call_result(call))]))
    await semaphores.waiting(1)

    if how == "cancel":
        call.cancel()
    elif how == "channel":
        await own.channel.close()
    await gone
    await semaphores.waiting(0)

    waiter = asyncio.create_task(semaphores.acquire(three))
    await semaphores.waiting(1)
    await semaphores.call("Release", one.metadata, name="ddl")
    assert (await waiter).allocation_id == three.allocation_id


async def call_result(call: Any) -> str:
    try:
        await call
    except (grpc.aio.AioRpcError, asyncio.CancelledError) as error:
        return str(error)
    return "granted"


async def test_the_end_of_an_invocation_frees_its_slot(semaphores: Semaphores) -> None:
    one, two = await semaphores.hook("10.0.0.1"), await semaphores.hook("10.0.0.2")
    await semaphores.acquire(one)
    waiter = asyncio.create_task(semaphores.acquire(two))
    await semaphores.waiting(1)

    end = invocation_pb2.InvocationEnd(invocation_id=one.invocation_id, outcome=invocation_pb2.INVOCATION_OUTCOME_FAILED)
    request = invocation_pb2.EndInvocationsRequest(bucket_id=semaphores.bucket_id, invocations=[end])
    await semaphores.catalog.local.invocations.EndInvocations(request)

    assert (await waiter).fencing_token == 2


async def test_an_operator_takes_a_slot_away_and_is_audited(semaphores: Semaphores) -> None:
    one, two = await semaphores.hook("10.0.0.1"), await semaphores.hook("10.0.0.2")
    await semaphores.acquire(one)
    waiter = asyncio.create_task(semaphores.acquire(two))
    await semaphores.waiting(1)
    scope: dict[str, Any] = {
        "bucket_id": semaphores.bucket_id,
        "job": "api",
        "event": PRE_DEPLOY,
        "name": "ddl",
    }
    viewer = list(await semaphores.catalog.token_for(Role.VIEWER))
    for who in (viewer, one.metadata):
        assert (await refused(semaphores.call("ForceRelease", who, **scope))).status is Status.PERMISSION_DENIED

    taken = await semaphores.call("ForceRelease", **scope, allocation_id=one.allocation_id)

    assert [claim.invocation_id for claim in taken.released] == [one.invocation_id]
    assert (await waiter).fencing_token == 2
    audit = await TokenServiceStub(semaphores.catalog.local.channel).ListAuditRecords(
        token_pb2.ListAuditRecordsRequest(bucket_id=semaphores.bucket_id)
    )
    assert [record.action for record in audit.records] == ["semaphore.force_release"]
    assert "10.0.0.1" in audit.records[0].subject


async def test_a_hook_looks_at_its_own_semaphores_only(semaphores: Semaphores) -> None:
    hook = await semaphores.hook("10.0.0.1")

    own = (await semaphores.call("GetStatus", hook.metadata, name="ddl")).semaphore
    claims: list[dict[str, Any]] = [
        {"job": "web"},
        {"event": job_pb2.HOOK_EVENT_CLI},
        {"bucket_id": await a_bucket(semaphores.catalog.database)},
    ]
    for claimed in claims:
        error = await refused(semaphores.call("GetStatus", hook.metadata, name="ddl", **claimed))
        assert error.code == "identity_mismatch"

    assert (own.job, own.event, own.name, own.capacity, own.available) == ("api", PRE_DEPLOY, "ddl", 1, 1)


BAD: list[tuple[str, dict[str, Any]]] = [
    ("Acquire", {"name": ""}),
    ("Acquire", {"name": "a\nb"}),
    ("Acquire", {"name": "x" * 129}),
    ("Acquire", {"name": "ddl", "capacity": 65}),
    ("Acquire", {"name": "ddl", "timeout_seconds": 3601}),
    ("Acquire", {"name": "ddl", "request_id": "r" * 257}),
    ("Release", {"name": ""}),
    ("GetStatus", {"name": ""}),
]


@pytest.mark.parametrize(("method", "fields"), BAD)
async def test_bad_input_is_refused(semaphores: Semaphores, method: str, fields: dict[str, Any]) -> None:
    hook = await semaphores.hook("10.0.0.1")

    assert (await refused(semaphores.call(method, hook.metadata, **fields))).status is Status.INVALID_ARGUMENT
    listed = await semaphores.call("ListSemaphores", bucket_id=semaphores.bucket_id)
    assert list(listed.semaphores) == []


async def test_only_hooks_acquire(semaphores: Semaphores) -> None:
    assert (await refused(semaphores.call("Acquire", name="ddl"))).status is Status.PERMISSION_DENIED
    assert (await refused(semaphores.call("Release", name="ddl"))).status is Status.PERMISSION_DENIED


async def test_a_named_scope_is_named_in_full(semaphores: Semaphores) -> None:
    for missing in ({"job": ""}, {"event": 0}, {"bucket_id": ""}):
        assert (await refused(semaphores.status(**missing))).status is Status.INVALID_ARGUMENT


async def test_a_stopping_catalog_sends_its_waiters_elsewhere(semaphores: Semaphores) -> None:
    one, two = await semaphores.hook("10.0.0.1"), await semaphores.hook("10.0.0.2")
    await semaphores.acquire(one)
    waiter = asyncio.create_task(semaphores.acquire(two))
    await semaphores.waiting(1)

    await semaphores.catalog.running.semaphore_waiters.close()

    assert (await refused(waiter)).status is Status.UNAVAILABLE
    assert not (await semaphores.status()).waiters


class Impatient:
    """A hook that cancels its calls at random and repeats them at either catalog, until one is answered or it gives up."""

    def __init__(self, hook: Hook, stubs: list[SemaphoreServiceStub], chance: Random) -> None:
        self.hook = hook
        self._stubs = stubs
        self._chance = chance

    async def acquire(self, *, repeats: int | None = None) -> int | None:
        """Return the token; None when it gave up after so many repeats."""
        request = pb.AcquireRequest(name="ddl", request_id=str(uuid.uuid4()))
        left = self._chance.randint(0, 4) if repeats is None else repeats
        while True:
            call = self._chance.choice(self._stubs).Acquire(request, metadata=self.hook.metadata)
            may_wait = None if repeats is None and not left else self._chance.uniform(0, 0.03)
            done, _ = await asyncio.wait([asyncio.ensure_future(call_result(call))], timeout=may_wait)
            if done and not call.cancelled():
                token: int = (await call).fencing_token
                return token
            call.cancel()
            if not left:
                return None
            left -= 1

    async def release(self) -> None:
        """Give the slot back; RemoteError when it was lost meanwhile."""
        with remote_errors():
            await self._chance.choice(self._stubs).Release(pb.ReleaseRequest(name="ddl"), metadata=self.hook.metadata)


async def test_hooks_that_cancel_and_repeat_at_two_catalogs_lose_no_slot_and_keep_none(
    open_replica: OpenReplica, tmp_path: Path
) -> None:
    one, two = await open_replica(), await open_replica()
    bucket_id = await a_bucket(one)
    inside: list[str] = []
    tokens: list[int] = []

    async def work(hook: Impatient) -> None:
        for _ in range(5):
            token = await hook.acquire()
            assert token is not None
            assert not inside
            inside.append(hook.hook.invocation_id)
            tokens.append(token)
            await asyncio.sleep(0.005)
            inside.remove(hook.hook.invocation_id)
            await hook.release()
        if await hook.acquire(repeats=2):
            await hook.release()

    async with serve(one, tmp_path) as first, serve(two, tmp_path) as second:
        stubs = [SemaphoreServiceStub(catalog.local.channel) for catalog in (first, second)]
        hooks = [await a_running_hook(one, bucket_id, worker=f"10.0.0.{number}") for number in range(6)]
        async with asyncio.timeout(60), asyncio.TaskGroup() as group:
            for number, hook in enumerate(hooks):
                group.create_task(work(Impatient(hook, stubs, Random(number))))

    assert tokens == sorted(set(tokens))
    assert len(tokens) == 5 * len(hooks)
