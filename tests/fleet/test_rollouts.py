"""Rollouts over twenty workers: waves, batches and order, as the workers' own logs have it."""

from pathlib import Path

import pytest

from tests.fleet.fleet import Fleet, check_batches, states_after

pytestmark = [pytest.mark.fleet, pytest.mark.timeout(240)]


def test_a_first_deploy_goes_in_waves_and_batches_and_a_second_does_nothing(fleet: Fleet) -> None:
    fleet.bucket.must("build")
    deployed = fleet.bucket.must("deploy")

    database, web, api = (fleet.acts(job, "first") for job in ("database", "web", "api"))
    assert {act.target for act in (*database, *web, *api)} == {"start"}
    check_batches(database, fleet.hosts_of("database"), 2)
    check_batches(web, fleet.hosts_of("web"), 8)
    check_batches(api, fleet.hosts, 8)
    assert max(act.ended or 0 for act in (*database, *web)) < api[0].began, "the wave of the demanded job came first"
    assert {row["state"] for row in fleet.allocations()} == {"promoted"}
    assert deployed.output.count("settled on") == 20

    again = fleet.bucket.must("deploy")
    assert "nothing to do" in again.output
    assert len(fleet.acts("api", "first")) == 20


def test_a_rolling_upgrade_takes_the_batches_in_rollout_order(deployed: Fleet) -> None:
    content = deployed.new_content()
    deployed.change(content)
    deployed.bucket.must("deploy")

    assert {act.target for job in ("api", "web", "database") for act in deployed.acts(job, content)} == {"restart"}
    check_batches(deployed.acts("database", content), deployed.hosts_of("database"), 1)
    check_batches(deployed.acts("web", content), deployed.hosts_of("web"), 4)
    check_batches(deployed.acts("api", content), deployed.hosts, 7)
    assert deployed.delivered("api") == deployed.delivered("web") == deployed.delivered("database") == {content}


def test_a_leader_that_a_hook_put_last_stays_last_when_only_some_are_rolled_out(deployed: Fleet) -> None:
    leader, hosts, content = deployed.hosts[2], deployed.hosts, deployed.new_content()
    deployed.bucket.must("kv", "set", "vars/job/api", "leader", leader)
    deployed.change(content, "api")
    deployed.bucket.must("deploy")
    check_batches(deployed.acts("api", content), [*(host for host in hosts if host != leader), leader], 7)

    chosen = [hosts[0], leader, hosts[5], hosts[11]]
    deployed.change_manifest("api", max_concurrent_upgrades=1)
    deployed.bucket.must("build")
    deployed.bucket.must("kv", "set", "vars/job/api", "chosen", ",".join(chosen))
    deployed.bucket.must("kv", "set", "vars/job/api", "chosen_content", "tuned")
    before = {act.began for act in deployed.acts("api", content)}
    deployed.bucket.must("deploy")
    acts = [act for act in deployed.acts("api", content) if act.began not in before]
    check_batches(acts, [hosts[0], hosts[5], hosts[11], leader], 1)


def test_a_hook_that_fails_in_the_middle_batch_leaves_all_others_begun_promoted_and_the_batches_after_untouched(
    deployed: Fleet,
) -> None:
    hosts, content = deployed.hosts, deployed.new_content()
    refuse = Path(deployed.workers[9].path("/opt/refuse"))
    refuse.touch()
    deployed.change(content, "api")
    failed = deployed.bucket.must("deploy", exit_code=1)

    assert f"api@{hosts[9]}" in failed.stderr
    states = deployed.states("api")
    assert [states[host] for host in hosts] == states_after(hosts, failed=hosts[9], begun=14)
    assert sorted(act.worker for act in deployed.acts("api", content)) == sorted(hosts[:14])

    refuse.unlink()
    deployed.bucket.must("deploy")
    assert set(deployed.states("api").values()) == {"promoted"}
    acts = deployed.acts("api", content)
    assert [sum(act.worker == host for act in acts) for host in hosts] == [1] * 9 + [2] + [1] * 10
