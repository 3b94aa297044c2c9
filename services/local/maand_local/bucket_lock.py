"""One host per bucket: an flock that the kernel gives back whatever way its holder ends."""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO


class HeldByAnother(Exception):
    """Another host serves this bucket. Nothing is to be done: use it, or stop it with `maand services stop`."""

    code = "held_by_another"

    def __init__(self, holder: str) -> None:
        super().__init__(f"another host serves this bucket: {holder or 'just starting'}")


@contextmanager
def hold_lock(path: Path, *, since: str) -> Iterator[None]:
    """Hold the lock while the block runs; its file says who does. Raises HeldByAnother at once when it is held."""
    with path.open("a+") as file:
        _lock(file)
        file.truncate(0)
        file.write(json.dumps({"pid": os.getpid(), "since": since}))
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)


def _lock(file: TextIO) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.seek(0)
        raise HeldByAnother(file.read()) from error
