"""Who is looked at before anything changes, and who may be left out."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from maand_contracts.catalog.v1 import run_event_pb2 as pb
from maand_executor.rules.facts import AllocationState, HealthCheck, Namespace, SshProbe
from tests.unit.executor.fakes_runs import RunBed


@pytest.fixture
def bed(tmp_path: Path) -> RunBed:
    return RunBed(tmp_path)


async def test_an_unreachable_worker_stops_the_deploy_before_anything_changed(bed: RunBed) -> None:
    bed.add_job("api", workers=2, hooks=("pre_deploy",))
    bed.remote.unreachable.add("10.0.0.2")
    ended = await bed.deploy()
    assert ended.word == "failed"
    assert bed.did == []
    assert [(failure.kind, failure.worker) for failure in ended.result.failures] == [(pb.FAILURE_KIND_UNREACHABLE, "10.0.0.2")]


async def test_a_worker_without_make_stops_the_deploy_and_names_what_is_missing(bed: RunBed) -> None:
    bed.add_job("api")
    bed.remote.lacking["10.0.0.1"] = "lacks make\nlacks rsync\n"
    ended = await bed.deploy()
    assert ended.result.failures[0].kind == pb.FAILURE_KIND_PREREQUISITE
    assert ended.result.failures[0].message == "lacks make, rsync"
    assert "apt-get install make rsync" in ended.result.failures[0].help
    assert bed.did == []


async def test_sudo_that_refuses_stops_the_deploy_in_its_own_words(bed: RunBed) -> None:
    bed.add_job("api")
    bed.remote.lacking["10.0.0.1"] = "refused sudo: a password is required\n"
    ended = await bed.deploy()
    (failure,) = ended.result.failures
    assert (failure.kind, failure.message) == (pb.FAILURE_KIND_PREREQUISITE, "sudo: a password is required")
    assert "NOPASSWD" in failure.help
    assert "apt-get" not in failure.help
    assert bed.did == []


async def test_skip_unreachable_leaves_workers_out_and_lists_them(bed: RunBed) -> None:
    bed.add_job("api", workers=2)
    bed.remote.unreachable.add("10.0.0.2")
    ended = await bed.deploy(skip_unreachable=True)
    assert ended.word == "succeeded"
    assert list(ended.result.unreachable_workers) == ["10.0.0.2"]
    assert ended.result.counts == {"promoted": 1, "unreachable": 1}
    assert bed.catalog.states("api") == ["promoted", "planned"]


async def test_workers_of_unchanged_jobs_need_not_be_reachable(bed: RunBed) -> None:
    bed.add_job("api", workers=2)
    await bed.deploy()
    bed.remote.unreachable.add("10.0.0.2")
    assert (await bed.deploy()).word == "succeeded"


async def test_workers_of_a_job_with_pre_deploy_hooks_are_checked_before_the_hooks_run(bed: RunBed) -> None:
    bed.add_job("api", workers=2, hooks=("pre_deploy",))
    await bed.deploy()
    bed.remote.unreachable.add("10.0.0.2")
    assert (await bed.deploy()).word == "failed"
    assert bed.did == []


async def test_a_worker_that_left_the_fleet_and_is_gone_counts_as_dead_with_a_warning(bed: RunBed) -> None:
    bed.add_job("api", workers=2, hooks=("after_allocation_stopped",))
    await bed.deploy()
    bed.catalog.change("api", "10.0.0.2", removed=True)
    bed.catalog.workers["10.0.0.2"] = replace(bed.catalog.workers["10.0.0.2"], removed=True)
    bed.remote.unreachable.add("10.0.0.2")
    ended = await bed.deploy()
    assert ended.word == "succeeded", ended.result
    assert bed.catalog.states("api") == ["promoted", str(AllocationState.REMOVED)]
    assert "assumed dead" in ended.result.notices[0]
    assert bed.did == ["hook after_allocation_stopped api 10.0.0.2"]


async def test_peers_that_were_unhealthy_before_are_told_and_not_fatal(bed: RunBed) -> None:
    check = HealthCheck(probes=(SshProbe(command="is-healthy"),), wait_attempts=1)
    bed.add_job("api", workers=2, health_check=check, files={"a.j2": "{{ get('vars/bucket', worker_ip, '') }}"})
    await bed.deploy()
    bed.catalog.values["vars/bucket"] = Namespace(values={"10.0.0.1": "changed"})
    bed.remote.fail["is-healthy 10.0.0.2"] = 1
    ended = await bed.deploy()
    assert ended.word == "succeeded"
    assert list(ended.result.notices) == ["api on 10.0.0.2 was unhealthy before this deploy: ssh `is-healthy`: exit code 1"]


async def test_an_allocation_that_does_not_become_healthy_fails_its_batch(bed: RunBed) -> None:
    check = HealthCheck(probes=(SshProbe(command="is-healthy"),), wait_attempts=2, wait_interval=timedelta(milliseconds=1))
    bed.add_job("api", health_check=check)
    bed.remote.fail["is-healthy 10.0.0.1"] = 1
    ended = await bed.deploy()
    assert ended.word == "failed"
    assert ended.result.failures[0].kind == pb.FAILURE_KIND_UNHEALTHY
    assert bed.catalog.states("api") == ["failed"]
    assert bed.did.count("is-healthy 10.0.0.1") == 2
