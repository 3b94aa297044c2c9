"""Deploys of 1,000 allocations, through command line and services: the first, one with nothing to do, 100 changed.

    python -m tests.bench deploy [--workers 50] [--jobs 20] [--changed 2] [--rounds 3] [--per-job 50]

Every worker is an sshd on loopback with files of its own; a job is a Makefile that does nothing, and a file. Each figure is of
one `maand deploy`, process included; builds are told apart. What is changed is one file of some jobs, on all their workers.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.bench.bucket import new_bucket
from tests.bench.rounds import spread
from tests.e2e.maand import Bucket
from tests.testbed.sshd import SshTestBed

MAKEFILE = "start stop restart reload:\n\t@true\n"


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How large it is."""

    workers: int
    jobs: int
    changed: int
    per_job: int

    @property
    def allocations(self) -> int:
        """How many allocations there are."""
        return self.workers * self.jobs


def main(arguments: Sequence[str]) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=50)
    parser.add_argument("--jobs", type=int, default=20)
    parser.add_argument("--changed", type=int, default=2, help="jobs whose content changes")
    parser.add_argument("--per-job", type=int, default=50, help="allocations of a job updated side by side")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args(arguments)
    scale = Scale(workers=options.workers, jobs=options.jobs, changed=options.changed, per_job=options.per_job)
    print(f"{scale.jobs} jobs on {scale.workers} workers, {options.rounds} rounds (min / median / max)")
    with deployed_from_nothing(scale) as bucket:
        measure(bucket, scale, options.rounds)


@contextmanager
def deployed_from_nothing(scale: Scale) -> Iterator[Bucket]:
    """Start the workers, build, and deploy for the first time."""
    with tempfile.TemporaryDirectory(prefix="maand-bench-") as name:
        bed = SshTestBed(Path(name) / "bed")
        try:
            workers = bed.start_workers(scale.workers)
            bucket = new_bucket(Path(name), bed, [worker.host for worker in workers], port=bed.port)
            write_jobs(bucket, scale)
            try:
                print(f"  build                            {timed(bucket, 'build'):.2f} s")
                print(f"  first deploy of {scale.allocations:5}            {timed(bucket, 'deploy'):.2f} s", flush=True)
                yield bucket
            finally:
                bucket.stop_services()
        finally:
            bed.stop()


def measure(bucket: Bucket, scale: Scale, rounds: int) -> None:
    """Take turns: nothing to do, something changed."""
    nothing, something = [], []
    changed = scale.changed * scale.workers
    for number in range(rounds):
        nothing.append(deploy(bucket, skipped=scale.allocations))
        for job in range(scale.changed):
            write_content(bucket, job, f"round {number}")
        bucket.must("build")
        something.append(deploy(bucket, promoted=changed, skipped=scale.allocations - changed))
    print(f"  deploy, nothing to do            {spread(nothing)} s")
    print(f"  deploy, {changed:4} changed             {spread(something)} s")
    each_ms = (statistics.median(something) - statistics.median(nothing)) / changed * 1000
    print(f"  a changed allocation costs       {each_ms:.0f} ms")


def deploy(bucket: Bucket, **counts: int) -> float:
    """Return the seconds of a deploy that must have done so much, no less and no more."""
    begun = time.perf_counter()
    ended = bucket.must("deploy", "-o", "json", timeout=600)
    seconds = time.perf_counter() - begun
    done = ended.json()["run"]["result"]["counts"]
    assert done == {word: count for word, count in counts.items() if count}, done
    return seconds


def timed(bucket: Bucket, *words: str) -> float:
    """Return the seconds of one command."""
    begun = time.perf_counter()
    bucket.must(*words, "-q", timeout=600)
    return time.perf_counter() - begun


def write_jobs(bucket: Bucket, scale: Scale) -> None:
    """Write the jobs, all for all workers."""
    manifest = f'{{"version": "1.0.0", "selectors": ["worker"], "max_concurrent_upgrades": {scale.per_job}}}\n'
    for job in range(scale.jobs):
        bucket.write(f"workspace/jobs/job{job}/manifest.json", manifest)
        bucket.write(f"workspace/jobs/job{job}/Makefile", MAKEFILE)
        write_content(bucket, job, "first")


def write_content(bucket: Bucket, job: int, content: str) -> None:
    """Change the file of a job."""
    bucket.write(f"workspace/jobs/job{job}/content", f"{content}\n")
