"""KV and semaphores of the catalog on both databases, durable: `python -m tests.bench.bench_catalog_kv [seconds]`.

store   the store alone, in this process        wire   end to end: gRPC over a unix socket, another process
bare    one commit at a time with the same driver, the floor that group commit is measured against

The absolute figures drift with the machine; ratios are of runs that alternate within this one. Peers are in PERFORMANCE.md.
"""

import asyncio
import itertools
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import grpc.aio

from maand_catalog.store import semaphores
from maand_catalog.store.database import Database
from maand_catalog.store.kv_store import KvStore
from maand_catalog.store.migrate import migrate
from maand_catalog.waiting_room import WaitingRoom
from maand_contracts.catalog.v1 import kv_pb2
from maand_contracts.catalog.v1.kv_pb2_grpc import KvServiceStub
from maand_wire.channels import OPTIONS
from tests.contracts.catalog.kv_builders import VARS, a_keyring, a_write
from tests.contracts.catalog.processes import running_fleet
from tests.contracts.catalog.run_builders import a_bucket
from tests.contracts.catalog.semaphore_builders import Hooks
from tests.testbed.postgres import running_postgres

CLIENTS = (1, 16, 64)
ROUNDS = 3
VALUE = "v" * 200

Work = Callable[[int], Awaitable[object]]
numbers = itertools.count()


async def rate(work: Work, clients: int, seconds: float) -> float:
    """Let so many clients work one after another for that long, and return how much they did per second."""
    until = time.perf_counter() + seconds
    done = 0

    async def client(number: int) -> None:
        nonlocal done
        while time.perf_counter() < until:
            await work(number)
            done += 1

    begun = time.perf_counter()
    await asyncio.gather(*(client(number) for number in range(clients)))
    return done / (time.perf_counter() - begun)


@asynccontextmanager
async def store_works(url: str, directory: Path) -> AsyncIterator[dict[str, Work]]:
    """Offer put and get on the store alone, and the bare commit."""
    database = await Database.open(url)
    await migrate(database)
    kv, bucket_id = KvStore.on(database, a_keyring(directory)), await a_bucket(database)

    async def put(number: int) -> None:
        await kv.write(a_write(bucket_id, f"k{number}", f"{next(numbers)}{VALUE}"))

    async def get(number: int) -> None:
        await kv.get(bucket_id, VARS, f"k{number}")

    for number in range(max(CLIENTS)):
        await put(number)
    yield {"put": put, "get": get}
    await database.close()


@asynccontextmanager
async def wire_works(url: str, directory: Path) -> AsyncIterator[dict[str, Work]]:
    """Offer put and get through a catalog process."""
    database = await Database.open(url)
    await migrate(database)
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

            for number in range(max(CLIENTS)):
                await put(number)
            yield {"put": put, "get": get}


async def handoffs(url: str, seconds: float, clients: int) -> float:
    """Return hand-offs per second of one semaphore with one slot, with so many invocations contending."""
    database = await Database.open(url)
    await migrate(database)
    hooks, room = await Hooks.of_a_new_run(database, await a_bucket(database)), WaitingRoom(database)
    invocations = await hooks.begin(clients)

    async def lock(number: int) -> None:
        await room.acquire(hooks.ask(invocations[number]), timedelta(seconds=60))
        await database.write(lambda tx: semaphores.release(tx, hooks.scope(), invocations[number]))

    measured = await rate(lock, clients, seconds)
    await room.close()
    await database.close()
    return measured


async def measure(kind: str, fresh_url: Callable[[], str], directory: Path, seconds: float) -> None:
    """Print all rates of one database."""
    for where, offer in (("store", store_works), ("wire", wire_works)):
        place = directory / f"{kind}-{where}"
        place.mkdir()
        async with offer(fresh_url(), place) as works:
            for (what, work), clients in itertools.product(works.items(), CLIENTS):
                rates = [await rate(work, clients, seconds) for _ in range(ROUNDS)]
                show(f"{kind} {where} {what} {clients:3}", rates)
    for clients in (1, 16, 100):
        show(f"{kind} handoff {clients:3}", [await handoffs(fresh_url(), seconds, clients) for _ in range(ROUNDS)])


def show(what: str, rates: list[float]) -> None:
    """Print one line: min, median, max per second."""
    low, middle, high = min(rates), statistics.median(rates), max(rates)
    print(f"{what:28} {low:9.0f} {middle:9.0f} {high:9.0f}  /s", flush=True)


def sqlite_urls(directory: Path) -> Iterator[str]:
    """Name one new SQLite file after another."""
    while True:
        yield f"sqlite:///{directory}/{uuid.uuid4().hex}.db"


def main(seconds: float) -> None:
    """Measure SQLite, then PostgreSQL, both durable."""
    with tempfile.TemporaryDirectory(prefix="maand-bench-") as name:
        directory = Path(name)
        urls = sqlite_urls(directory)
        asyncio.run(measure("sqlite", lambda: next(urls), directory, seconds))
        with running_postgres(durable=True) as cluster:
            asyncio.run(measure("postgresql", lambda: cluster.create_database(f"b{next(numbers)}"), directory, seconds))


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 1.0)
