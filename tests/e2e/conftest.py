"""A bucket with three real workers and the story's two jobs."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.maand import Bucket
from tests.testbed.sshd import SshTestBed
from tests.testbed.worker import SshWorker

STORY = Path(__file__).parent / "story"

SYSTEMCTL = """#!/bin/sh
# Stands in for systemd: `is-active myapp` says what the worker's own file says.
cat /opt/myapp.state 2>/dev/null || echo active
grep -qv inactive /opt/myapp.state 2>/dev/null || test ! -f /opt/myapp.state
"""


def make_bucket(directory: Path, bed: SshTestBed, workers: list[SshWorker]) -> Bucket:
    """Initialise a bucket for workers of a test bed, with the story's jobs, host keys pinned."""
    directory.mkdir()
    bucket = Bucket(path=directory)
    bucket.must("init")
    bucket.configure(ssh_user=bed.user, ssh_port=bed.port)
    bed.write_secrets(directory / "secrets")
    listed = [{"host": worker.host, "labels": ["api", "database"] if not i else ["api"]} for i, worker in enumerate(workers)]
    bucket.write("workspace/workers.json", json.dumps(listed, indent=2))
    shutil.rmtree(directory / "workspace" / "jobs", ignore_errors=True)
    shutil.copytree(STORY, directory / "workspace" / "jobs")
    for worker in workers:
        worker.stand_in("systemctl", SYSTEMCTL)
    return bucket


@pytest.fixture
def workers(test_bed: SshTestBed) -> list[SshWorker]:
    """Start three workers, each with its own file tree."""
    return test_bed.start_workers(3)


@pytest.fixture
def bucket(tmp_path: Path, test_bed: SshTestBed, workers: list[SshWorker]) -> Iterator[Bucket]:
    """Make a bucket that nothing was built in yet."""
    made = make_bucket(tmp_path / "bucket", test_bed, workers)
    yield made
    made.stop_services()
