"""A backup made while a deploy runs and another one waits, put back later: nothing goes on by itself, and deploys work."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.conftest import make_bucket
from tests.e2e.maand import Bucket, Ended
from tests.testbed.sshd import SshTestBed
from tests.testbed.worker import SshWorker
from tests.waiting import wait_until

pytestmark = [pytest.mark.xdist_group("e2e"), pytest.mark.timeout(300)]

MAKEFILE = """
start stop reload status:
\t@echo $@ >> /opt/lifecycle.log
restart:
\t@echo restart >> /opt/lifecycle.log; while test -e /opt/hold; do sleep 0.1; done
"""


@pytest.fixture
def workers(test_bed: SshTestBed) -> list[SshWorker]:
    """Start two workers."""
    return test_bed.start_workers(2)


@pytest.fixture
def bucket(tmp_path: Path, test_bed: SshTestBed, workers: list[SshWorker]) -> Bucket:
    """Deploy a job that is restarted worker by worker, and takes as long for it as its second worker wants."""
    bucket = make_bucket(tmp_path / "bucket", test_bed, workers)
    shutil.rmtree(bucket.path / "workspace/jobs")
    bucket.write("workspace/jobs/api/manifest.json", '{"selectors": ["api"], "max_concurrent_upgrades": 1}')
    bucket.write("workspace/jobs/api/Makefile", MAKEFILE)
    bucket.write("workspace/jobs/api/motd.txt", "first\n")
    bucket.must("build")
    bucket.must("deploy")
    bucket.must("secret", "set", "secrets/job/api", "password", stdin="hunter2\n")
    return bucket


def catalog(bucket: Bucket, *arguments: str) -> Ended:
    """Run `maand-catalog` in the bucket's directory, without any setting."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAAND_")}
    ended = subprocess.run(
        [Path(sys.executable).parent / "maand-catalog", *arguments],
        cwd=bucket.path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return Ended(command=" ".join(arguments), exit_code=ended.returncode, stdout=ended.stdout, stderr=ended.stderr)


def restarts(workers: list[SshWorker]) -> list[int]:
    """Count the restarts on each worker."""
    return [worker.run("cat /opt/lifecycle.log").count("restart") for worker in workers]


def runs_in(bucket: Bucket, *states: str) -> list[dict[str, str]]:
    """List the deploys in some states."""
    runs: list[dict[str, str]] = bucket.must("runs", "list", "-o", "json").json()
    return [run for run in runs if run["kind"] == "deploy" and run["state"] in states]


def back_up_during_a_deploy(bucket: Bucket, workers: list[SshWorker], copy: Path) -> None:
    """Back up while one deploy restarts its second worker and another one waits for the bucket; let both end well."""
    workers[1].run("touch /opt/hold")
    bucket.write("workspace/jobs/api/motd.txt", "second\n")
    bucket.must("build")
    with bucket.start("deploy") as running:
        wait_until(lambda: restarts(workers) == [1, 1], what="the restart of the second worker")
        with bucket.start("deploy", "--lock-timeout", "120") as waiting:
            wait_until(lambda: len(runs_in(bucket, "running", "pending")) == 2, what="the wait of the second deploy")
            made = catalog(bucket, "backup", str(copy))
            workers[1].run("rm /opt/hold")
            told = [deploy.communicate(timeout=60)[1] for deploy in (running, waiting)]
    assert made.exit_code == 0, made.output
    assert (running.returncode, waiting.returncode) == (0, 0), told


@pytest.mark.parametrize("way", ["restore", "copy by hand"])
def test_a_restored_backup_resumes_nothing_and_the_next_deploy_works(
    bucket: Bucket, workers: list[SshWorker], tmp_path: Path, way: str
) -> None:
    copy = tmp_path / "backup.db"
    try:
        back_up_during_a_deploy(bucket, workers, copy)
        done = restarts(workers)
        assert done == [1, 1]
        bucket.must("services", "stop")
        put_back(bucket, copy, way)

        assert bucket.must("secret", "reveal", "secrets/job/api", "password").stdout == "hunter2\n"

        ended = runs_in(bucket, "failed")
        assert len(ended) == 2
        assert restarts(workers) == done, "nothing went on"
        shown = bucket.must("runs", "show", ended[0]["run_id"]).output
        assert "the database was restored from a backup" in shown
        bucket.write("workspace/jobs/api/motd.txt", "third\n")
        bucket.must("build")
        bucket.must("deploy")
        assert "nothing to do" in bucket.must("deploy").output
        assert restarts(workers) == [2, 2]
    finally:
        bucket.stop_services()


@pytest.mark.parametrize("way", ["restore", "copy by hand"])
def test_after_runs_that_a_restored_backup_does_not_know_the_next_deploy_works(
    bucket: Bucket, workers: list[SshWorker], tmp_path: Path, way: str
) -> None:
    copy = tmp_path / "backup.db"
    try:
        assert catalog(bucket, "backup", str(copy)).exit_code == 0
        for _ in range(4):
            bucket.must("deploy", "--force")
        bucket.must("services", "stop")
        if way == "restore":
            assert catalog(bucket, "restore", str(copy)).exit_code == 0
        else:
            put_back(bucket, copy, way)
        bucket.must("deploy", "--force")
        assert restarts(workers) == [5, 5]
    finally:
        bucket.stop_services()


@pytest.mark.parametrize(
    ("way", "code", "words"),
    [
        ("another file", 3, "another database acts on it for this bucket"),
        ("into the file", 1, "of this bucket has changed this worker, and this is run"),
    ],
)
def test_a_copy_that_bears_no_mark_is_refused_by_the_workers_at_once_and_the_named_command_makes_it_work(
    bucket: Bucket, workers: list[SshWorker], tmp_path: Path, way: str, code: int, words: str
) -> None:
    try:
        bucket.must("services", "stop")
        database, plain = bucket.path / "data/maand.db", tmp_path / "plain.db"
        shutil.copyfile(database, plain)
        for _ in range(4):
            bucket.must("deploy", "--force")
        bucket.must("services", "stop")
        if way == "another file":
            put_back(bucket, plain, "copy by hand")
        else:
            shutil.copyfile(plain, database)

        refused = bucket.run("deploy", "--force")
        assert refused.exit_code == code
        assert words in refused.output
        assert "maand-catalog new-epoch" in refused.output
        assert bucket.run("deploy", "--force").exit_code == code, "refused again, not held"

        bucket.must("services", "stop")
        begun = catalog(bucket, "new-epoch")
        assert begun.exit_code == 0, begun.output
        bucket.must("deploy", "--force")
        assert restarts(workers) == [5, 5]
    finally:
        bucket.stop_services()


def put_back(bucket: Bucket, copy: Path, way: str) -> None:
    """Put a backup in the place of the stopped bucket's database."""
    if way == "restore":
        restored = catalog(bucket, "restore", str(copy))
        assert restored.exit_code == 0, restored.output
        assert len(re.findall(r"deploy run \S+ \(it was (?:running|pending)\)", restored.stderr)) == 2
        return
    for part in (bucket.path / "data").glob("maand.db*"):
        part.unlink()
    shutil.copyfile(copy, bucket.path / "data/maand.db")
