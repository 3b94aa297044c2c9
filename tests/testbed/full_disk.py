"""A small file system of its own, and how to keep it full."""

import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def mounted_disk(directory: Path, *, size: str) -> Iterator[Path]:
    """Mount a file system of that size at a directory while the block runs."""
    if os.geteuid() != 0:
        raise RuntimeError("a disk that can be filled needs root: run the tests as root, or in a container")
    directory.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "maand-test", directory], check=True)
    try:
        yield directory
    finally:
        subprocess.run(["umount", "--lazy", directory], check=True)


@contextmanager
def kept_full(disk: Path, *more: Path) -> Iterator[None]:
    """Leave no space while the block runs, whatever is deleted meanwhile; files in `more` are made longer by what is left."""
    made, over = [disk / "large", disk / "small"], threading.Event()
    pieces = [(made[0], bytes(64 * 1024)), (made[1], bytes(4096)), *((path, b"\n") for path in more)]

    def keep_full() -> None:
        while not over.wait(0.01):
            for path, piece in pieces:
                fill(path, piece)

    for path, piece in pieces:
        fill(path, piece)
    filling = threading.Thread(target=keep_full)
    filling.start()
    try:
        yield
    finally:
        over.set()
        filling.join()
        for path in made:
            path.unlink()


def fill(path: Path, piece: bytes) -> None:
    """Make a file longer until its disk is full."""
    with suppress(OSError), path.open("ab", buffering=0) as file:
        while file.write(piece):
            pass
