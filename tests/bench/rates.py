"""Rates of catalogs: clients that work one after the other, and ways to put and get on the store alone and over the wire."""

import asyncio
import itertools
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import grpc.aio

from maand_catalog.database.database import Database
from maand_catalog.database.migrate import migrate_database
from maand_catalog.store.kv.batched_store import KvStore
from maand_contracts.catalog.v1 import kv_pb2
from maand_contracts.catalog.v1.kv_pb2_grpc import KvServiceStub
from maand_wire.channels import OPTIONS
from tests.contracts.catalog.kv_builders import VARS, a_keyring, a_write
from tests.contracts.catalog.processes import running_fleet
from tests.contracts.catalog.run_builders import a_bucket

CLIENTS = (1, 16, 64)
VALUE = "v" * 200

Act = Callable[[int], Awaitable[object]]
"""What client number n does, once."""

numbers = itertools.count()


async def rate(act: Act, clients: int, seconds: float) -> float:
    """Let so many clients act one time after another for that long, and return how often they did per second."""
    until = time.perf_counter() + seconds
    done = 0

    async def client(number: int) -> None:
        nonlocal done
        while time.perf_counter() < until:
            await act(number)
            done += 1

    begun = time.perf_counter()
    await asyncio.gather(*(client(number) for number in range(clients)))
    return done / (time.perf_counter() - begun)


async def compare(acts: Mapping[str, Act], clients: int, *, seconds: float, rounds: int) -> dict[str, list[float]]:
    """Let acts take turns, round by round, and return their rates."""
    taken: dict[str, list[float]] = {name: [] for name in acts}
    for _ in range(rounds):
        for name, act in acts.items():
            taken[name].append(await rate(act, clients, seconds))
    return taken


def show(what: str, taken: Mapping[str, list[float]], *, against: str | None = None) -> None:
    """Print rates, and how many times that of `against` each is, round by round."""
    for name, rates in taken.items():
        low, middle, high = min(rates), statistics.median(rates), max(rates)
        times = ""
        if against is not None and against in taken and name != against:
            ratios = sorted(one / other for one, other in zip(rates, taken[against], strict=True))
            times = f"   × {against}: {ratios[0]:.2f} / {statistics.median(ratios):.2f} / {ratios[-1]:.2f}"
        print(f"  {what:16} {name:26} {low:8.0f} / {middle:8.0f} / {high:8.0f} per second{times}", flush=True)


@asynccontextmanager
async def store_alone(url: str, directory: Path) -> AsyncIterator[dict[str, Act]]:
    """Offer put and get on the store, in this process."""
    database = await Database.open(url)
    await migrate_database(database)
    kv, bucket_id = KvStore.on(database, a_keyring(directory)), await a_bucket(database)

    async def put(number: int) -> None:
        await kv.write(a_write(bucket_id, f"k{number}", f"{next(numbers)}{VALUE}"))

    async def get(number: int) -> None:
        await kv.get(bucket_id, VARS, f"k{number}")

    await fill(put)
    yield {"put": put, "get": get}
    await database.close()


@asynccontextmanager
async def over_the_wire(url: str, directory: Path) -> AsyncIterator[dict[str, Act]]:
    """Offer put and get through a catalog process, by gRPC over a unix socket."""
    database = await Database.open(url)
    await migrate_database(database)
    bucket_id = await a_bucket(database)
    await database.close()
    a_keyring(directory)
    with running_fleet(directory, url, directory / "kv.key") as fleet:
        async with grpc.aio.insecure_channel(await fleet.start("one"), options=OPTIONS) as channel:
            stub = KvServiceStub(channel)

            async def put(number: int) -> None:
                value = f"{next(numbers)}{VALUE}"
                await stub.Put(kv_pb2.PutRequest(bucket_id=bucket_id, namespace=VARS, key=f"k{number}", value=value))

            async def get(number: int) -> None:
                await stub.Get(kv_pb2.GetRequest(bucket_id=bucket_id, namespace=VARS, key=f"k{number}"))

            await fill(put)
            yield {"put": put, "get": get}


async def fill(put: Act) -> None:
    """Let every key exist."""
    for number in range(max(CLIENTS)):
        await put(number)
