"""The end of a file, and what is added to it."""

import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from maand_cli.errors import NotThere

LOOK_SECONDS = 0.2


def last_lines(path: Path, number: int) -> list[str]:
    """Return the last lines. Raises NotThere when there is no file."""
    try:
        with path.open(errors="replace") as file:
            return [line.rstrip("\n") for line in deque(file, maxlen=number)]
    except FileNotFoundError:
        raise NotThere(f"{path} does not exist: the services never ran here") from None


def follow_file(path: Path) -> Iterator[str]:
    """Give lines as they are written, until interrupted."""
    with path.open(errors="replace") as file:
        file.seek(0, 2)
        while True:
            line = file.readline()
            if line:
                yield line.rstrip("\n")
            else:
                time.sleep(LOOK_SECONDS)
