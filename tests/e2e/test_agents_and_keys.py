"""SSH agents through the whole product: chosen by maand.conf, followed from login to login, told as what is at fault."""

import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.e2e.maand import Bucket
from tests.testbed.sshd import SshTestBed
from tests.testbed.worker import SshWorker
from tests.waiting import wait_until

pytestmark = [pytest.mark.xdist_group("e2e"), pytest.mark.timeout(240)]

StartAgent = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def start_agent() -> Iterator[StartAgent]:
    """Start an agent that holds a key, at a socket of the test's choice."""
    running: list[subprocess.Popen[bytes]] = []

    def start(path: Path, key: Path) -> "subprocess.Popen[bytes]":
        running.append(subprocess.Popen(["ssh-agent", "-D", "-a", str(path)], stdout=subprocess.DEVNULL))
        wait_until(path.exists)
        subprocess.run(["ssh-add", "-q", str(key)], env={**os.environ, "SSH_AUTH_SOCK": str(path)}, check=True)
        return running[-1]

    yield start
    for process in running:
        process.terminate()
        process.wait()


@pytest.fixture
def without_key(bucket: Bucket) -> Bucket:
    """Make a bucket that uses the agent, with one that never was in its environment."""
    for name in ("worker.key", "worker.key.pub"):
        (bucket.path / "secrets" / name).unlink()
    bucket.configure(ssh_key="", max_ssh_sessions=1)  # so that each worker is logged in to anew
    return replace(bucket, environment={"SSH_AUTH_SOCK": ""})


def typed_with(bucket: Bucket, agent: Path) -> Bucket:
    return replace(bucket, environment={"SSH_AUTH_SOCK": str(agent)})


def test_services_follow_the_agent_from_login_to_login(
    without_key: Bucket, test_bed: SshTestBed, start_agent: StartAgent, tmp_path: Path
) -> None:
    first, second = tmp_path / "first.sock", tmp_path / "second.sock"
    without_key.must("build")
    pid = (without_key.path / "run/services.json").read_text()

    refused = without_key.must("worker", "ping", exit_code=3)
    assert "agent" in refused.stderr
    assert "ssh-add" in refused.stderr

    agent = start_agent(first, test_bed.key)
    typed_with(without_key, first).must("worker", "ping")
    agent.terminate()
    agent.wait()
    gone = without_key.must("worker", "ping", exit_code=3)
    assert f"the SSH agent at {first} cannot be reached" in gone.stderr
    assert "authorized_keys" not in gone.stderr

    start_agent(second, test_bed.key)
    typed_with(without_key, second).must("worker", "ping")
    assert (without_key.path / "run/services.json").read_text() == pid, "the same services all along"

    typed_with(without_key, second).must("init")
    assert not (without_key.path / "secrets/worker.key").exists()


def test_an_agent_that_is_silent_is_no_fault_of_the_workers(without_key: Bucket, tmp_path: Path) -> None:
    without_key.must("build")
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / "silent.sock"))
        silent.listen(64)
        told = typed_with(without_key, tmp_path / "silent.sock").must("run_command", "true", exit_code=3)

    assert f"the SSH agent at {tmp_path}/silent.sock does not answer within 5 s" in told.stderr
    assert "port is open" not in told.stderr


def test_trust_tells_of_a_public_key_that_is_another_key_s(bucket: Bucket, workers: list[SshWorker]) -> None:
    bucket.must("build")
    assert "warning" not in bucket.must("worker", "trust", "--yes").stderr
    other = bucket.path / "other"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(other)], check=True)
    (bucket.path / "secrets/worker.key.pub").write_bytes(other.with_suffix(".pub").read_bytes())

    assert "secrets/worker.key.pub is the public half of another key" in bucket.must("worker", "trust", "--yes").stderr
