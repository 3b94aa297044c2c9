"""How every bench measures: works take turns, round by round, so that a slow minute of the machine hits all of them.

A figure is min / median / max over the rounds; a ratio is taken within a round and then treated the same. What else the machine
was doing is printed before and after, because it is in every figure.
"""

import asyncio
import os
import statistics
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

BUSY_LOAD = 1.5
"""One-minute load above which a figure is not worth quoting on the two cores that everything here was measured on."""

Work = Callable[[], Awaitable[object]]


@dataclass(frozen=True, kw_only=True)
class Timed:
    """One work of a comparison. `prepare` puts things right before each turn and is not counted."""

    work: Work
    prepare: Work | None = None


@contextmanager
def load_told(what: str) -> Iterator[None]:
    """Print the machine's load before and after; warn when others are at work."""
    begun, load = time.monotonic(), os.getloadavg()[0]
    print(f"== {what}: {time.strftime('%Y-%m-%d %H:%M')}, {len(os.sched_getaffinity(0))} cores, load {load:.1f}", flush=True)
    if load > BUSY_LOAD:
        print(f"   WARNING: load {load:.1f} at the start; absolute figures are worth little, ratios somewhat more", flush=True)
    yield
    print(f"== {what}: took {time.monotonic() - begun:.0f} s, load {os.getloadavg()[0]:.1f} at the end\n", flush=True)


async def take_turns(works: Mapping[str, Timed], rounds: int) -> dict[str, list[float]]:
    """Do each work once a round, and return the seconds each took."""
    taken: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, timed in works.items():
            if timed.prepare is not None:
                await timed.prepare()
            begun = time.perf_counter()
            await timed.work()
            taken[name].append(time.perf_counter() - begun)
    return taken


def blocking(work: Callable[[], object]) -> Work:
    """Let a blocking work take its turn."""
    return lambda: asyncio.to_thread(work)


def show_against(taken: Mapping[str, Sequence[float]], ours: str) -> None:
    """Print seconds of each work, and how many times as long as ours each peer takes."""
    for name, seconds in taken.items():
        against = "" if name == ours else f"   {name} ÷ {ours}: {spread(ratios(seconds, taken[ours]))}"
        print(f"  {name:32} {spread(seconds)} s{against}", flush=True)


def ratios(some: Sequence[float], others: Sequence[float]) -> list[float]:
    """Divide round by round."""
    return [one / other for one, other in zip(some, others, strict=True)]


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Say min / median / max."""
    return " / ".join(f"{value:.{digits}f}" for value in (min(values), statistics.median(values), max(values)))
