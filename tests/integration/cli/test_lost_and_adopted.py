"""`maand worker forget` and `adopt` as people type them; the workers here are addresses at which nobody answers."""

import json
import shutil

import pytest

from tests.integration.cli.conftest import Maand

pytestmark = pytest.mark.timeout(120)


def write_workers(maand: Maand, *hosts: str) -> None:
    (maand.bucket / "workspace/workers.json").write_text(json.dumps([{"host": host, "labels": ["app"]} for host in hosts]))


@pytest.fixture
def bucket(maand: Maand) -> Maand:
    """Build a bucket with two workers, of which one left."""
    job = maand.bucket / "workspace/jobs/app"
    job.mkdir()
    (job / "manifest.json").write_text('{"selectors": ["app"]}')
    (job / "Makefile").write_text("start stop restart:\n\ttrue\n")
    write_workers(maand, "::ffff:127.0.0.9", "FD77:0::2")
    maand.must("build")
    write_workers(maand, "127.0.0.9")
    maand.must("build")
    return maand


def test_workers_are_given_up_by_who_says_that_they_are_lost(bucket: Maand) -> None:
    without = bucket("worker", "forget", "fd77::2")
    assert without.code == 2
    assert "--lost" in without.err
    unanswered = bucket("worker", "forget", "fd77::2", "--lost")
    assert unanswered.code == 3
    assert "add --yes" in unanswered.err
    present = bucket("worker", "forget", "127.0.0.9", "--lost", "--yes")
    assert present.code == 3
    assert "still in workspace/workers.json" in present.err

    given_up = bucket.must("worker", "forget", "[FD77::2]", "--lost", "--yes", "-o", "json")
    assert "fd77::2" in given_up.out
    bucket.must("gc")
    assert "fd77::2" not in bucket.must("cat", "allocations", "-o", "json").out


def test_a_worker_that_cannot_be_reached_is_not_adopted(bucket: Maand) -> None:
    said = bucket("worker", "adopt", "-w", "127.0.0.9", "--yes")
    assert said.code == 5
    assert "127.0.0.9" in said.err


def test_a_copied_bucket_says_in_its_log_that_it_is_one(bucket: Maand) -> None:
    bucket.must("services", "stop")
    copy = bucket.bucket.with_name("copy")
    shutil.copytree(bucket.bucket, copy, symlinks=True)
    copied = Maand(bucket=copy)
    try:
        copied.must("cat", "workers")
        assert "this database is a copy" in copied.log()
    finally:
        copied.end()
    bucket.must("cat", "workers")
    assert "this database is a copy" not in bucket.log()
