"""One suite, three databases: what takes `database` runs against SQLite, a private PostgreSQL, and the catalog in memory.

database            an open Database on a fresh schema
database_url        its URL, before anything opened it (the schema is there)
open_replica        opens one more Database on the same PostgreSQL, as another catalog replica would
clock               the clock of all of them; `clock.advance(timedelta)` lets leases lapse and TTLs end without waiting
catalog             the served catalog on `database`, with clients (see serving.py)
postgres            the cluster, for tests that need PostgreSQL only (`postgres_url` is a fresh database there)
"""

import itertools
import os
import shutil
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy

from maand_catalog.database.clock import DatabaseClock, Time
from maand_catalog.database.database import Database
from maand_catalog.database.engine import parse_database_url
from maand_catalog.database.migrate import known_revisions
from maand_catalog.serving.semaphore_waiters import SemaphoreWaiters
from maand_catalog.store.tables import metadata
from tests.contracts.catalog.hook_callers import Hook, a_running_hook
from tests.contracts.catalog.kv_verbs import Kv
from tests.contracts.catalog.run_builders import a_bucket
from tests.contracts.catalog.semaphore_builders import Hooks
from tests.contracts.catalog.serving import ServedCatalog, serve
from tests.testbed.postgres import PostgresCluster, running_postgres

TEMPLATE = "maand_template"
names = itertools.count(1)

OpenReplica = Callable[[], Awaitable[Database]]


class ShiftedClock(DatabaseClock):
    """The database's clock, moved by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.offset = timedelta()
        self.slept = 0.0
        self.turn = threading.RLock()

    def advance(self, by: timedelta) -> None:
        """Let that much time go by, in which the catalog looked at its clock as always."""
        with self.turn:
            self.sleep(by)
            if last := self._last:
                seconds = by.total_seconds()
                self._last = replace(last, now=last.now + by, before=last.before + seconds, after=last.after + seconds)

    def sleep(self, by: timedelta) -> None:
        """Let that much time go by, in which the catalog looked at nothing."""
        with self.turn:
            self.slept += by.total_seconds()
            self.offset += by

    def jump(self, by: timedelta) -> None:
        """Set the wall clock forward, or back."""
        self.offset += by

    def look(self, connection: sqlalchemy.Connection) -> Time:
        with self.turn:
            return super().look(connection)

    def read(self, connection: sqlalchemy.Connection) -> datetime:
        return super().read(connection) + self.offset

    def monotonic(self) -> float:
        return super().monotonic() + self.slept


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresCluster]:
    with running_postgres() as cluster:
        create_schema(cluster.create_database(TEMPLATE))
        yield cluster


@pytest.fixture
def postgres_url(postgres: PostgresCluster) -> Iterator[str]:
    name = f"test_{os.getpid()}_{next(names)}"
    yield postgres.create_database(name, template=TEMPLATE)
    postgres.drop_database(name)


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sqlite") / "template.db"
    create_schema(f"sqlite:///{path}")
    return path


@pytest.fixture
def sqlite_url(sqlite_template: Path, tmp_path: Path) -> str:
    path = tmp_path / "maand.db"
    shutil.copyfile(sqlite_template, path)
    return f"sqlite:///{path}"


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    url: str = request.getfixturevalue("sqlite_url" if request.param == "sqlite" else "postgres_url")
    return url


@pytest.fixture
def clock() -> ShiftedClock:
    return ShiftedClock()


@pytest.fixture(params=["sqlite", "postgresql", "memory"])
async def database(request: pytest.FixtureRequest, clock: ShiftedClock) -> AsyncIterator[Database]:
    fixtures = {"sqlite": "sqlite_url", "postgresql": "postgres_url"}
    url = request.getfixturevalue(fixtures[request.param]) if request.param in fixtures else "sqlite://"
    database = await Database.open(url, clock=clock)
    if database.engines.is_memory:
        await database.write(lambda tx: fill(tx.connection))
    yield database
    await database.close()


@pytest.fixture
async def open_replica(postgres_url: str, clock: ShiftedClock) -> AsyncIterator[OpenReplica]:
    """Open replicas of one PostgreSQL database. Not to be mixed with `database`, which may be SQLite."""
    opened: list[Database] = []

    async def open_one() -> Database:
        opened.append(await Database.open(postgres_url, clock=clock))
        return opened[-1]

    yield open_one
    for database in opened:
        await database.close()


@pytest.fixture
async def catalog(database: Database, tmp_path: Path) -> AsyncIterator[ServedCatalog]:
    """The whole catalog on `database`, as a real gRPC server on a unix socket and on a loopback port."""
    async with serve(database, tmp_path) as served:
        yield served


@pytest.fixture
async def kv(database: Database, tmp_path: Path) -> AsyncIterator[Kv]:
    async with serve(database, tmp_path) as catalog:
        yield Kv(catalog, await a_bucket(database))


@pytest.fixture
async def hook(kv: Kv) -> Hook:
    return await a_running_hook(kv.catalog.database, kv.bucket_id)


@pytest.fixture
async def hooks(database: Database) -> Hooks:
    return await Hooks.of_a_new_run(database, await a_bucket(database))


@pytest.fixture
async def room(database: Database) -> AsyncIterator[SemaphoreWaiters]:
    room = SemaphoreWaiters(database)
    yield room
    await room.close()


def create_schema(url: str) -> None:
    """Create the tables as the metadata has them, marked as up to date; test_migrations proves that they are the same."""
    engine = sqlalchemy.create_engine(parse_database_url(url))
    with engine.begin() as connection:
        fill(connection)
    engine.dispose()


def fill(connection: sqlalchemy.Connection) -> None:
    """Create the tables in an open transaction."""
    metadata.create_all(connection)
    connection.execute(sqlalchemy.text("CREATE TABLE alembic_version (version_num VARCHAR(32) PRIMARY KEY)"))
    connection.execute(sqlalchemy.text("INSERT INTO alembic_version VALUES (:newest)"), {"newest": known_revisions()[-1]})
