"""One changed file of a job's tree to a crowd, over connections that are open. Ratios are peer ÷ maand of the same round.

    python -m tests.bench ssh-copy [--workers 50] [--rounds 5]

maand's copy is taken here as the executor calls it, without command line and catalog: rsync through the pooled connection.
The peer is rsync with the same flags over warm ControlMasters, as many at once. Otherwise as ssh-cold.
"""

import argparse
import asyncio
import os
import subprocess
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from maand_executor.rules.facts import BucketConfig, Worker
from maand_executor.ssh.copy import RemoteCopy
from maand_executor.ssh.remote import Remote
from tests.bench import ssh_crew
from tests.bench.rounds import Timed, blocking, show_against, take_turns
from tests.bench.ssh_crew import Target
from tests.testbed.sshd import SshTestBed

COPIES_AT_ONCE = 16
FILES, FILE_BYTES = 20, 10_240


def main(arguments: Sequence[str]) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="maand-bench-") as name:
        bed = SshTestBed(Path(name) / "bed", max_startups="600", max_sessions=100)
        try:
            crowd = bed.start_crowd(options.workers)
            secrets = Path(name) / "secrets"
            bed.write_secrets(secrets)
            target = Target(
                hosts=crowd.hosts,
                port=crowd.port,
                user=bed.user,
                key=bed.key,
                known_hosts=secrets / "known_hosts",
                directory=Path(name),
            )
            (target.directory / "m").mkdir()
            print(f"{FILES} files of {FILE_BYTES} bytes, one changed, to {options.workers} workers, {options.rounds} rounds")
            asyncio.run(measure(target, secrets, options.rounds))
            ssh_crew.close_masters(target)
        finally:
            bed.stop()


async def measure(target: Target, secrets: Path, rounds: int) -> None:
    """Copy everything once, then one changed file in turns."""
    config = BucketConfig(bucket_id="bench", ssh_user=target.user, ssh_port=target.port)
    remote = Remote(config, secrets)
    ours, theirs = new_tree(target.directory / "ours"), new_tree(target.directory / "theirs")
    works = {
        "maand": Timed(work=partial(copy_all, remote, ours, target), prepare=blocking(partial(change, ours))),
        "rsync over ControlMasters": Timed(
            work=blocking(partial(rsync_all, theirs, target)), prepare=blocking(partial(change, theirs))
        ),
    }
    await take_turns(works, 1)
    show_against(await take_turns(works, rounds), "maand")
    await remote.close()


async def copy_all(remote: Remote, source: Path, target: Target) -> None:
    """Copy a tree to each worker's own directory."""
    copies = [(Worker(name=host), RemoteCopy(source=source, target=f"maand/{host}", sudo=False)) for host in target.hosts]
    await asyncio.gather(*(remote.copy(worker, copy) for worker, copy in copies))


def rsync_all(source: Path, target: Target) -> None:
    """Copy a tree everywhere with rsync."""
    shell = " ".join(ssh_crew.ssh(target, masters=True))
    rsync = ["rsync", "-rlpc", "--delete-after", "--delay-updates", "-e", shell, f"{source}/", "{}:peer-{}/"]
    words = ["xargs", "-P", str(COPIES_AT_ONCE), "-I", "{}", *rsync]
    subprocess.run(words, input="\n".join(target.hosts), text=True, check=True)


def new_tree(directory: Path) -> Path:
    """Make a job's directory."""
    directory.mkdir()
    for number in range(FILES):
        (directory / f"file-{number}").write_bytes(os.urandom(FILE_BYTES))
    return directory


def change(directory: Path) -> None:
    """Change one file."""
    (directory / "file-7").write_bytes(os.urandom(FILE_BYTES))
