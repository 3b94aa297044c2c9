"""What a person waits for before anything happens: `--help`, a read, the start of the local services.

    python -m tests.bench cli [--rounds 20] [--starts 3]

Seconds on the clock and seconds of CPU (user and system, of the process and its children): the second hardly depends on what
else the machine is doing. A services start is counted until `maand services start` returns, and the CPU is that of the host too.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench.bucket import services_cpu_seconds
from tests.bench.rounds import spread
from tests.e2e.maand import PROGRAM, Bucket


@dataclass(frozen=True, kw_only=True)
class Times:
    """Milliseconds of one command, by round."""

    clock: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def add(self, words: Sequence[str], bucket: Bucket) -> None:
        """Run a command and note what it took."""
        begun = time.perf_counter()
        process = subprocess.Popen(words, cwd=bucket.path, stdout=subprocess.DEVNULL)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0, words
        self.clock.append((time.perf_counter() - begun) * 1000)
        self.cpu.append((used.ru_utime + used.ru_stime) * 1000)

    def line(self, name: str) -> str:
        """Say both."""
        return f"  {name:32} {spread(self.clock, 0):>18} ms   CPU {spread(self.cpu, 0)} ms"


def main(arguments: Sequence[str]) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--starts", type=int, default=3)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="maand-bench-") as name:
        bucket = Bucket(path=Path(name))
        bucket.must("init")
        try:
            show_starts(bucket, options.starts)
            show_commands(bucket, options.rounds)
        finally:
            bucket.stop_services()


def show_commands(bucket: Bucket, rounds: int) -> None:
    """Print what commands take, in turns with the bare interpreter."""
    commands = {
        "python -c pass": [sys.executable, "-c", "pass"],
        "python -c 'import click, grpc'": [sys.executable, "-c", "import click, grpc"],
        "maand --help": [str(PROGRAM), "--help"],
        "maand cat jobs": [str(PROGRAM), "cat", "jobs", "-q"],
    }
    taken = {name: Times() for name in commands}
    for _ in range(rounds):
        for name, words in commands.items():
            taken[name].add(words, bucket)
    for name, times in taken.items():
        print(times.line(name), flush=True)


def show_starts(bucket: Bucket, starts: int) -> None:
    """Print what a start of the services takes: the first one makes the database."""
    first = start_seconds(bucket)
    again = [start_seconds(bucket) for _ in range(starts)]
    print(f"  maand services start, new bucket {first[0]:.2f} s   CPU of the host {first[1]:.2f} s")
    clock, cpu = ([one[side] for one in again] for side in (0, 1))
    print(f"  maand services start             {spread(clock)} s   CPU of the host {statistics.median(cpu):.2f} s", flush=True)


def start_seconds(bucket: Bucket) -> tuple[float, float]:
    """Start the services, stop them, and return the seconds that the start took, and those of CPU that the host had used."""
    begun = time.perf_counter()
    bucket.must("services", "start")
    seconds = time.perf_counter() - begun
    cpu = services_cpu_seconds(bucket)
    bucket.stop_services()
    return seconds, cpu
