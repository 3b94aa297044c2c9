"""The seam between the catalog and its database: read, write, and wait for others' writes.

An *intention* is a plain function of an open `Transaction`. It runs in a worker thread, in one transaction, and may be run again
when another transaction was in its way: it must do nothing but read and write through the transaction it is given.
"""

import asyncio
import sys
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Self, TypeVar

from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from maand_catalog.database.bus import RE_READ_AFTER, Bus
from maand_catalog.database.clock import DatabaseClock
from maand_catalog.database.engine import READ_CONNECTIONS, Engines, make_engines, parse_database_url, sqlite_path
from maand_catalog.database.failures import translate_error
from maand_catalog.database.filelock import FileLock
from maand_catalog.database.transaction import Transaction
from maand_catalog.database.writer import GroupWriter
from maand_catalog.rules.meter import Meter

if TYPE_CHECKING:
    from maand_catalog.database.listener import Listener

__all__ = ["Database", "Transaction"]

T = TypeVar("T")

SWITCH_INTERVAL_SECONDS = 0.0005
"""How long a thread may keep the interpreter while another wants it, for the whole process. SQLite's driver lets go of it at
every statement and must get it back from the event loop. Measured in turns with Python's 5 ms (`make bench
WHAT=switch-interval`, on a machine with load 21): with a loop that always has something to do, medians of puts and gets at
1, 16 and 64 clients were 1.2 to 1.9 times as many a second; with an idle loop there was no difference beyond the noise."""


class Database:
    """An open database. Made by `Database.open`; belongs to the event loop that opened it."""

    def __init__(
        self,
        *,
        engines: Engines,
        clock: DatabaseClock,
        bus: Bus,
        writer: GroupWriter,
        listener: "Listener | None",
        lock: FileLock | None,
    ) -> None:
        self.engines = engines
        self.clock = clock
        self.bus = bus
        self._writer = writer
        self._listener = listener
        self._lock = lock
        self._readers = ThreadPoolExecutor(READ_CONNECTIONS, thread_name_prefix="catalog-read")

    @classmethod
    async def open(cls, database_url: str, *, clock: DatabaseClock | None = None, meter: Meter | None = None) -> Self:
        """Open `sqlite:////path`, `sqlite://` (in memory) or `postgresql://…`.

        Raises `DatabaseInUse` when another process has the SQLite file open, `Unavailable` when PostgreSQL cannot be reached.
        """
        sys.setswitchinterval(SWITCH_INTERVAL_SECONDS)
        url, clock, replica = parse_database_url(database_url), clock or DatabaseClock(), uuid.uuid4().hex
        engines = make_engines(url)
        if engines.is_memory:
            bus, listener, lock = Bus(), None, None
        elif engines.dialect == "sqlite":
            bus, listener, lock = Bus(), None, FileLock(sqlite_path(url))
            lock.take()
        else:
            from maand_catalog.database.listener import Listener  # its driver takes 0.1 s to load: SQLite does without

            bus, lock = Bus(re_read_after=RE_READ_AFTER), None
            listener = Listener(url.set(drivername="postgresql").render_as_string(hide_password=False), replica=replica, bus=bus)
            await listener.start()
        writer = GroupWriter(engines, clock=clock, bus=bus, replica=replica, meter=meter or Meter())
        return cls(engines=engines, clock=clock, bus=bus, writer=writer, listener=listener, lock=lock)

    async def read(self, intention: Callable[[Transaction], T]) -> T:
        """Carry out an intention that only reads, on one snapshot of the database."""
        if self.engines.is_memory:
            return await self.write(intention)
        return await asyncio.get_running_loop().run_in_executor(self._readers, self._read_in_thread, intention)

    async def write(self, intention: Callable[[Transaction], T], *, alone: bool = False) -> T:
        """Carry out an intention that writes; when this returns, it is durable and visible to everyone.

        Intentions that arrive together share a transaction, each under its own SAVEPOINT: an exception undoes its own only.
        `alone` gives a long one its own transaction (on PostgreSQL its own connection too). Cancelling the caller does not
        undo what was begun.
        """
        result: T = await self._writer.write(intention, alone=alone)
        return result

    async def close(self) -> None:
        """Finish queued writes and let go of the database."""
        await self._writer.close()
        if self._listener is not None:
            await self._listener.close()
        await asyncio.to_thread(self._readers.shutdown)
        self.engines.dispose()
        if self._lock is not None:
            self._lock.release()

    def _read_in_thread(self, intention: Callable[[Transaction], T]) -> T:
        """Read; once more when a pooled connection turns out to be dead."""
        try:
            return self._read_once(intention)
        except DBAPIError as error:
            if not error.connection_invalidated:
                raise translate_error(error, self.engines.place) from error
        try:
            return self._read_once(intention)
        except (DBAPIError, PoolTimeout) as error:
            raise translate_error(error, self.engines.place) from error

    def _read_once(self, intention: Callable[[Transaction], T]) -> T:
        with self.engines.read.begin() as connection:
            return intention(Transaction(connection, self.clock))
