"""A bucket on real OpenSSH workers of loopback, worked on as a person does: by the command line, served by real services."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.e2e.maand import Bucket
from tests.testbed.sshd import SshTestBed


@contextmanager
def crowd_bucket(count: int) -> Iterator[tuple[Bucket, SshTestBed]]:
    """Give a bucket with so many workers that are addresses of one sshd, built, without jobs."""
    with tempfile.TemporaryDirectory(prefix="maand-bench-") as name:
        bed = SshTestBed(Path(name) / "bed", max_startups="600", max_sessions=100)
        try:
            crowd = bed.start_crowd(count)
            bucket = new_bucket(Path(name), bed, crowd.hosts, port=crowd.port)
            bucket.configure(use_sudo=False)  # its peers do not become root either; sudo alone takes some milliseconds a command
            try:
                bucket.must("build")
                yield bucket, bed
            finally:
                bucket.stop_services()
        finally:
            bed.stop()


def new_bucket(directory: Path, bed: SshTestBed, hosts: Sequence[str], *, port: int) -> Bucket:
    """Make a bucket with these workers and no jobs, settings as they are by default; host keys are pinned, nothing is built."""
    bucket = Bucket(path=directory / "bucket")
    bucket.path.mkdir()
    bucket.must("init")
    bucket.configure(ssh_user=bed.user, ssh_port=port)
    bed.write_secrets(bucket.path / "secrets")
    shutil.rmtree(bucket.path / "workspace" / "jobs", ignore_errors=True)
    bucket.write("workspace/workers.json", json.dumps([{"host": host} for host in hosts]))
    return bucket


def restart_services(bucket: Bucket) -> None:
    """Start the services anew: they have no connections then."""
    bucket.stop_services()
    bucket.must("services", "start")


def services_mebibytes(bucket: Bucket) -> float:
    """Return the memory that the services hold now."""
    pages = int(Path(f"/proc/{services_pid(bucket)}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def services_cpu_seconds(bucket: Bucket) -> float:
    """Return the CPU time that the services have used since they began."""
    fields = Path(f"/proc/{services_pid(bucket)}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def services_pid(bucket: Bucket) -> int:
    """Return the process that hosts the services."""
    pid: int = json.loads((bucket.path / "run" / "services.json").read_text())["pid"]
    return pid
