"""One open transaction, as intentions see it, and its clock.

The database's clock is the only one that leases and expiry are decided by: replicas share it, their hosts need not agree.
"""

from datetime import UTC, datetime

from sqlalchemy import Connection, text

POSTGRESQL_NOW = text("SELECT clock_timestamp()")


class DatabaseClock:
    """Reads the time where the data lives: PostgreSQL's server clock, or this host's for SQLite, which lives in this process."""

    def read(self, connection: Connection) -> datetime:
        """Return the present time, aware, in UTC."""
        if connection.dialect.name == "postgresql":
            now: datetime = connection.execute(POSTGRESQL_NOW).scalar_one()
            return now.astimezone(UTC)
        return datetime.now(UTC)


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
