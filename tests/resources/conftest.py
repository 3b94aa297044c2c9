"""A bucket with real workers, whose hooks and make targets wait where a test wants them to."""

import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.integration.cli.conftest import Maand
from tests.testbed.full_disk import mounted_disk
from tests.testbed.sshd import SshTestBed

WAIT = """
import os, pathlib, time
place = pathlib.Path({place!r}) / os.environ["EVENT"]
place.with_suffix(".began").touch()
while place.with_suffix(".wait").exists():
    time.sleep(0.05)
"""
MAKEFILE = "start stop restart reload:\n\ttouch {place}/$@.began; while [ -e {place}/$@.wait ]; do sleep 0.05; done\n"
EVENTS = ("post_build", "pre_deploy", "after_allocation_started", "health_check", "post_deploy")


@dataclass(kw_only=True)
class Places:
    """Where hooks and make targets tell that they began, and wait while they are told to."""

    directory: Path

    def hold(self, name: str) -> None:
        """Let it wait from now on when it begins."""
        (self.directory / f"{name}.began").unlink(missing_ok=True)
        (self.directory / f"{name}.wait").touch()

    def has_begun(self, name: str) -> bool:
        """Whether it waits."""
        return (self.directory / f"{name}.began").exists()

    def let_go(self, name: str) -> None:
        """Let it go on."""
        (self.directory / f"{name}.wait").unlink(missing_ok=True)


@dataclass(kw_only=True)
class Bed:
    """A bucket on a disk of its own, two workers, one job."""

    disk: Path
    maand: Maand
    places: Places
    ssh: SshTestBed

    def write_job(self, *, version: str, template: str = "{{ job }}\n", events: Sequence[str] = EVENTS) -> None:
        """Write the job as it shall be."""
        job = self.maand.bucket / "workspace/jobs/api"
        (job / "_hooks").mkdir(parents=True, exist_ok=True)
        hooks = {f"hook_{event}": {"executed_on": [event]} for event in events}
        (job / "manifest.json").write_text(json.dumps({"version": version, "selectors": ["worker"], "hooks": hooks}))
        (job / "Makefile").write_text(MAKEFILE.format(place=self.places.directory) + f"# {version}\n")
        (job / "app.conf.j2").write_text(template)
        for event in events:
            (job / f"_hooks/hook_{event}.py").write_text(WAIT.format(place=str(self.places.directory)))

    def add_workers(self, count: int) -> None:
        """Have that many more workers, and know them."""
        self.ssh.start_workers(count)
        self.ssh.write_secrets(self.maand.bucket / "secrets")
        hosts = [{"host": worker.host} for worker in self.ssh.workers]
        (self.maand.bucket / "workspace/workers.json").write_text(json.dumps(hosts))

    def settle(self) -> None:
        """See that everything works on the services that were there all along, and that nothing was left behind."""
        self.maand.must("deploy", "--build")
        assert "nothing to do" in self.maand.must("deploy").err
        for leavings in ("staging", "blobs/incoming", "invocations"):
            directory = self.maand.bucket / "tmp" / leavings
            assert not directory.exists() or not any(directory.iterdir()), leavings


@pytest.fixture
def bed(tmp_path: Path) -> Iterator[Bed]:
    """Make a bucket with two workers; its log is on another disk than the rest of it."""
    for name in ("places", "logs"):
        (tmp_path / name).mkdir()
    ssh = SshTestBed(tmp_path / "ssh", user="root")
    with mounted_disk(tmp_path / "disk", size="24m") as disk:
        maand = Maand(bucket=disk / "bucket")
        try:
            yield fill_bed(Bed(disk=disk, maand=maand, places=Places(directory=tmp_path / "places"), ssh=ssh), tmp_path / "logs")
        finally:
            maand.end()
            ssh.stop()


def fill_bed(bed: Bed, logs: Path, *, workers: int = 2) -> Bed:
    """Start workers and make the bucket that has them."""
    bucket = bed.maand.bucket
    bucket.mkdir()
    bed.maand.must("init")
    shutil.rmtree(bucket / "logs", ignore_errors=True)
    (bucket / "logs").symlink_to(logs)
    kept = [line for line in (bucket / "maand.conf").read_text().splitlines() if line.startswith("bucket_id")]
    settings = ('ssh_user = "root"', "use_sudo = false", f"ssh_port = {bed.ssh.port}")
    (bucket / "maand.conf").write_text("\n".join([*kept, *settings, ""]))
    bed.add_workers(workers)
    bed.write_job(version="1.0.0")
    return bed
