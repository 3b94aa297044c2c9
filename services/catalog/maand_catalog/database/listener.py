"""Hearing what other replicas notify: one asynchronous PostgreSQL connection that LISTENs and feeds this process's bus.

A replica delivers its own notifications itself, right after the commit; here it skips them. When the connection breaks, the
listener connects again and wakes everyone, since what was said meanwhile is lost.
"""

import asyncio
from typing import NoReturn

import psycopg
import structlog
from psycopg.conninfo import make_conninfo

from maand_catalog.database.bus import CHANNEL, Bus
from maand_catalog.database.engine import POSTGRESQL_CONNECTION
from maand_catalog.database.failures import database_unavailable
from maand_wire.supervision import keep_running

log = structlog.get_logger("maand.catalog.listener")

RETRY_AFTER_SECONDS = 0.5


class Listener:
    """Feeds a bus from PostgreSQL until it is closed."""

    def __init__(self, conninfo: str, *, replica: str, bus: Bus) -> None:
        self._conninfo = make_conninfo(conninfo, **POSTGRESQL_CONNECTION)
        self._replica = replica
        self._bus = bus
        self._connection: psycopg.AsyncConnection | None = None
        """The one that `start` made, until it is listened on."""
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Connect, so that nothing said from now on is missed, and listen in the background. Raises `Unavailable`."""
        try:
            self._connection = await self._connect()
        except psycopg.OperationalError as error:
            raise database_unavailable(error) from error
        self._task = asyncio.create_task(keep_running("notifications", self._listen), name="catalog-listener")

    async def close(self) -> None:
        """Stop listening."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _connect(self) -> psycopg.AsyncConnection:
        connection = await psycopg.AsyncConnection.connect(self._conninfo, autocommit=True)
        await connection.execute(f"LISTEN {CHANNEL}")
        return connection

    async def _listen(self) -> NoReturn:
        """Listen on the connection that `start` made, then on one after the other."""
        while True:
            connection, self._connection = self._connection, None
            if connection is None:
                connection = await self._reconnect()
                self._bus.deliver_all()
            try:
                async with connection:
                    await self._deliver_from(connection)
            except psycopg.OperationalError as error:
                log.warning("lost the notification connection", reason=str(error))

    async def _deliver_from(self, connection: psycopg.AsyncConnection) -> None:
        async for notification in connection.notifies():
            replica, _, topic = notification.payload.partition(" ")
            if replica != self._replica:
                self._bus.deliver((topic,))

    async def _reconnect(self) -> psycopg.AsyncConnection:
        while True:
            await asyncio.sleep(RETRY_AFTER_SECONDS)
            try:
                return await self._connect()
            except psycopg.OperationalError as error:
                log.warning("cannot listen for notifications yet", reason=str(error))
