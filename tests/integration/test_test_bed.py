"""The test bed itself: what other tests rely upon."""

import subprocess
from pathlib import Path

import pytest

from tests.testbed.fixtures import MakeTestBed
from tests.testbed.sshd import SshTestBed
from tests.testbed.worker import SshWorker


def ssh(bed: SshTestBed, worker: SshWorker, command: str, secrets: Path) -> subprocess.CompletedProcess[str]:
    bed.write_secrets(secrets)
    options = ["-F", "none", "-i", str(secrets / "worker.key"), "-o", f"UserKnownHostsFile={secrets / 'known_hosts'}"]
    limits = ["-o", "BatchMode=yes", "-o", "ConnectTimeout=1", "-p", str(worker.port)]
    line = ["ssh", *options, *limits, f"{worker.user}@{worker.host}", command]
    return subprocess.run(line, capture_output=True, text=True, check=False)


def test_each_worker_has_its_own_files(test_bed: SshTestBed, tmp_path: Path) -> None:
    one, two = test_bed.start_workers(2)

    ssh(test_bed, one, "sudo -n mkdir -p /opt/worker && touch here", tmp_path / "secrets")

    assert one.path("/opt/worker").is_dir()
    assert (one.home / "here").is_file()
    assert not two.path("/opt/worker").exists()
    assert not (two.home / "here").exists()


def test_a_worker_that_is_cut_off_comes_back(test_bed: SshTestBed, tmp_path: Path) -> None:
    worker = test_bed.start_worker()

    with worker.cut_off():
        assert "timed out" in ssh(test_bed, worker, "true", tmp_path / "secrets").stderr
    with worker.cut_off("reset"):
        assert "refused" in ssh(test_bed, worker, "true", tmp_path / "secrets").stderr

    assert ssh(test_bed, worker, "true", tmp_path / "secrets").returncode == 0


def test_stand_ins_are_found_and_hidden_commands_are_not(test_bed: SshTestBed, tmp_path: Path) -> None:
    worker = test_bed.start_worker()
    worker.stand_in("systemctl", "#!/bin/sh\necho stand-in $1\n")
    worker.hide("make")

    done = ssh(test_bed, worker, "systemctl a; sudo -n systemctl b; command -v make || echo none", tmp_path / "secrets")

    assert done.stdout.splitlines() == ["stand-in a", "stand-in b", "none"]


@pytest.mark.parametrize("user", ["root", "agent"])
def test_stopping_a_worker_ends_what_runs_on_it(make_test_bed: MakeTestBed, tmp_path: Path, user: str) -> None:
    bed = make_test_bed(user=user)
    worker = bed.start_worker()
    ssh(bed, worker, "setsid sleep 987 >/dev/null 2>&1 </dev/null & echo started", tmp_path / "secrets")
    assert any("sleep 987" in line for line in worker.processes())

    worker.stop()
    worker.start()

    assert not any("sleep 987" in line for line in worker.processes())
