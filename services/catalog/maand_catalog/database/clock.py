"""The database's clock, and how far it can be trusted about leases.

Replicas share this clock, so it decides what is over; but it is a wall clock, and wall clocks are set: by NTP after a boot, by
hand, by a machine that slept. Each replica therefore compares how far it moved with its own monotonic clock:

    moved alike ──▶ leases that end by now are over
    jumped      ──▶ for one lease no lease is over: owners that are well renew meanwhile, and what they store is the new time

A lease that reaches further into the future than any lease can (a jump back, its owner died) is cut down by upkeep.
"""

import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection, text

POSTGRESQL_NOW = text("SELECT clock_timestamp()")

LONGEST_LEASE = timedelta(seconds=15)
"""Of a run, a task or a waiting room: what was kept alive when the clock jumped is renewed within this time, or not at all."""

SMALLEST_JUMP = timedelta(seconds=2)
"""Less is no jump: leases have room for it, and clocks that are slewed move against each other too."""

LONGEST_PAUSE = timedelta(seconds=3)
"""Between two looks of a replica that is well: upkeep looks every second."""

LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)
"""When no lease ended."""


@dataclass(frozen=True, kw_only=True)
class Look:
    """One look at the database's clock, which happened at some moment between two readings of the monotonic clock, in seconds."""

    now: datetime
    before: float
    after: float

    def jump_since(self, earlier: "Look") -> timedelta:
        """Return by how much the clock moved too far (or, negative, not far enough) since an earlier look, at the least."""
        moved = self.now - earlier.now
        most, least = timedelta(seconds=self.after - earlier.before), timedelta(seconds=self.before - earlier.after)
        return max(moved - most, timedelta()) + min(moved - least, timedelta())


@dataclass(frozen=True, kw_only=True)
class Absence:
    """A while, on the database's clock, in which this replica did not look: it was stopped, frozen, or without its database."""

    since: datetime
    until: datetime

    def covers_most_of(self, *, lease: timedelta, until: datetime) -> bool:
        """Whether a lease that ended then could not be renewed, for more than half of it, because nobody was there."""
        missed = min(self.until, until) - max(self.since, until - lease)
        return missed > lease / 2


class DatabaseClock:
    """Reads the time where the data lives: PostgreSQL's server clock, or this host's for SQLite, which lives in this process.

    One for each open database; used from its worker threads.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last: Look | None = None
        self._distrusted_until = float("-inf")
        self._absence: Absence | None = None

    def read(self, connection: Connection) -> datetime:
        """Return the present time, aware, in UTC."""
        if connection.dialect.name == "postgresql":
            now: datetime = connection.execute(POSTGRESQL_NOW).scalar_one()
            return now.astimezone(UTC)
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Return seconds on a clock that nobody sets."""
        return time.monotonic()

    def look(self, connection: Connection) -> "Time":
        """Read the clock and judge it."""
        before = self.monotonic()
        look = Look(now=self.read(connection), before=before, after=self.monotonic())
        with self._lock:
            self._remember(look)
            is_trusted = look.before >= self._distrusted_until
            return Time(now=look.now, lapse_time=look.now if is_trusted else LONG_AGO, absence=self._absence)

    def _remember(self, look: Look) -> None:
        last, self._last = self._last, look
        if last is None:
            self._absence = Absence(since=LONG_AGO, until=look.now)
            return
        if abs(look.jump_since(last)) > SMALLEST_JUMP:
            self._distrusted_until = max(self._distrusted_until, look.after + LONGEST_LEASE.total_seconds())
        if timedelta(seconds=look.before - last.after) > LONGEST_PAUSE:
            self._absence = Absence(since=last.now, until=look.now)


@dataclass(frozen=True, kw_only=True)
class Time:
    """What the clock says.

    `now` is the time; `lapse_time` is when leases must have ended to be over: `now`, or long ago while the clock is not to be
    trusted. `absence` is the last while in which this replica looked at nothing.
    """

    now: datetime
    lapse_time: datetime
    absence: Absence | None
