"""A bucket with three real workers and the story's two jobs."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.maand import Bucket
from tests.e2e.the_story import tell_the_workspace
from tests.testbed.sshd import SshTestBed
from tests.testbed.worker import SshWorker


def make_bucket(directory: Path, bed: SshTestBed, workers: list[SshWorker]) -> Bucket:
    """Initialise a bucket for workers of a test bed, with the story's jobs, host keys pinned."""
    directory.mkdir()
    bucket = Bucket(path=directory)
    bucket.must("init")
    bucket.configure(ssh_user=bed.user, ssh_port=bed.port)
    bed.write_secrets(directory / "secrets")
    tell_the_workspace(bucket, workers)
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
