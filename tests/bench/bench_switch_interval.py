"""What `sys.setswitchinterval` does for the catalog on SQLite: the same store in this process, the interval changed every turn.

    python -m tests.bench switch-interval [--seconds 1] [--rounds 5] [--busy]

A store's statements run in threads and let go of the interpreter at every call of the driver; they get it back when the event
loop lets go of it, at the latest after the interval. `--busy` adds what a serving catalog has: an event loop that always has
something to do.
"""

import argparse
import asyncio
import itertools
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.bench.rates import CLIENTS, Act, compare, show, store_alone

INTERVALS_MS = (5.0, 0.5)
"""Python's own, and a tenth of it."""


def main(arguments: Sequence[str]) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=1.0, help="of one turn")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--busy", action="store_true", help="measure only with a busy event loop")
    options = parser.parse_args(arguments)
    for busy in (True,) if options.busy else (False, True):
        with tempfile.TemporaryDirectory(prefix="maand-bench-") as name:
            asyncio.run(measure(Path(name), busy=busy, seconds=options.seconds, rounds=options.rounds))


async def measure(directory: Path, *, busy: bool, seconds: float, rounds: int) -> None:
    """Print rates by interval, with a loop that is idle between writes or one that never is."""
    print("  event loop busy" if busy else "  event loop idle")
    async with store_alone(f"sqlite:///{directory}/maand.db", directory) as works:
        loop = asyncio.create_task(keep_busy()) if busy else None
        for (what, act), clients in itertools.product(works.items(), CLIENTS):
            acts = {f"{interval} ms": at_interval(act, interval) for interval in INTERVALS_MS}
            taken = await compare(acts, clients, seconds=seconds / 2, rounds=rounds)
            show(f"{what} {clients:3}", taken, against=f"{INTERVALS_MS[0]} ms")
        if loop is not None:
            loop.cancel()


def at_interval(act: Act, interval_ms: float) -> Act:
    """Set the interval before every act: it holds for the whole process, and turns follow one another."""

    async def acted(number: int) -> object:
        sys.setswitchinterval(interval_ms / 1000)
        return await act(number)

    return acted


async def keep_busy() -> None:
    """Be in the way as a loop that serves calls is: half a millisecond of Python at a time, without pause."""
    while True:
        until = time.perf_counter() + 0.0005
        while time.perf_counter() < until:
            pass
        await asyncio.sleep(0)
