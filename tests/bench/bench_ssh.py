"""Reaching workers: `true` cold and warm, and copies, against `ssh` under xargs, over the same sshd in one run, interleaved.

    python -m tests.bench.bench_ssh [workers=100] [copies=50] [rounds=5]

All workers are addresses of one sshd on loopback, with MaxStartups and MaxSessions out of the way; clients and sshd share this
machine's cores, so sshd's own cost (about 20 ms a login, 3 ms a command) is in every figure. The worker's user has no start-up
files. Ratios are maand ÷ peer of the same round: min / median / max.
"""

import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from maand_executor.facts import BucketConfig, Worker
from maand_executor.ssh.command import RemoteCommand
from maand_executor.ssh.copy import RemoteCopy
from maand_executor.ssh.remote import Remote
from tests.testbed.sshd import SshTestBed
from tests.testbed.worker import SshWorker

AT_ONCE = 50
FILES, FILE_SIZE = 20, 10_240


@dataclass(frozen=True, kw_only=True)
class Fleet:
    """The workers, and how both sides reach them."""

    bed: SshTestBed
    crowd: SshWorker
    directory: Path

    @property
    def ssh(self) -> str:
        """An `ssh` command line without its host."""
        options = [
            *(
                "-F",
                "none",
                "-i",
                str(self.directory / "secrets" / "worker.key"),
                "-p",
                str(self.crowd.port),
                "-l",
                self.bed.user,
            ),
            *("-o", f"UserKnownHostsFile={self.directory / 'secrets' / 'known_hosts'}", "-o", "BatchMode=yes"),
            *("-o", "KexAlgorithms=curve25519-sha256", "-o", "Ciphers=aes128-gcm@openssh.com"),
        ]
        return "ssh " + " ".join(options)

    @property
    def warm_ssh(self) -> str:
        """The same over a ControlMaster that stays open."""
        return f"{self.ssh} -o ControlMaster=auto -o ControlPersist=600 -o ControlPath={self.directory}/m/%C"

    def remote(self) -> Remote:
        """Give a fresh `Remote`, with room for everybody."""
        config = BucketConfig(
            bucket_id="bench",
            ssh_user=self.bed.user,
            ssh_port=self.crowd.port,
            max_ssh_sessions=1000,
            ssh_starts_per_second=1000,
        )
        return Remote(config, self.directory / "secrets")


async def main(workers: int = 100, copies: int = 50, rounds: int = 5) -> None:
    """Run everything and print the ratios."""
    with tempfile.TemporaryDirectory(prefix="maand-bench-ssh-") as name:
        directory = Path(name)
        (directory / "m").mkdir()
        bed = SshTestBed(directory / "bed", max_startups="600", max_sessions=100)
        try:
            fleet = Fleet(bed=bed, crowd=bed.start_crowd(workers), directory=directory)
            bed.write_secrets(directory / "secrets")
            await measure(fleet, list(fleet.crowd.hosts), list(fleet.crowd.hosts)[:copies], rounds)
        finally:
            bed.stop()


async def measure(fleet: Fleet, hosts: list[str], copied: list[str], rounds: int) -> None:
    """Measure cold, warm and copies, each side by side with its peer."""
    print(f"{len(hosts)} workers, {AT_ONCE} at once; {len(copied)} copies of {FILES} files with one changed; {rounds} rounds")
    await compare(
        f"cold `true` on {len(hosts)}: maand ÷ ssh | xargs", rounds, lambda: cold(fleet, hosts), lambda: xargs(fleet.ssh, hosts)
    )
    remote = fleet.remote()
    await commands(remote, hosts)
    print(f"memory per open connection: {memory_per_connection(remote, len(hosts)):.2f} MiB (this process, all it holds)")
    await asyncio.to_thread(xargs, fleet.warm_ssh, hosts)
    await compare(
        f"warm `true` on {len(hosts)}: maand ÷ ssh ControlMaster | xargs",
        rounds,
        lambda: commands(remote, hosts),
        lambda: xargs(fleet.warm_ssh, hosts),
    )
    trees = [tree(fleet.directory / side) for side in ("maand", "peer")]
    await copy_all(remote, trees[0], copied)
    await asyncio.to_thread(rsync_all, fleet, trees[1], copied)
    await compare(
        f"one changed file to {len(copied)}: maand ÷ rsync over ControlMaster | xargs",
        rounds,
        lambda: copy_all(remote, change(trees[0]), copied),
        lambda: rsync_all(fleet, change(trees[1]), copied),
    )
    await remote.close()
    await asyncio.to_thread(close_masters, fleet, hosts)


