"""What goes wrong is said clearly, with the documented exit code, and nothing is half-changed."""

import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.command_line import read_until
from tests.e2e.maand import Bucket
from tests.testbed.sshd import SshTestBed
from tests.testbed.worker import SshWorker

pytestmark = [pytest.mark.xdist_group("e2e"), pytest.mark.timeout(240)]


def test_a_broken_manifest_is_refused_with_its_position_and_nothing_is_built(bucket: Bucket) -> None:
    manifest = bucket.path / "workspace/jobs/api/manifest.json"
    manifest.write_text(manifest.read_text().replace('"max_concurrent_upgrades"', '"max_concurent_upgrades"'))
    refused = bucket.must("build", exit_code=3)
    assert 'error: unknown key "max_concurent_upgrades"' in refused.stderr
    assert "workspace/jobs/api/manifest.json:4:3" in refused.stderr
    assert 'did you mean "max_concurrent_upgrades"?' in refused.stderr
    assert bucket.must("cat", "jobs", "-o", "json").json() == []


def test_an_unreachable_worker_stops_the_deploy_before_anything_changed(bucket: Bucket, workers: list[SshWorker]) -> None:
    bucket.must("build")
    workers[2].stop()
    refused = bucket.must("deploy", exit_code=5)
    assert workers[2].host in refused.stderr
    assert all(not Path(worker.path("/opt/worker/events.log")).exists() for worker in workers)
    workers[2].start()
    bucket.must("deploy")


def test_a_wrong_ssh_key_is_an_authentication_error(bucket: Bucket, workers: list[SshWorker]) -> None:
    bucket.must("build")
    key = bucket.path / "secrets/worker.key"
    key.unlink()
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    refused = bucket.must("deploy", exit_code=5)
    assert "key" in refused.stderr
    assert all(not Path(worker.path("/opt/worker/events.log")).exists() for worker in workers)


def test_an_unknown_host_key_names_the_command_that_pins_it(bucket: Bucket, test_bed: SshTestBed) -> None:
    bucket.must("build")
    test_bed.write_secrets(bucket.path / "secrets", pinned=False)
    refused = bucket.must("deploy", exit_code=5)
    assert "maand worker trust" in refused.stderr
    bucket.must("worker", "trust", "--yes")
    bucket.must("deploy")


@contextmanager
def port_8080_taken() -> Iterator[bool]:
    """Hold port 8080 and tell whether it is ours; else somebody else's services have it, as long as they stay."""
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            taken.bind(("127.0.0.1", 8080))
        except OSError:
            yield False
            return
        taken.listen()
        yield True


def test_port_8080_taken_is_no_obstacle(bucket: Bucket) -> None:
    with port_8080_taken() as ours:
        bucket.must("build")
        bucket.must("deploy")
        status = bucket.must("services", "status", "-o", "json").json()
        assert status["hook_api"] != "127.0.0.1:8080" or not ours


def test_a_second_deploy_while_one_runs_is_told_who_holds_the_bucket(bucket: Bucket) -> None:
    bucket.write("workspace/jobs/api/_hooks/hook_active.py", "import time\nprint('settling', flush=True)\ntime.sleep(60)\n")
    bucket.must("build")
    with bucket.start("deploy") as first:
        read_until(first, "settling")
        refused = bucket.must("deploy", exit_code=6)
        assert "deploy" in refused.stderr
        first.send_signal(signal.SIGINT)
        read_until(first, "after the current batch")
        first.send_signal(signal.SIGINT)
        first.communicate(timeout=60)


def test_a_command_outside_a_bucket_says_how_to_make_one(tmp_path: Path) -> None:
    outside = Bucket(path=tmp_path)
    refused = outside.must("deploy", exit_code=3)
    assert "maand init" in refused.stderr


def test_wrong_usage_is_exit_2(tmp_path: Path) -> None:
    assert "deploi" in Bucket(path=tmp_path).must("deploi", exit_code=2).stderr
