"""One open transaction, as intentions see it."""

from datetime import datetime

from sqlalchemy import Connection

from maand_catalog.database.clock import DatabaseClock


class Transaction:
    """One open transaction on one connection. Used in a worker thread only, and not after the intention returned."""

    def __init__(self, connection: Connection, clock: DatabaseClock) -> None:
        self.connection = connection
        self.dialect: str = connection.dialect.name
        self.topics: set[str] = set()
        self._clock = clock
        self._now: datetime | None = None

    @property
    def now(self) -> datetime:
        """The database's clock in UTC, read once per transaction at first use: what leases and expiry are decided by."""
        if self._now is None:
            self._now = self._clock.read(self.connection)
        return self._now

    def notify(self, topic: str) -> None:
        """Wake the topic's subscribers on every replica once this transaction is committed."""
        self.topics.add(topic)
