"""One open transaction, as intentions see it, and its clock.

The database's clock is the only one that leases and expiry are decided by: replicas share it, their hosts need not agree.
"""

from datetime import datetime

from sqlalchemy import Connection

from maand_catalog.database.clock import Absence, DatabaseClock, Time


class Transaction:
    """One open transaction on one connection. Used in a worker thread only, and not after the intention returned."""

    def __init__(self, connection: Connection, clock: DatabaseClock) -> None:
        self.connection = connection
        self.dialect: str = connection.dialect.name
        self.topics: set[str] = set()
        self._clock = clock
        self._time: Time | None = None

    @property
    def now(self) -> datetime:
        """The database's clock in UTC, read once per transaction at first use."""
        return self._read_clock().now

    @property
    def lapse_time(self) -> datetime:
        """The time that leases are judged by: those that end by then are over. `now`, but for a while after the clock jumped."""
        return self._read_clock().lapse_time

    @property
    def absence(self) -> Absence | None:
        """The last while in which this replica did not look at the database: leases that ended then could not be renewed."""
        return self._read_clock().absence

    def _read_clock(self) -> Time:
        if self._time is None:
            self._time = self._clock.look(self.connection)
        return self._time

    def notify(self, topic: str) -> None:
        """Wake the topic's subscribers on every replica once this transaction is committed."""
        self.topics.add(topic)
