"""Workers that vanish or hang, before and in the middle of a deploy, and that come back."""

import time

import pytest

from tests.fleet.fleet import Fleet, states_after
from tests.fleet.watching import ended, started_deploy, wait_until_it_runs

pytestmark = [pytest.mark.fleet, pytest.mark.timeout(300)]

SLOW_COPY = """#!/bin/sh
# Stands in for rsync: hangs while somebody wants it to.
[ ! -e /opt/hang-copy ] || sleep 616
exec /usr/bin/rsync "$@"
"""


def test_a_worker_that_is_cut_off_before_a_deploy_stops_it_unless_it_may_be_left_out(deployed: Fleet) -> None:
    lost, content = deployed.workers[16], deployed.new_content()
    deployed.change(content)
    with lost.cut_off():
        stopped = deployed.bucket.must("deploy", exit_code=5)
        assert lost.host in stopped.stderr
        assert not deployed.acts("database", content)
        assert {row["state"] for row in deployed.allocations()} == {"pending"}

        partial = deployed.bucket.must("deploy", "--skip-unreachable", exit_code=4)
        assert f"not reached: {lost.host}" in partial.output
        states = {(row["worker"], row["state"]) for row in deployed.allocations()}
        assert states == {(host, "pending" if host == lost.host else "promoted") for host in deployed.hosts}

    deployed.bucket.must("deploy")
    assert {row["state"] for row in deployed.allocations()} == {"promoted"}
    assert all(sum(act.worker == lost.host for act in deployed.acts(job, content)) == 1 for job in ("api", "web"))


def test_workers_that_are_cut_off_during_copy_and_restart_fail_alone_and_come_back(deployed: Fleet) -> None:
    content, hosts = deployed.new_content(), deployed.hosts
    copying, restarting = deployed.workers[17], deployed.workers[8]
    copying.stand_in("rsync", SLOW_COPY)
    copying.path("/opt/hang-copy").touch()
    restarting.path("/opt/hang-restart-api").touch()
    deployed.change(content, "web")
    deploying = started_deploy(deployed)
    wait_until_it_runs(copying, "sleep 616", deploying)
    copying.cut()
    code, said = ended(deploying, seconds=60)
    assert code == 1, said
    assert f"web copy on {copying.host}" in said
    states = deployed.states("web")
    assert [states[host] for host in hosts[12:]] == states_after(hosts[12:], failed=copying.host, begun=8)
    copying.restore()
    copying.path("/opt/hang-copy").unlink()

    deployed.change(content, "api")
    deploying = started_deploy(deployed)
    wait_until_it_runs(restarting, "sleep 614", deploying)
    restarting.cut()
    code, said = ended(deploying, seconds=60)
    assert code == 1, said
    assert set(deployed.states("web").values()) == {"promoted"}
    states = deployed.states("api")
    assert [states[host] for host in hosts] == states_after(hosts, failed=restarting.host, begun=14)
    restarting.restore()
    restarting.path("/opt/hang-restart-api").unlink()

    deployed.bucket.must("deploy")
    assert set(deployed.states("api").values()) == {"promoted"}
    assert deployed.delivered("api") == deployed.delivered("web") == {content}
    again = [act for act in deployed.acts("api", content) if act.worker == restarting.host]
    assert [act.ended is None for act in again] == [True, False], "the command that was cut off did not go on"


def test_a_worker_that_is_cut_off_during_a_hooks_ssh_fails_the_hook_and_comes_back(deployed: Fleet) -> None:
    content, lost = deployed.new_content(), deployed.workers[3]
    lost.path("/opt/hang-settle").touch()
    deployed.change(content, "api")
    deploying = started_deploy(deployed)
    wait_until_it_runs(lost, "sleep 615", deploying)
    lost.cut()
    code, said = ended(deploying, seconds=60)
    assert code == 1, said
    assert f"hook_fleet_settle on {lost.host}" in said
    states = deployed.states("api")
    assert [states[host] for host in deployed.hosts] == states_after(deployed.hosts, failed=lost.host, begun=7)
    lost.restore()
    lost.path("/opt/hang-settle").unlink()

    deployed.bucket.must("deploy")
    assert set(deployed.states("api").values()) == {"promoted"}
    assert deployed.bucket.must("semaphore", "list", "-o", "json").json() == []


def test_a_frozen_worker_is_given_up_and_the_others_are_as_they_should_be(deployed: Fleet) -> None:
    content, frozen = deployed.new_content(), deployed.workers[10]
    frozen.path("/opt/hang-restart-api").touch()
    deployed.change(content, "api")
    deploying = started_deploy(deployed)
    wait_until_it_runs(frozen, "sleep 614", deploying)
    with frozen.frozen():
        began = time.monotonic()
        code, said = ended(deploying, seconds=60)
        assert code == 1, said
        assert time.monotonic() - began < 40
        states = deployed.states("api")
        assert [states[host] for host in deployed.hosts] == states_after(deployed.hosts, failed=frozen.host, begun=14)
        assert frozen.host in said
        refused = deployed.bucket.must("deploy", exit_code=5)
        assert frozen.host in refused.stderr
        frozen.path("/opt/hang-restart-api").unlink()

    deployed.bucket.must("deploy")
    assert set(deployed.states("api").values()) == {"promoted"}
