"""Engines: where SQLite and PostgreSQL differ in how a connection is opened and a transaction begun.

|                  | SQLite                                            | PostgreSQL                                      |
|------------------|---------------------------------------------------|-------------------------------------------------|
| durability       | WAL, `synchronous=FULL`                           | the server's                                    |
| a write begins   | `BEGIN IMMEDIATE`, one connection                 | `BEGIN`, READ COMMITTED                         |
| a read begins    | `BEGIN` on a `query_only` connection (a snapshot) | `BEGIN READ ONLY, REPEATABLE READ` (a snapshot) |
| a stuck client   | cannot be: one process, file lock                 | idle and statement timeouts, TCP time-outs      |

`sqlite://` without a path keeps everything in memory: the catalog for tests of other parts, held to the same contract tests. It
has one connection, so reads take their turn with writes, and it is gone when it is closed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, make_url
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError
from sqlalchemy.pool import StaticPool

from maand_catalog.errors import InvalidArgument

KNOWN_URLS = "use sqlite:////absolute/path or postgresql://user@host/name"

READ_CONNECTIONS = 8
"""Reads at once. More than a few only contend: SQLite for the interpreter, PostgreSQL for its cores."""

WRITE_CONNECTIONS = 4
"""PostgreSQL only: the group writer's connection and those of transactions that go alone."""

SQLITE_PRAGMAS = ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=10000", "foreign_keys=ON", "cache_size=-32768")

POSTGRESQL_SETTINGS = {
    "idle_in_transaction_session_timeout": "5s",  # a replica that froze inside a transaction holds no lock for longer
    "statement_timeout": "60s",  # the longest statement, of a build of 10,000 allocations, takes a few seconds
    "timezone": "UTC",
}

POSTGRESQL_CONNECTION = {
    "connect_timeout": 5,  # seconds; a host that is cut off answers nothing at all
    "tcp_user_timeout": 10_000,  # milliseconds that what was sent may stay unacknowledged; Linux itself tries for 15 minutes
    "keepalives": 1,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
}
"""How soon a server that is cut off without a word is given up: https://www.postgresql.org/docs/current/libpq-connect.html."""


@dataclass(frozen=True, kw_only=True)
class Engines:
    """The two ways to a database: connections that write and connections that only read."""

    write: Engine
    read: Engine

    @property
    def dialect(self) -> str:
        """`sqlite` or `postgresql`."""
        return self.write.dialect.name

    @property
    def is_memory(self) -> bool:
        """Whether there is one connection for everything."""
        return self.read is self.write

    @property
    def place(self) -> str:
        """The file of a SQLite database, for people; empty in memory and for PostgreSQL, whose URL names hosts."""
        return (self.write.url.database or "") if self.dialect == "sqlite" else ""

    def dispose(self) -> None:
        """Close all pooled connections."""
        self.read.dispose()
        self.write.dispose()


def parse_database_url(database_url: str) -> URL:
    """Read `sqlite:////path`, `sqlite://` (in memory) or `postgresql://…`; anything else is refused."""
    try:
        url = make_url(database_url)
    except (ArgumentError, ValueError):  # the text is not repeated: it may hold a password
        raise InvalidArgument("MAAND_DATABASE_URL is no URL of a database", help=KNOWN_URLS) from None
    match url.get_backend_name():
        case "sqlite" if url.database != "":
            return url.set(drivername="sqlite+pysqlite")
        case "postgresql":
            return url.set(drivername="postgresql+psycopg")
        case _:
            raise InvalidArgument(
                f"{url.render_as_string()} is no database the catalog knows",
                help=KNOWN_URLS,
            )


def make_engines(url: URL) -> Engines:
    """Make the engines for a database; connections open at first use."""
    if url.get_backend_name() == "sqlite" and not url.database:
        memory = create_engine(url, poolclass=StaticPool, connect_args={"check_same_thread": False})
        prepare_sqlite(memory, pragmas=("foreign_keys=ON",), begin="BEGIN IMMEDIATE")
        return Engines(write=memory, read=memory)
    if url.get_backend_name() == "sqlite":
        return Engines(write=make_sqlite_engine(url, writes=True), read=make_sqlite_engine(url, writes=False))
    return make_postgresql_engines(url)


def sqlite_path(url: URL) -> Path:
    """Return the file of a SQLite database."""
    return Path(url.database or "")


def make_sqlite_engine(url: URL, *, writes: bool) -> Engine:
    """Make the engine for a SQLite file: the one connection that writes, or those that read."""
    engine = create_engine(url, pool_size=1 if writes else READ_CONNECTIONS, max_overflow=0, pool_timeout=60)
    pragmas = SQLITE_PRAGMAS if writes else (*SQLITE_PRAGMAS, "query_only=ON")
    prepare_sqlite(engine, pragmas=pragmas, begin="BEGIN IMMEDIATE" if writes else "BEGIN")
    return engine


def prepare_sqlite(engine: Engine, *, pragmas: Sequence[str], begin: str) -> None:
    """Begin a SQLite engine's transactions ourselves; the driver's own habits are off."""

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _record: Any) -> None:
        connection.isolation_level = None
        for pragma in pragmas:
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def begin_transaction(connection: Connection) -> None:
        connection.exec_driver_sql(begin)


def make_postgresql_engines(url: URL) -> Engines:
    """Make the PostgreSQL engines. A connection that died is noticed by the statement that fails; `Database` then tries anew."""
    options = " ".join(f"-c {name}={value}" for name, value in POSTGRESQL_SETTINGS.items())
    arguments = {**POSTGRESQL_CONNECTION, "options": options, "application_name": "maand-catalog"}
    write = create_engine(url, pool_size=WRITE_CONNECTIONS, max_overflow=0, connect_args=arguments)
    read = create_engine(
        url,
        pool_size=READ_CONNECTIONS,
        max_overflow=0,
        connect_args=arguments,
        isolation_level="REPEATABLE READ",
    )
    return Engines(write=write, read=read.execution_options(postgresql_readonly=True))
