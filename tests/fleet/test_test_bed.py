"""The test bed of hosts itself: what the other tests of fleets rely upon."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.testbed.fleet import FleetTestBed
from tests.testbed.network import NAMESPACES, ip, remove_leftovers

pytestmark = [pytest.mark.fleet, pytest.mark.timeout(60)]

ROOT = Path(__file__).parents[2]
KILLED = """
import os, signal
from tests.testbed.network import HostNetwork
network = HostNetwork()
network.add_host(f"{network.prefix}.1")
print(os.getpid(), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def ssh(bed: FleetTestBed, directory: Path, host: str, command: str) -> subprocess.CompletedProcess[str]:
    bed.write_secrets(directory / "secrets")
    options = ["-F", "none", "-i", str(bed.key), "-o", f"UserKnownHostsFile={directory / 'secrets/known_hosts'}"]
    line = ["ssh", *options, "-o", "BatchMode=yes", "-o", "ConnectTimeout=1", f"{bed.user}@{host}", command]
    return subprocess.run(line, capture_output=True, text=True, check=False)


def test_workers_are_hosts_with_networks_of_their_own_that_can_be_cut_and_frozen(tmp_path: Path) -> None:
    bed = FleetTestBed(tmp_path / "bed")
    try:
        one, _ = bed.start_workers(2)
        assert ssh(bed, tmp_path, one.host, "hostname -I").stdout.split() == [one.host]
        with one.cut_off():
            assert "timed out" in ssh(bed, tmp_path, one.host, "true").stderr
        with one.cut_off("reset"):
            assert "refused" in ssh(bed, tmp_path, one.host, "true").stderr
        with one.frozen():
            assert "timed out" in ssh(bed, tmp_path, one.host, "true").stderr
        assert ssh(bed, tmp_path, one.host, "true").returncode == 0
    finally:
        bed.stop()
    assert f": {bed.network.bridge}:" not in ip("-oneline", "link", "show")


def test_what_a_killed_test_run_left_behind_is_removed() -> None:
    killed = subprocess.run([sys.executable, "-c", KILLED], cwd=ROOT, capture_output=True, text=True, check=False)
    name = f"{killed.stdout.strip()}-0"
    assert killed.returncode == -9, killed.stderr
    remove_leftovers()
    assert f"mb{name}" not in ip("-oneline", "link", "show")
    assert list(NAMESPACES.glob(f"maand-{name}-*")) == []
