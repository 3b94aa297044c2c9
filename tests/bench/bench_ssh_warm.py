"""`true` on a crowd with all connections open, and what an open connection costs. Ratios are peer ÷ maand of the same round.

    python -m tests.bench ssh-warm [--workers 100] [--rounds 5]

maand: `maand run_command true` as a process, against services that hold the connections. ansible keeps its own through
OpenSSH, `ssh` goes over ControlMasters, the asyncssh and parallel-ssh scripts hold theirs. Otherwise as ssh-cold.
"""

import argparse
import asyncio
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial

from tests.bench import peers, ssh_crew
from tests.bench.bench_ssh_cold import run_true
from tests.bench.bucket import crowd_bucket, restart_services, services_cpu_seconds, services_mebibytes
from tests.bench.rounds import Timed, blocking, show_against, take_turns
from tests.bench.ssh_crew import Crew, Target
from tests.e2e.maand import Bucket


def main(arguments: Sequence[str]) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args(arguments)
    with crowd_bucket(options.workers) as (bucket, bed):
        (crowd,) = bed.workers
        target = Target(
            hosts=crowd.hosts,
            port=crowd.port,
            user=bed.user,
            key=bed.key,
            known_hosts=bucket.path / "secrets" / "known_hosts",
            directory=bed.directory,
        )
        show_costs(bucket, options.workers)
        print(f"{options.workers} workers, peers {ssh_crew.AT_ONCE} at once, {options.rounds} rounds (min / median / max)")
        with warm_works(bucket, target) as works:
            asyncio.run(take_turns(works, 1))  # opens what stays open
            show_against(asyncio.run(take_turns(works, options.rounds)), "maand run_command")


def show_costs(bucket: Bucket, connections: int) -> None:
    """Print what the services hold before and after they opened a connection to every worker, and what a command costs them."""
    restart_services(bucket)
    bucket.must("run_command", "true", "-q", "-w", next(iter(worker_hosts(bucket))))
    before = services_mebibytes(bucket)
    run_true(bucket)
    after, begun = services_mebibytes(bucket), services_cpu_seconds(bucket)
    run_true(bucket)
    cpu_ms = (services_cpu_seconds(bucket) - begun) / connections * 1000
    each = (after - before) / (connections - 1)
    print(
        f"  services: {before:.0f} MiB with one connection, {after:.0f} MiB with {connections}: {each:.2f} MiB each, "
        f"{after / connections:.2f} MiB each with everything else that they hold"
    )
    print(f"  services: {cpu_ms:.2f} ms of CPU for one command over an open connection, catalog and events included")


def worker_hosts(bucket: Bucket) -> list[str]:
    """Return the workers' addresses."""
    return [row["name"] for row in bucket.must("cat", "workers", "-o", "json").json()]


@contextmanager
def warm_works(bucket: Bucket, target: Target) -> Iterator[dict[str, Timed]]:
    """Give everyone who can be had; connections are closed at the end."""
    (target.directory / "m").mkdir()
    python, ansible = peers.program("python"), peers.program("ansible")
    with ExitStack() as stack:
        bare = Crew(sys.executable, "bare_asyncssh.py", target)
        stack.callback(bare.close)
        stack.callback(ssh_crew.close_masters, target)
        everyone = {
            "maand run_command": Timed(work=blocking(partial(run_true, bucket))),
            "bare asyncssh script": Timed(work=blocking(bare.turn)),
            "ssh over ControlMasters": Timed(work=blocking(partial(ssh_crew.xargs, target, masters=True))),
        }
        if python and peers.has("pssh"):
            parallel = Crew(python, "parallel_ssh.py", target)
            stack.callback(parallel.close)
            everyone["parallel-ssh"] = Timed(work=blocking(parallel.turn))
        if ansible:
            everyone["ansible"] = Timed(work=blocking(partial(ssh_crew.ansible, ansible, target)))
        yield everyone
