"""The examples on real OpenSSH workers: built, deployed, upgraded, and what they promise looked for on the workers."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.maand import Bucket
from tests.testbed.javascript import ROOT
from tests.testbed.sshd import SshTestBed
from tests.testbed.worker import SshWorker

pytestmark = [pytest.mark.xdist_group("e2e"), pytest.mark.timeout(300)]

EXAMPLES = ROOT / "examples"


class Example:
    """One example in a bucket of its own, with three real workers in place of 10.0.0.1 to 10.0.0.3."""

    def __init__(self, bucket: Bucket, workers: list[SshWorker]) -> None:
        self.bucket = bucket
        self.workers = workers
        self.hosts = [worker.host for worker in workers]

    def lay_out(self, name: str) -> None:
        """Put the example's workspace into the bucket."""
        workspace = self.bucket.path / "workspace"
        shutil.rmtree(workspace)
        shutil.copytree(EXAMPLES / name / "workspace", workspace)
        workers = workspace / "workers.json"
        workers.write_text(re.sub(r"10\.0\.0\.([123])", lambda found: self.hosts[int(found[1]) - 1], workers.read_text()))

    def deploy(self) -> str:
        """Build and deploy; return everything the deploy printed."""
        self.bucket.must("build")
        return self.bucket.must("deploy", "-v", timeout=150).output

    def upgrade(self, job: str) -> str:
        """Give the job another version and deploy it."""
        manifest = self.bucket.path / "workspace" / "jobs" / job / "manifest.json"
        manifest.write_text(manifest.read_text().replace('"version": "1.0.0"', '"version": "1.1.0"'))
        return self.deploy()

    def read(self, worker: SshWorker, job: str, file: str) -> str:
        """Read a file of the job from a worker."""
        (directory,) = Path(worker.path("/opt/worker")).glob(f"*/jobs/{job}")
        return (directory / file).read_text()


@pytest.fixture
def example(tmp_path: Path, test_bed: SshTestBed) -> Iterator[Example]:
    """Make an empty bucket for three workers."""
    workers = test_bed.start_workers(3)
    bucket = Bucket(path=tmp_path / "bucket")
    bucket.path.mkdir()
    bucket.must("init")
    bucket.configure(ssh_user=test_bed.user, ssh_port=test_bed.port)
    test_bed.write_secrets(bucket.path / "secrets")
    yield Example(bucket, workers)
    bucket.stop_services()


def test_the_secrets_of_the_first_deploy_stay_until_they_are_rotated(example: Example) -> None:
    example.lay_out("secret-bootstrap")

    example.deploy()
    first = {example.read(worker, "vault", "config.env") for worker in example.workers}
    passwords = {text.split("\n")[0] for text in first}
    example.deploy()
    same = {example.read(worker, "vault", "config.env").split("\n")[0] for worker in example.workers}
    example.bucket.must("hooks", "hook_rotate", "vault")
    example.deploy()
    rotated = {example.read(worker, "vault", "config.env").split("\n")[0] for worker in example.workers}

    assert len(passwords) == 1
    assert same == passwords
    assert len(rotated) == 1
    assert rotated != passwords


def test_the_leader_starts_first_and_is_upgraded_last(example: Example) -> None:
    example.lay_out("leader-order")

    example.deploy()
    started = [int(example.read(worker, "quorum", "data/started")) for worker in example.workers]
    example.upgrade("quorum")
    upgraded = [int(example.read(worker, "quorum", "data/started")) for worker in example.workers]

    assert min(started) == started[0], "the leader, the first worker, starts first"
    assert max(upgraded) == upgraded[0], "and is upgraded last"
    assert {example.read(worker, "quorum", "data/running") for worker in example.workers} == {
        f"1.1.0 leader={example.hosts[0]}\n"
    }


def test_every_migration_is_applied_once_by_hooks_that_all_try(example: Example) -> None:
    example.lay_out("single-writer-migration")
    trace = Path(example.workers[0].path("/opt/worker/orders.migrations"))

    example.deploy()
    first = trace.read_text()
    example.upgrade("orders")

    assert first == "1\n2\n3\n"
    assert trace.read_text() == first
    assert example.bucket.must("kv", "get", "vars/job/orders", "schema_version").stdout.strip() == "3"


def test_each_allocation_settles_before_the_next_is_touched(example: Example) -> None:
    example.lay_out("settle-gate")

    example.deploy()
    output = example.upgrade("cache")

    looks = re.findall(r"batch (\d) of 3: \S+ is loading", output)
    assert looks == sorted(looks)
    assert set(looks) == {"1", "2", "3"}
    assert len(re.findall(r"note: .* settled", output)) >= 3
    assert [example.read(worker, "cache", "data/to-load") for worker in example.workers] == ["0\n"] * 3


def test_a_job_deploys_after_what_it_demands_and_reads_its_secret(example: Example) -> None:
    example.lay_out("dependency-readiness")

    output = example.deploy()

    assert output.index("schemas ready: web") < output.index("the database is ready")
    web = [example.read(worker, "web", "config.env") for worker in example.workers[:2]]
    assert web[0] == web[1]
    assert f"DATABASE={example.hosts[2]}\n" in web[0]
    assert (Path(example.workers[2].path("/opt/worker"))).exists()
