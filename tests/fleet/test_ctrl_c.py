"""Ctrl-C in the middle of a batch: what runs is gone within ten seconds, and what is known afterwards is exact."""

import signal
import time

import pytest

from tests.command_line import read_until
from tests.fleet.fleet import Fleet
from tests.fleet.watching import hooks_alive, started_deploy, wait_until_it_runs

pytestmark = [pytest.mark.fleet, pytest.mark.timeout(300)]


@pytest.mark.parametrize(("marker", "hanging"), [("hang-restart-api", "sleep 614"), ("hang-settle", "sleep 615")])
def test_ctrl_c_ends_remote_commands_and_hooks_and_the_next_deploy_goes_on(deployed: Fleet, marker: str, hanging: str) -> None:
    content, hosts, worker = deployed.new_content(), deployed.hosts, deployed.workers[12]
    worker.path(f"/opt/{marker}").touch()
    deployed.change(content, "api")
    deploying = started_deploy(deployed)
    wait_until_it_runs(worker, hanging, deploying)

    deploying.send_signal(signal.SIGINT)
    read_until(deploying, "after the current batch")
    deploying.send_signal(signal.SIGINT)
    asked = time.monotonic()
    out, err = deploying.communicate(timeout=60)
    assert time.monotonic() - asked < 10
    assert deploying.returncode == 130, out + err
    assert hooks_alive(deployed.bucket) == []
    for each in deployed.workers:
        each.wait_until_gone("sleep 61")

    states = deployed.states("api")
    assert [states[host] for host in hosts] == ["promoted"] * 7 + ["failed"] * 7 + ["pending"] * 6
    messages = {row["message"] for row in deployed.allocations("api") if row["state"] == "failed"}
    assert messages == {"the run was stopped in the middle of this batch"}
    assert deployed.bucket.must("semaphore", "list", "-o", "json").json() == []

    worker.path(f"/opt/{marker}").unlink()
    deployed.bucket.must("deploy")
    assert set(deployed.states("api").values()) == {"promoted"}
    assert deployed.delivered("api") == {content}
    assert [sum(act.worker == host for act in deployed.acts("api", content)) for host in hosts[:7]] == [1] * 7
