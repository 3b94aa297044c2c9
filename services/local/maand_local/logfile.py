"""The log of the local services: one file, put aside at start when it has grown too long."""

import os
import sys
from pathlib import Path

LARGEST_BYTES = 10 * 1024 * 1024


def write_to(log: Path) -> None:
    """Send standard output and error of this process to the log, whatever the starter had them at."""
    sys.stdout.flush()
    sys.stderr.flush()
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)


def rotate(log: Path, *, largest_bytes: int = LARGEST_BYTES) -> None:
    """Rename a log that is too long to `<name>.1`; the one before is dropped. Only whoever holds the lock may do so."""
    try:
        if log.stat().st_size > largest_bytes:
            log.replace(log.with_name(f"{log.name}.1"))
    except FileNotFoundError:
        return
