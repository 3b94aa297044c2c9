"""Keeping a second process off a SQLite database: a lock file beside it, locked for as long as this process has it open.

The lock is taken on a file of its own: locking the database file itself would drop SQLite's own locks when it is closed.
"""

import fcntl
import os
from contextlib import suppress
from pathlib import Path

from maand_catalog.errors import FailedPrecondition


class DatabaseInUse(FailedPrecondition):
    """Another process has this SQLite database open. Stop it, or point both at one PostgreSQL."""

    code = "database_in_use"
    help = "stop the other process (`maand services stop`), or use PostgreSQL for more than one catalog"


class DatabaseNotLocked(FailedPrecondition):
    """The lock file beside a SQLite database cannot be made. Its directory must be there and belong to the catalog's user."""

    code = "database_not_locked"
    help = "the directory of the database must be there, and writable"


class FileLock:
    """An exclusive lock on `<database>.lock`, which names the holder's process id."""

    def __init__(self, database: Path) -> None:
        self.database = database
        self._path = database.with_name(database.name + ".lock")
        self._descriptor = -1

    def take(self) -> None:
        """Take the lock or raise `DatabaseInUse` naming the holder; `DatabaseNotLocked` when there can be no lock file."""
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise DatabaseNotLocked(f"{self._path} cannot be written: {error.strerror}") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.read(descriptor, 32).decode(errors="replace").strip() or "unknown"
            os.close(descriptor)
            raise DatabaseInUse(f"{self.database} is open in process {holder}", facts={"pid": holder}) from error
        with suppress(OSError):  # a full disk: the lock holds all the same, only its holder is not named
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"{os.getpid()}\n".encode())
        self._descriptor = descriptor

    def release(self) -> None:
        """Give the lock back. The file stays: removing it would let two processes lock two different files."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
