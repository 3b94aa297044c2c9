"""`true` everywhere with one and with two executors; KV puts with one and with two catalogs. Ratios are of the same round.

    python -m tests.bench cluster [--workers 300] [--rounds 5] [--seconds 0.6]

Processes as in a cluster, one PostgreSQL with fsync, unix sockets in place of TLS. **All on this one machine**: clients, sshd,
database and services share the cores, so a second process has no second machine to use. A ratio near 1 says that sharing costs
nothing; what it gains where there are more cores is not measured here. Both line-ups are up all the time and work in turns;
connections to workers are open.
"""

import argparse
import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import grpc.aio

from maand_catalog.database.database import Database
from maand_catalog.database.migrate import migrate_database
from maand_contracts.catalog.v1 import kv_pb2
from maand_contracts.catalog.v1.kv_pb2_grpc import KvServiceStub
from maand_wire.channels import OPTIONS
from tests.bench.bench_ssh_cold import run_true
from tests.bench.bucket import crowd_bucket
from tests.bench.rates import CLIENTS, VALUE, Act, compare, fill, numbers, show
from tests.bench.rounds import Timed, blocking, show_against, take_turns
from tests.contracts.catalog.kv_builders import VARS, a_keyring
from tests.contracts.catalog.processes import Fleet, Process, running_fleet
from tests.contracts.catalog.run_builders import a_bucket
from tests.e2e.maand import Bucket
from tests.testbed.postgres import PostgresCluster, running_postgres

LINE_UPS = {"one": 1, "two": 2}


def main(arguments: Sequence[str]) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.6, help="of one turn of puts")
    options = parser.parse_args(arguments)
    with crowd_bucket(options.workers) as (bucket, bed), running_postgres(durable=True) as postgres:
        bucket.stop_services()
        print(f"`true` on {options.workers} workers, all on this machine, {options.rounds} rounds (min / median / max)")
        asyncio.run(show_fan_out(bucket, postgres, bed.directory, options.rounds))
        print(f"puts of {len(VALUE)} bytes, all on this machine, {options.rounds} rounds of {options.seconds} s")
        asyncio.run(show_puts(postgres, bed.directory, seconds=options.seconds, rounds=options.rounds))


async def show_fan_out(bucket: Bucket, postgres: PostgresCluster, directory: Path, rounds: int) -> None:
    """Print how long a wide command takes with one and with two executors."""
    with ExitStack() as stack:
        works = {}
        for name, count in LINE_UPS.items():
            fleet = stack.enter_context(a_fleet(postgres, directory / f"executors-{name}"))
            there = replace(bucket, environment={"MAAND_CATALOG_ADDRESS": await fleet.start("one")})
            for number in range(count):
                stack.callback(an_executor(fleet, bucket, number).kill)
            await asyncio.to_thread(there.must, "build")
            works[f"{name} executor{'s' * (count > 1)}"] = Timed(work=blocking(partial(run_true, there)))
        await take_turns(works, 2)  # opens what stays open
        show_against(await take_turns(works, rounds), "one executor")


def an_executor(fleet: Fleet, bucket: Bucket, number: int) -> Process:
    """Start an executor that claims runs from a fleet's catalog."""
    return Process(
        "-m",
        "maand_executor",
        log=fleet.directory / f"executor{number}.log",
        MAAND_CATALOG_ADDRESS=fleet.address("one"),
        MAAND_EXECUTOR_LISTEN=fleet.address(f"executor{number}"),
        MAAND_SECRETS_DIR=str(bucket.path / "secrets"),
        MAAND_STATE_DIR=str(fleet.directory / f"executor{number}"),
    )


async def show_puts(postgres: PostgresCluster, directory: Path, *, seconds: float, rounds: int) -> None:
    """Print the rates of puts over the wire with one and with two catalogs."""
    async with AsyncExitStack() as stack:
        acts = {}
        for name, count in LINE_UPS.items():
            works = await stack.enter_async_context(putting(postgres, directory / f"catalogs-{name}", count))
            acts[f"{name} catalog{'s' * (count > 1)}"] = works
        for clients in CLIENTS:
            show(f"put {clients:3}", await compare(acts, clients, seconds=seconds, rounds=rounds), against="one catalog")


@asynccontextmanager
async def putting(postgres: PostgresCluster, directory: Path, catalogs: int) -> AsyncIterator[Act]:
    """Offer puts; clients are dealt out to so many catalogs on one database."""
    with a_fleet(postgres, directory) as fleet:
        database = await Database.open(postgres.url(directory.name))
        await migrate_database(database)
        bucket_id = await a_bucket(database)
        await database.close()
        async with AsyncExitStack() as stack:
            addresses = [await fleet.start(f"catalog{number}") for number in range(catalogs)]
            channels = [
                await stack.enter_async_context(grpc.aio.insecure_channel(address, options=OPTIONS)) for address in addresses
            ]
            stubs = [KvServiceStub(channel) for channel in channels]

            async def put(number: int) -> None:
                value = f"{next(numbers)}{VALUE}"
                request = kv_pb2.PutRequest(bucket_id=bucket_id, namespace=VARS, key=f"k{number}", value=value)
                await stubs[number % catalogs].Put(request)

            await fill(put)
            yield put


@contextmanager
def a_fleet(postgres: PostgresCluster, directory: Path) -> Iterator[Fleet]:
    """Give a database of its own, named like the directory, and catalogs to be started on it."""
    directory.mkdir()
    a_keyring(directory)
    with running_fleet(directory, postgres.create_database(directory.name), directory / "kv.key") as fleet:
        yield fleet