async def compare(title: str, rounds: int, ours: Callable[[], Awaitable[None]], theirs: Callable[[], None]) -> None:
    """Take turns, and print the times and their ratio."""
    mine, peers = [], []
    for _ in range(rounds):
        begun = time.perf_counter()
        await ours()
        mine.append(time.perf_counter() - begun)
        begun = time.perf_counter()
        await asyncio.to_thread(theirs)
        peers.append(time.perf_counter() - begun)
    ratios = [one / other for one, other in zip(mine, peers, strict=True)]
    print(f"{title}\n  maand {spread(mine)} s   peer {spread(peers)} s   ratio {spread(ratios)}")


def spread(values: list[float]) -> str:
    """Say min / median / max."""
    return f"{min(values):.2f} / {statistics.median(values):.2f} / {max(values):.2f}"


# Our side -----------------------------------------------------------------------------------------------------------------------


async def cold(fleet: Fleet, hosts: list[str]) -> None:
    """Log in everywhere and run `true`."""
    remote = fleet.remote()
    await commands(remote, hosts)
    await remote.close()


async def commands(remote: Remote, hosts: list[str]) -> None:
    """Run `true` everywhere."""
    limit = asyncio.Semaphore(AT_ONCE)

    async def one(host: str) -> None:
        async with limit:
            assert (await remote.run(Worker(host=host), RemoteCommand(script="true", sudo=False))).ok

    await asyncio.gather(*(one(host) for host in hosts))


async def copy_all(remote: Remote, source: Path, hosts: list[str]) -> None:
    """Copy a tree to each worker's own directory."""
    copies = [(Worker(host=host), RemoteCopy(source=source, target=f"maand/{host}", sudo=False)) for host in hosts]
    await asyncio.gather(*(remote.copy(worker, copy) for worker, copy in copies))


def memory_per_connection(remote: Remote, expected: int) -> float:
    """Divide what this process holds by its connections."""
    assert remote.open_connections == expected
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20 / expected


# Their side ---------------------------------------------------------------------------------------------------------------------


def xargs(ssh: str, hosts: list[str]) -> None:
    """Run `true` everywhere with `ssh`, fifty at once."""
    line = f"xargs -P {AT_ONCE} -I {{}} {ssh} {{}} true"
    subprocess.run(line.split(), input="\n".join(hosts).encode(), check=True, stderr=subprocess.DEVNULL)


def rsync_all(fleet: Fleet, source: Path, hosts: list[str]) -> None:
    """Copy a tree everywhere with rsync over warm ControlMasters, as many at once as maand does."""
    rsync = ["rsync", "-rlpc", "--delete-after", "--delay-updates", "-e", fleet.warm_ssh, f"{source}/", "{}:peer-{}/"]
    subprocess.run(["xargs", "-P", "16", "-I", "{}", *rsync], input="\n".join(hosts).encode(), check=True)


def close_masters(fleet: Fleet, hosts: list[str]) -> None:
    """End the ControlMasters."""
    line = f"xargs -P 8 -I {{}} {fleet.warm_ssh} -O exit {{}}"
    subprocess.run(line.split(), input="\n".join(hosts).encode(), check=False, stderr=subprocess.DEVNULL)


def tree(directory: Path) -> Path:
    """Make a job's directory."""
    directory.mkdir()
    for number in range(FILES):
        (directory / f"file-{number}").write_bytes(os.urandom(FILE_SIZE))
    return directory


def change(directory: Path) -> Path:
    """Change one file."""
    (directory / "file-7").write_bytes(os.urandom(FILE_SIZE))
    return directory


if __name__ == "__main__":
    asyncio.run(main(**{name: int(value) for name, _, value in (word.partition("=") for word in sys.argv[1:])}))
