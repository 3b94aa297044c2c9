"""What the machine itself refuses: a full disk, no descriptors, no memory. Every service tells it alike, with the remedy.

It is nobody else's fault, and passes when there is room again: what failed is failed, the service goes on.
"""

import errno
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

NO_THREAD = "can't start new thread"
"""How Python words it; the class is RuntimeError."""
MEMORY = ("no memory is left", "free some, or raise `ulimit -v` where the services are started")
PROCESSES = (
    "no further process or thread can be started",
    "raise `ulimit -u` or `ulimit -v` where the services are started, or the limit of their container",
)
FAULTS: Mapping[int, tuple[str, str]] = {
    errno.ENOSPC: ("the disk is full", "free some space on it"),
    errno.EDQUOT: ("the disk quota is used up", "free some space, or raise the quota"),
    errno.EROFS: ("the file system is read-only", "make it writable; look at the kernel's log"),
    errno.EIO: ("the disk fails", "look at the disk and the kernel's log"),
    errno.EMFILE: ("no file descriptor is left", "raise `ulimit -n` where the services are started"),
    errno.ENFILE: ("no file descriptor is left on the whole machine", "raise fs.file-max, or end what holds them"),
    errno.ENOMEM: MEMORY,
    errno.EAGAIN: PROCESSES,
}
"""What is told of an errno, and what to do."""


class HostFault(Exception):
    """The machine refuses what the service needs. Make room as `help` says; nothing has to be started again."""

    code = "host_fault"

    def __init__(self, what: str, *, help: str, place: str = "") -> None:  # noqa: A002 - the contract's word
        super().__init__(f"{what} on {os.uname().nodename}, where maand runs" + (f": {place}" if place else ""))
        self.help = help
        self.facts = {"host": os.uname().nodename, "place": place}


def find_host_fault(error: BaseException, *, place: str = "") -> HostFault | None:
    """Return what is told of an error that is the machine's; None for any other. `place`: the directory or file, when known."""
    if isinstance(error, HostFault):
        return error
    if isinstance(error, MemoryError):
        words: tuple[str, str] | None = MEMORY
    elif isinstance(error, RuntimeError) and str(error) == NO_THREAD:
        words = PROCESSES
    else:
        words = FAULTS.get(error.errno or 0) if isinstance(error, OSError) else None
    if words is None:
        return None
    filename = getattr(error, "filename", None)
    return HostFault(words[0], help=words[1], place=place or str(filename or ""))


@contextmanager
def host_faults_at(place: Path) -> Iterator[None]:
    """Raise what the machine refuses inside as `HostFault` that names the directory; other errors as they are."""
    try:
        yield
    except (OSError, MemoryError) as error:
        fault = find_host_fault(error, place=str(place))
        if fault is None:
            raise
        raise fault from error
