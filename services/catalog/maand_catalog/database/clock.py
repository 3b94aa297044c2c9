"""The database's clock, the only one that leases and expiry are decided by: replicas share it, their hosts need not agree."""

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
