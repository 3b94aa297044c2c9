"""A fleet that is larger than what few descriptors or narrow settings allow, with the whole command line and default settings."""

import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.maand import Bucket
from tests.testbed.sshd import SshTestBed
from tests.testbed.worker import SshWorker

FLEET = 150


def logins(crowd: SshWorker) -> int:
    return crowd.log.read_text().count("Accepted publickey")


@pytest.fixture
def fleet(tmp_path: Path, test_bed: SshTestBed) -> SshWorker:
    return test_bed.start_crowd(FLEET)


@pytest.fixture
def bucket(tmp_path: Path, test_bed: SshTestBed, fleet: SshWorker) -> Iterator[Bucket]:
    made = Bucket(path=tmp_path / "bucket")
    made.path.mkdir()
    made.must("init")
    made.configure(ssh_user=test_bed.user, ssh_port=fleet.port)
    test_bed.write_secrets(made.path / "secrets")
    shutil.rmtree(made.path / "workspace" / "jobs")
    made.write("workspace/workers.json", json.dumps([{"host": host} for host in fleet.hosts]))
    yield made
    made.stop_services()


def start_services(bucket: Bucket, *, descriptors: int) -> int:
    """Start the services as from a shell with so few descriptors; return their process."""
    limited = f"import os, resource; resource.setrlimit(resource.RLIMIT_NOFILE, ({descriptors}, {descriptors}));"
    start = (
        f"{limited} os.execv({shutil.which('maand', path=str(Path(sys.executable).parent))!r}, ['maand', 'services', 'start'])"
    )
    subprocess.run([sys.executable, "-c", start], cwd=bucket.path, env=dict(os.environ), check=True, timeout=90)
    pid: int = json.loads((bucket.path / "run" / "services.json").read_text())["pid"]
    assert resource.prlimit(pid, resource.RLIMIT_NOFILE)[0] == descriptors
    return pid


def open_files(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def test_a_fleet_is_logged_in_to_once_with_default_settings(bucket: Bucket, fleet: SshWorker) -> None:
    bucket.must("build")
    bucket.must("run_command", "true", "-q")
    assert logins(fleet) == FLEET

    bucket.must("run_command", "true", "-q")
    bucket.configure(hook_timeout_seconds=77)
    bucket.must("build")
    bucket.must("run_command", "true", "-q")

    assert logins(fleet) == FLEET


def test_with_few_descriptors_a_larger_fleet_is_served_over_fewer_connections(bucket: Bucket, fleet: SshWorker) -> None:
    pid = start_services(bucket, descriptors=256)
    bucket.must("build")

    for _ in range(2):
        bucket.must("run_command", "true", "-q")
        assert open_files(pid) < 128, "no more connections than leave room for the rest"

    assert json.loads((bucket.path / "run" / "services.json").read_text())["pid"] == pid, "nothing was restarted"
    assert "raise `ulimit -n`" in (bucket.path / "logs" / "services.log").read_text()
