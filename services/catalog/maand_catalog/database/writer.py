"""Group commit: what queued up while the last commit ran goes into the next transaction, together.

    submit ──► queue ──► [ BEGIN │ SAVEPOINT intention RELEASE │ SAVEPOINT intention RELEASE │ … │ COMMIT ] ──► results, wake-ups

There is no fill timer: a lone writer commits at once, many share a commit. An intention that raises undoes only itself. Everybody
learns the outcome after the commit that holds their own write. One thread does this, on one connection.

On PostgreSQL other replicas write too. A grouped intention waits only briefly for a row that another transaction holds; then it
leaves the group and is done alone, so that it delays nobody and two groups can never deadlock for long.
"""

import asyncio
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import structlog
from sqlalchemy import Connection, text

from maand_catalog.database.bus import CHANNEL, Bus, notification_payload
from maand_catalog.database.clock import DatabaseClock
from maand_catalog.database.engine import WRITE_CONNECTIONS, Engines
from maand_catalog.database.failures import catalog_stops, disk_failure_of, has_lost_connection, has_lost_race, translate_error
from maand_catalog.database.transaction import Transaction
from maand_catalog.rules.meter import Meter

log = structlog.get_logger("maand.catalog.writer")

LARGEST_GROUP = 256
"""Intentions per transaction at most: bounds how long the first of them waits for its commit."""

GROUP_LOCK_TIMEOUT_MS = 50
"""PostgreSQL: how long a grouped intention waits for a row before it is done alone."""

ALONE_IDLE_TIMEOUT_MS = 60_000
"""PostgreSQL: a transaction that goes alone may compute this long between statements: a build plans there, on a busy machine."""

ATTEMPTS = 6
"""Tries of an intention that keeps losing races before its caller is told."""

NOTIFY = text("SELECT pg_notify(:channel, payload) FROM unnest(CAST(:payloads AS text[])) AS payload")


@dataclass(kw_only=True)
class QueuedWrite:
    """One queued intention and where its outcome goes."""

    intention: Callable[[Transaction], Any]
    future: asyncio.Future[Any]
    result: Any = None
    error: BaseException | None = None
    topics: set[str] = field(default_factory=set)

    def begin_anew(self) -> None:
        """Forget what an earlier try left."""
        self.result, self.error = None, None
        self.topics.clear()

    def fail(self, error: BaseException) -> None:
        """Remember what the caller is to be told; nothing is notified."""
        self.result, self.error = None, error
        self.topics.clear()

    @property
    def has_lost_race(self) -> bool:
        """Whether it should be tried again."""
        return self.error is not None and has_lost_race(self.error)


class Savepoint:
    """The one savepoint of a group, set anew for each intention. Spoken past SQLAlchemy, which costs ten times as much.

    One statement releases the last and sets the next where the driver takes two statements at once: one round trip less.
    """

    def __init__(self, connection: Connection) -> None:
        self._driver: Any = connection.connection.driver_connection
        self._takes_two = connection.dialect.name == "postgresql"
        self._is_set = False

    def set(self) -> None:
        """Set it before an intention; what the last one did is kept."""
        if self._is_set and self._takes_two:
            self._driver.execute("RELEASE SAVEPOINT intention; SAVEPOINT intention")
            return
        if self._is_set:
            self._driver.execute("RELEASE SAVEPOINT intention")
        self._driver.execute("SAVEPOINT intention")
        self._is_set = True

    def undo(self) -> None:
        """Undo what was done since it was set."""
        self._driver.execute("ROLLBACK TO SAVEPOINT intention")


