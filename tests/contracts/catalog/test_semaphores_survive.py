"""Fifty clients on one semaphore while catalogs and clients are killed without warning; a shared counter likewise.

At most `capacity` inside at any time, tokens unique and rising, nothing that was acknowledged is lost, nobody is forgotten.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from maand_catalog.database.database import Database
from maand_catalog.database.migrate import migrate_database
from maand_contracts.catalog.v1 import invocation_pb2, job_pb2, kv_pb2, run_pb2, run_spec_pb2
from maand_contracts.catalog.v1.invocation_pb2_grpc import InvocationServiceStub
from maand_contracts.catalog.v1.kv_pb2_grpc import KvServiceStub
from maand_contracts.catalog.v1.run_pb2_grpc import RunServiceStub
from maand_wire.channels import OPTIONS
from tests.contracts.catalog.conftest import names
from tests.contracts.catalog.crowd import counter
from tests.contracts.catalog.kv_builders import a_keyring
from tests.contracts.catalog.processes import Fleet, Process, running_fleet
from tests.contracts.catalog.run_builders import a_bucket, an_allocation
from tests.testbed.postgres import PostgresCluster

CLIENTS = 50
ROUNDS = 3
PER_CROWD = 25


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Catalogs that serve, a bucket, and one allocation per client."""

    fleet: Fleet
    bucket_id: str
    allocations: list[str]
    log: Path

    def lines(self) -> list[dict[str, Any]]:
        """Return what the crowds said so far, in order of time."""
        if not self.log.exists():
            return []
        whole = [line for line in self.log.read_text().splitlines(keepends=True) if line.endswith("\n")]
        return sorted((json.loads(line) for line in whole), key=lambda line: float(line["at"]))

    async def said(self, what: str, count: int) -> None:
        """Return when the crowds said so often that they did this."""
        async with asyncio.timeout(100):
            while sum(line["what"] == what for line in self.lines()) < count:  # noqa: ASYNC110 - said in a file
                await asyncio.sleep(0.02)


@asynccontextmanager
async def a_scene(directory: Path, database_url: str) -> AsyncIterator[Scene]:
    a_keyring(directory)
    database = await Database.open(database_url)
    await migrate_database(database)
    bucket_id = await a_bucket(database)
    allocations = [await an_allocation(database, bucket_id, worker=f"10.0.0.{number}") for number in range(CLIENTS)]
    await database.close()
    with running_fleet(directory, database_url, directory / "kv.key") as fleet:
        yield Scene(fleet=fleet, bucket_id=bucket_id, allocations=allocations, log=directory / "steps.log")


@pytest.fixture
def empty_postgres(postgres: PostgresCluster) -> Iterator[str]:
    name = f"empty_{next(names)}"
    yield postgres.create_database(name)
    postgres.drop_database(name)


class Executor:
    """What the executor of the hooks does: holds the run's lease, begins and ends invocations."""

    def __init__(self, address: str, scene: Scene) -> None:
        self._channel = grpc.aio.insecure_channel(address, options=OPTIONS)
        self._scene = scene
        self.hooks: list[tuple[str, str]] = []

    async def begin(self) -> None:
        runs, bucket_id = RunServiceStub(self._channel), self._scene.bucket_id
        spec = run_spec_pb2.RunSpec(hooks=run_spec_pb2.HooksSpec(hook="hook_x"))
        await runs.CreateRun(run_pb2.CreateRunRequest(bucket_id=bucket_id, spec=spec, requested_by="ada@laptop"))
        run = (await runs.ClaimRun(run_pb2.ClaimRunRequest(executor_id="e1", wait_seconds=5))).run
        starts = [
            invocation_pb2.InvocationStart(allocation_id=each, hook="hook_x", event=job_pb2.HOOK_EVENT_CLI)
            for each in self._scene.allocations
        ]
        begun = await InvocationServiceStub(self._channel).BeginInvocations(
            invocation_pb2.BeginInvocationsRequest(bucket_id=bucket_id, run_id=run.run_id, fence=run.fence, invocations=starts)
        )
        self.hooks = [(each.invocation_id, each.token) for each in begun.invocations]
        self._renew = run_pb2.RenewLeaseRequest(bucket_id=bucket_id, run_id=run.run_id, fence=run.fence)

    async def keep_lease(self) -> None:
        while True:
            with suppress(grpc.aio.AioRpcError):
                await RunServiceStub(self._channel).RenewLease(self._renew, wait_for_ready=True)
            await asyncio.sleep(2)

    async def end(self, invocations: list[str]) -> None:
        ends = [
            invocation_pb2.InvocationEnd(invocation_id=each, outcome=invocation_pb2.INVOCATION_OUTCOME_FAILED)
            for each in invocations
        ]
        request = invocation_pb2.EndInvocationsRequest(bucket_id=self._scene.bucket_id, invocations=ends)
        await InvocationServiceStub(self._channel).EndInvocations(request, wait_for_ready=True)

    async def close(self) -> None:
        await self._channel.close()


