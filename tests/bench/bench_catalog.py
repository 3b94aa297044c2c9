"""KV and semaphores of the catalog on both databases, durable, and etcd beside them: all in turns, round by round.

    python -m tests.bench catalog [--seconds 0.6] [--rounds 3] [--databases sqlite,postgresql]

commits   intentions of one INSERT through the group writer, in this process      store   puts and gets of the KV store, likewise
wire      end to end: gRPC over a unix socket to a catalog process (etcd: over TCP on loopback; the same gRPC client for both)
handoff   one semaphore with one slot, so many contenders: acquire and release (etcd: its lock service)
"""

import argparse
import asyncio
import itertools
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from sqlalchemy import Column, LargeBinary, MetaData, String, Table, insert

from maand_catalog.database.database import Database
from maand_catalog.database.migrate import migrate_database
from maand_catalog.serving.semaphore_waiters import SemaphoreWaiters
from maand_catalog.store.semaphores import slots as semaphores
from tests.bench.etcd import Etcd, running_etcd
from tests.bench.rates import CLIENTS, VALUE, Act, compare, fill, numbers, over_the_wire, show, store_alone
from tests.contracts.catalog.run_builders import a_bucket
from tests.contracts.catalog.semaphore_builders import Hooks
from tests.testbed.postgres import PostgresCluster, running_postgres

CONTENDERS = (1, 16, 100)
PROBES = MetaData()
PROBE = Table("probe", PROBES, Column("key", String(64), primary_key=True), Column("value", LargeBinary()))


@dataclass(frozen=True, kw_only=True)
class Databases:
    """Where fresh databases come from: `sqlite` always, `postgresql` with its cluster."""

    directory: Path
    cluster: PostgresCluster | None
    kinds: Sequence[str]

    def fresh(self, kind: str) -> tuple[str, Path]:
        """Return the URL of an empty database, and a directory for what belongs to it."""
        name = f"b{next(numbers)}"
        place = self.directory / name
        place.mkdir()
        if kind == "sqlite":
            return f"sqlite:///{place}/maand.db", place
        assert self.cluster is not None
        return self.cluster.create_database(name), place


def main(arguments: Sequence[str]) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=0.6, help="of one turn")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--databases", default="sqlite,postgresql")
    options = parser.parse_args(arguments)
    kinds = options.databases.split(",")
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="maand-bench-")))
        cluster = stack.enter_context(running_postgres(durable=True)) if "postgresql" in kinds else None
        databases = Databases(directory=directory, cluster=cluster, kinds=kinds)
        asyncio.run(measure(databases, seconds=options.seconds, rounds=options.rounds))


async def measure(databases: Databases, *, seconds: float, rounds: int) -> None:
    """Print everything."""
    async with running_etcd() as etcd, AsyncExitStack() as stack:
        await show_commits(databases, seconds, rounds)
        peers = await etcd_acts(etcd) if etcd else {}
        works = {
            f"{kind} store": await stack.enter_async_context(store_alone(*databases.fresh(kind))) for kind in databases.kinds
        }
        works |= {
            f"{kind} wire": await stack.enter_async_context(over_the_wire(*databases.fresh(kind))) for kind in databases.kinds
        }
        works |= {"etcd": peers} if peers else {}
        for what, clients in itertools.product(("put", "get"), CLIENTS):
            acts = {name: acts[what] for name, acts in works.items()}
            show(f"{what} {clients:3}", await compare(acts, clients, seconds=seconds, rounds=rounds), against="etcd")
        await show_handoffs(databases, etcd, seconds, rounds)


async def show_commits(databases: Databases, seconds: float, rounds: int) -> None:
    """Print the rate of bare durable writes through the group writer."""
    async with AsyncExitStack() as stack:
        acts = {kind: await stack.enter_async_context(commits(databases.fresh(kind)[0])) for kind in databases.kinds}
        for clients in CLIENTS:
            show(f"commits {clients:3}", await compare(acts, clients, seconds=seconds, rounds=rounds))


@asynccontextmanager
async def commits(url: str) -> AsyncIterator[Act]:
    """Offer one INSERT as an intention of its own."""
    database, statement = await Database.open(url), insert(PROBE)
    await database.write(lambda tx: PROBES.create_all(tx.connection))

    async def commit(_number: int) -> None:
        row = {"key": f"k{next(numbers)}", "value": VALUE.encode()}
        await database.write(lambda tx: tx.connection.execute(statement, row))

    yield commit
    await database.close()


async def etcd_acts(etcd: Etcd) -> dict[str, Act]:
    """Offer put and get on etcd."""

    async def put(number: int) -> None:
        await etcd.put(f"k{number}", f"{next(numbers)}{VALUE}")

    async def get(number: int) -> None:
        await etcd.get(f"k{number}")

    await fill(put)
    return {"put": put, "get": get}


async def show_handoffs(databases: Databases, etcd: Etcd | None, seconds: float, rounds: int) -> None:
    """Print hand-offs per second of one name."""
    for contenders in CONTENDERS:
        async with AsyncExitStack() as stack:
            acts = {
                kind: await stack.enter_async_context(handoffs(databases.fresh(kind)[0], contenders)) for kind in databases.kinds
            }
            if etcd:
                acts["etcd"] = await etcd_lock(etcd, contenders)
            taken = await compare(acts, contenders, seconds=seconds, rounds=rounds)
            show(f"handoff {contenders:3}", taken, against="etcd")


@asynccontextmanager
async def handoffs(url: str, contenders: int) -> AsyncIterator[Act]:
    """Offer acquire and release of one semaphore with one slot, by that many invocations."""
    database = await Database.open(url)
    await migrate_database(database)
    hooks, room = await Hooks.of_a_new_run(database, await a_bucket(database)), SemaphoreWaiters(database)
    invocations = await hooks.begin(contenders)

    async def lock(number: int) -> None:
        await room.acquire(hooks.ask(invocations[number]), timedelta(seconds=60))
        await database.write(lambda tx: semaphores.release_slot(tx, hooks.scope(), invocations[number]))

    yield lock
    await room.close()
    await database.close()


async def etcd_lock(etcd: Etcd, contenders: int) -> Act:
    """Offer lock and unlock of one name, each contender with a lease of its own."""
    leases = [await etcd.lease() for _ in range(contenders)]
    name = f"lock{next(numbers)}"
    return lambda number: etcd.lock_and_unlock(name, leases[number])
