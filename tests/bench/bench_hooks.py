"""What a hook costs over the bare interpreter, and how many start per second; ratios of interleaved rounds of one run.

    python -m tests.bench hooks [--hooks 200] [--rounds 5]

The catalog is the one in memory: this measures directories, processes, output and tokens, not the wire.
"""

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from maand_executor.hooks.engine import PROCESSES_PER_CORE
from maand_executor.hooks.process import death_with_parent
from tests.integration.executor.hook_bed import HookBed

EMPTY = "pass"
WITH_SDK = "import maand"
SIDE_BY_SIDE = len(os.sched_getaffinity(0)) * PROCESSES_PER_CORE


async def bare(hooks: int, directory: Path, script: str, launcher: tuple[str, ...] = ()) -> float:
    """Start as many bare interpreters, as many at once as hooks would be, and return seconds."""
    slots = asyncio.Semaphore(SIDE_BY_SIDE)
    (directory / "bare.py").write_text(script)

    async def one() -> None:
        async with slots:
            process = await asyncio.create_subprocess_exec(
                *launcher, sys.executable, "bare.py", cwd=directory, env={"PATH": os.environ["PATH"]}, start_new_session=True
            )
            await process.wait()

    began = time.perf_counter()
    await asyncio.gather(*(one() for _ in range(hooks)))
    return time.perf_counter() - began


async def through_engine(hooks: int, directory: Path, script: str, *, files: int = 0) -> float:
    """Run one batch of hooks and return seconds from the request to the last stored event."""
    bed = HookBed(state_dir=directory)
    bed.files |= {f"content/file_{number}": f"{number}\n" for number in range(files)}
    bed.add("hook_bench", script)
    await bed.run(targets=1)
    bed.steps.clear()
    began = time.perf_counter()
    outcome = await bed.run(targets=hooks, batch_size=hooks)
    seconds = time.perf_counter() - began
    assert outcome.ok
    await bed.close()
    return seconds


async def measure(hooks: int, rounds: int) -> dict[str, list[float]]:
    """Take every measurement once a round, so that a slow minute of the machine hits all of them."""
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        works: dict[str, Callable[[int], Awaitable[float]]] = {
            "bare python": lambda _: bare(hooks, place, EMPTY),
            "bare python behind setpriv": lambda _: bare(hooks, place, EMPTY, death_with_parent()),
            "hook": lambda n: through_engine(hooks, place / f"hook-{n}", EMPTY),
            "hook, 200 files in the job": lambda n: through_engine(hooks, place / f"files-{n}", EMPTY, files=200),
            "hook that imports the SDK": lambda n: through_engine(hooks, place / f"sdk-{n}", WITH_SDK),
        }
        taken: dict[str, list[float]] = {what: [] for what in works}
        for number in range(rounds):
            for what, work in works.items():
                taken[what].append(await work(number))
        return taken


def main(arguments: Sequence[str]) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--hooks", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args(arguments)
    taken = asyncio.run(measure(options.hooks, options.rounds))
    base = taken["bare python"]
    print(f"{options.hooks} starts, {SIDE_BY_SIDE} at once, {options.rounds} rounds; × bare python: min / median / max")
    for what, seconds in taken.items():
        ratios = sorted(one / reference for one, reference in zip(seconds, base, strict=True))
        each = statistics.median(seconds) / options.hooks
        spread = f"{ratios[0]:.2f} / {statistics.median(ratios):.2f} / {ratios[-1]:.2f}"
        print(f"{what:28} {1 / each:7.0f}/s  {each * 1000:6.1f} ms  × {spread}")