class GroupWriter:
    """The one place that writes to the database."""

    def __init__(self, engines: Engines, *, clock: DatabaseClock, bus: Bus, replica: str, meter: Meter) -> None:
        self._engines = engines
        self._meter = meter
        self._clock = clock
        self._bus = bus
        self._replica = replica
        self._is_postgresql = engines.dialect == "postgresql"
        self._queue: queue.SimpleQueue[QueuedWrite | None] = queue.SimpleQueue()
        self._loop = asyncio.get_running_loop()
        self._alone = ThreadPoolExecutor(WRITE_CONNECTIONS - 1, thread_name_prefix="catalog-write-alone")
        self._thread = threading.Thread(target=self._run, name="catalog-writer", daemon=True)
        self._connection: Connection | None = None
        self._may_have_committed = False
        self._is_closed = False
        self._thread.start()

    async def write(self, intention: Callable[[Transaction], Any], *, alone: bool) -> Any:
        """Carry out the intention and return what it returns, once it is durable."""
        if self._is_closed:
            raise catalog_stops()
        write = QueuedWrite(intention=intention, future=self._loop.create_future())
        if alone and self._is_postgresql:
            self._alone.submit(self._write_alone, write)
        else:
            self._queue.put(write)
        return await write.future

    async def close(self) -> None:
        """Finish what is queued and stop."""
        self._is_closed = True
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join)
        await asyncio.to_thread(self._alone.shutdown)

    # -- the writer's thread ------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        is_open = True
        while is_open:
            group = [self._queue.get(), *self._drain()]
            is_open = None not in group
            writes = [write for write in group if write is not None and not write.future.cancelled()]
            if writes:
                self._see_to(writes)
        if self._connection is not None:
            self._connection.close()

    def _drain(self) -> list[QueuedWrite | None]:
        drained: list[QueuedWrite | None] = []
        while len(drained) < LARGEST_GROUP - 1:
            try:
                drained.append(self._queue.get_nowait())
            except queue.Empty:
                break
        return drained

    def _see_to(self, writes: list[QueuedWrite]) -> None:
        """Write a group, and tell its callers of what nobody foresaw: without this thread nothing would be written any more."""
        try:
            self._write_group(writes)
        except Exception as error:
            log.exception("a group of writes failed unexpectedly")
            for write in writes:
                write.fail(error)
            self._report(writes)

    def _write_group(self, writes: list[QueuedWrite]) -> None:
        error = self._try_group(writes)
        if error is not None and has_lost_connection(error) and not self._may_have_committed:
            error = self._try_group(writes)  # the connection had died since the last group; a fresh one may live
        if error is not None:
            for write in writes:
                write.fail(translate_error(error, self._engines.place))
        to_retry = [write for write in writes if write.has_lost_race]
        self._report([write for write in writes if not write.has_lost_race])
        for write in to_retry:
            self._alone.submit(self._write_alone, write)

    def _try_group(self, writes: list[QueuedWrite]) -> Exception | None:
        """Commit a group; return what kept it from being committed."""
        self._may_have_committed = False
        began = time.perf_counter()
        try:
            self._commit_group(writes)
        except Exception as error:  # noqa: BLE001 - returned
            self._drop_connection()
            return error
        self._meter.committed(len(writes), time.perf_counter() - began)
        return None

    def _commit_group(self, writes: list[QueuedWrite]) -> None:
        connection = self._open_connection()
        with connection.begin() as transaction:
            tx = Transaction(connection, self._clock)
            savepoint = Savepoint(connection) if len(writes) > 1 else None
            for write in writes:
                write.begin_anew()
                self._carry_out(tx, write, savepoint)
            self._notify_others(connection, set().union(*(write.topics for write in writes)))
            if savepoint is None and writes[0].error is not None:
                transaction.rollback()
            self._may_have_committed = True

    def _carry_out(self, tx: Transaction, write: QueuedWrite, savepoint: "Savepoint | None") -> None:
        """Run one intention, under the savepoint when it is not alone in its group; what ends the whole group is raised."""
        tx.topics = write.topics
        if savepoint is not None:
            savepoint.set()
        try:
            write.result = write.intention(tx)
        except Exception as error:
            if has_lost_connection(error) or disk_failure_of(error):
                raise  # SQLite may have ended the transaction of the whole group by itself
            write.fail(translate_error(error, self._engines.place))
            if savepoint is not None:
                savepoint.undo()

    def _notify_others(self, connection: Connection, topics: set[str]) -> None:
        if topics and self._is_postgresql:
            payloads = [notification_payload(self._replica, topic) for topic in sorted(topics)]
            connection.execute(NOTIFY, {"channel": CHANNEL, "payloads": payloads})

    def _open_connection(self) -> Connection:
        if self._connection is None:
            self._connection = self._engines.write.connect()
            if self._is_postgresql:
                self._connection.exec_driver_sql(f"SET lock_timeout = {GROUP_LOCK_TIMEOUT_MS}")
                self._connection.commit()
        return self._connection

    def _drop_connection(self) -> None:
        """Begin the next group on a fresh connection: what state this one is in is not known."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.invalidate()
            connection.close()

    # -- alone: on a connection of its own (PostgreSQL) ---------------------------------------------------------------------

    def _write_alone(self, write: QueuedWrite) -> None:
        for _attempt in range(ATTEMPTS):
            write.begin_anew()
            try:
                self._commit_alone(write)
            except Exception as error:  # noqa: BLE001 - the caller hears of it
                write.fail(translate_error(error, self._engines.place))
            if not write.has_lost_race:
                break
        self._report([write])

    def _commit_alone(self, write: QueuedWrite) -> None:
        began = time.perf_counter()
        with self._engines.write.begin() as connection:
            connection.exec_driver_sql(f"SET LOCAL idle_in_transaction_session_timeout = {ALONE_IDLE_TIMEOUT_MS}")
            transaction = Transaction(connection, self._clock)
            transaction.topics = write.topics
            write.result = write.intention(transaction)
            self._notify_others(connection, write.topics)
        self._meter.committed(1, time.perf_counter() - began)

    # -- back to the event loop ---------------------------------------------------------------------------------------------

    def _report(self, writes: list[QueuedWrite]) -> None:
        self._loop.call_soon_threadsafe(self._settle, writes)

    def _settle(self, writes: list[QueuedWrite]) -> None:
        """Hand out outcomes and wake local waiters, after the commit."""
        for write in writes:
            if write.future.done():  # cancelled, or told already when the group's accident came after that
                continue
            if write.error is None:
                write.future.set_result(write.result)
            else:
                write.future.set_exception(write.error)
        self._bus.deliver({topic for write in writes if write.error is None for topic in write.topics})