def locks(scene: Scene, addresses: list[str], hooks: list[tuple[str, str]], capacity: int) -> Process:
    return scene.fleet.crowd(
        kind="locks",
        addresses=addresses,
        log=str(scene.log),
        rounds=ROUNDS,
        capacity=capacity,
        hooks=hooks,
        clients=len(hooks),
    )


def check_history(lines: list[dict[str, Any]], capacity: int, killed_at: dict[str, float]) -> None:
    """Prove from the log: never more inside than slots, tokens unique, rising with capacity 1, no acknowledged slot lost."""
    assert [line for line in lines if line["what"] == "lost"] == []
    tokens = [line["token"] for line in lines if line["what"] == "enter"]
    assert len(set(tokens)) == len(tokens)
    if capacity == 1:
        assert tokens == sorted(tokens)
    left = {line["token"]: line["at"] for line in lines if line["what"] == "exit"}
    edges = []
    for line in lines:
        if line["what"] == "enter":
            edges.append((line["at"], 1))
            edges.append((left.get(line["token"]) or killed_at[line["who"]], -1))
    inside = 0
    for _, step in sorted(edges):
        inside += step
        assert inside <= capacity


@pytest.mark.parametrize("capacity", [1, 3])
async def test_a_semaphore_survives_a_killed_catalog_and_killed_clients(
    empty_postgres: str, tmp_path: Path, capacity: int
) -> None:
    async with a_scene(tmp_path, empty_postgres) as scene:
        addresses = [await scene.fleet.start(name) for name in ("one", "two")]
        executor = Executor(addresses[1], scene)
        await executor.begin()
        lease = asyncio.create_task(executor.keep_lease())
        staying = locks(scene, addresses, executor.hooks[:PER_CROWD], capacity)
        doomed = locks(scene, addresses[::-1], executor.hooks[PER_CROWD:], capacity)

        await scene.said("enter", 15)
        scene.fleet.kill("one")
        await scene.said("enter", 30)
        doomed.kill()
        killed_at = {invocation: time.monotonic() for invocation, _ in executor.hooks[PER_CROWD:]}
        await executor.end(list(killed_at))
        exit_code = await asyncio.to_thread(staying.finish, 100)

        lease.cancel()
        await executor.close()
        lines = scene.lines()
        check_history(lines, capacity, killed_at)
        assert exit_code == 0, staying.log.read_text()
        served = [line["who"] for line in lines if line["what"] == "exit"]
        assert all(served.count(invocation) == ROUNDS for invocation, _ in executor.hooks[:PER_CROWD])


async def test_a_semaphore_on_sqlite_survives_its_catalog_being_killed_and_started_again(tmp_path: Path) -> None:
    async with a_scene(tmp_path, f"sqlite:///{tmp_path}/maand.db") as scene:
        address = await scene.fleet.start("one")
        executor = Executor(address, scene)
        await executor.begin()
        lease = asyncio.create_task(executor.keep_lease())
        crowds = [locks(scene, [address], executor.hooks[at::2], 1) for at in (0, 1)]

        for count in (15, 40):
            await scene.said("enter", count)
            scene.fleet.kill("one")
            await scene.fleet.start("one")
        exit_codes = [await asyncio.to_thread(crowd.finish, 100) for crowd in crowds]

        lease.cancel()
        await executor.close()
        check_history(scene.lines(), 1, {})
        assert exit_codes == [0, 0], crowds[0].log.read_text()
        served = [line["who"] for line in scene.lines() if line["what"] == "exit"]
        assert all(served.count(invocation) == ROUNDS for invocation, _ in executor.hooks)


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
async def test_a_counter_is_exact_although_its_catalog_is_killed(
    request: pytest.FixtureRequest, tmp_path: Path, kind: str
) -> None:
    url: str = f"sqlite:///{tmp_path}/maand.db" if kind == "sqlite" else request.getfixturevalue("empty_postgres")
    async with a_scene(tmp_path, url) as scene:
        catalogs = ["one"] if kind == "sqlite" else ["one", "two"]
        addresses = [await scene.fleet.start(name) for name in catalogs]
        name = counter(scene.bucket_id)
        async with grpc.aio.insecure_channel(addresses[-1], options=OPTIONS) as channel:
            await KvServiceStub(channel).Put(kv_pb2.PutRequest(**name, value="0"))
        crowd = scene.fleet.crowd(
            kind="counts", addresses=addresses, log=str(scene.log), rounds=12, bucket_id=scene.bucket_id, clients=10
        )

        await scene.said("added", 40)
        scene.fleet.kill("one")
        if kind == "sqlite":
            await scene.fleet.start("one")
        exit_code = await asyncio.to_thread(crowd.finish, 100)

        assert exit_code == 0, crowd.log.read_text()
        async with grpc.aio.insecure_channel(addresses[-1], options=OPTIONS) as channel:
            counted = await KvServiceStub(channel).Get(kv_pb2.GetRequest(**name), wait_for_ready=True)
        assert counted.entry.value == str(10 * 12)
        assert counted.entry.version == 10 * 12 + 1
