"""`true` on a crowd with no connection open: every login is paid. Ratios are peer ÷ maand of the same round.

    python -m tests.bench ssh-cold [--workers 300] [--rounds 3]

maand: services that were just started (their start is not counted), then one `maand run_command true`, process included; it
bounds itself, its peers work on fifty at once.
The workers are addresses of one sshd on loopback, its limits out of the way; maand has its default settings. Clients and sshd
share this machine's cores, so sshd's own 14 to 22 ms of CPU a login are in every figure. The worker's user has no shell start-up
files.
"""

import argparse
import asyncio
from collections.abc import Sequence
from functools import partial

from tests.bench import peers, ssh_crew
from tests.bench.bucket import crowd_bucket, restart_services
from tests.bench.rounds import Timed, blocking, show_against, take_turns
from tests.bench.ssh_crew import Target
from tests.e2e.maand import Bucket


def main(arguments: Sequence[str]) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args(arguments)
    with crowd_bucket(options.workers) as (bucket, bed):
        (crowd,) = bed.workers
        secrets = bucket.path / "secrets"
        target = Target(
            hosts=crowd.hosts,
            port=crowd.port,
            user=bed.user,
            key=bed.key,
            known_hosts=secrets / "known_hosts",
            directory=bed.directory,
        )
        print(f"{options.workers} workers, peers {ssh_crew.AT_ONCE} at once, {options.rounds} rounds (min / median / max)")
        show_against(asyncio.run(take_turns(works(bucket, target), options.rounds)), "maand run_command")


def works(bucket: Bucket, target: Target) -> dict[str, Timed]:
    """Return everyone who can be had."""
    everyone = {
        "maand run_command": Timed(work=blocking(partial(run_true, bucket)), prepare=blocking(partial(restart_services, bucket))),
        "bare asyncssh script": Timed(work=blocking(partial(ssh_crew.asyncssh_once, target))),
        "ssh under xargs": Timed(work=blocking(partial(ssh_crew.xargs, target))),
    }
    python, pyinfra = peers.program("python"), peers.program("pyinfra")
    if python and peers.has("pssh"):
        everyone["parallel-ssh"] = Timed(work=blocking(partial(ssh_crew.once, python, "parallel_ssh.py", target)))
    if pyinfra:
        everyone["pyinfra"] = Timed(work=blocking(partial(ssh_crew.pyinfra, pyinfra, target)))
    return everyone


def run_true(bucket: Bucket) -> None:
    """Run `true` everywhere, as a person would."""
    bucket.must("run_command", "true", "-q")
