"""What is not meant to run any more is stopped, once."""

import asyncio
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from maand_contracts.catalog.v1 import run_spec_pb2
from maand_executor.hooks.request import EventRun
from maand_executor.rules.facts import AllocationState, Namespace, RestartPolicy
from tests.unit.executor.fakes_runs import RunBed


@pytest.fixture
def bed(tmp_path: Path) -> RunBed:
    return RunBed(tmp_path)


async def test_a_disabled_allocation_is_stopped_once_and_its_hooks_told(bed: RunBed) -> None:
    bed.add_job("api", workers=2, hooks=("after_allocation_stopped",))
    await bed.deploy()
    bed.catalog.change("api", "10.0.0.2", disabled=True)
    assert (await bed.deploy()).word == "succeeded"
    assert bed.did == ["stop api 10.0.0.2", "hook after_allocation_stopped api 10.0.0.2"]
    assert bed.catalog.states("api") == ["promoted", "stopped"]
    assert bed.hooks.requests[-1].phase == "stop"
    await bed.deploy()
    assert bed.did == []


async def test_a_disabled_allocation_that_never_ran_is_left_alone(bed: RunBed) -> None:
    bed.add_job("api", workers=2)
    bed.catalog.change("api", "10.0.0.2", disabled=True)
    await bed.deploy()
    assert bed.did == ["copy api 10.0.0.1", "start api 10.0.0.1"]
    assert "10.0.0.2" not in bed.remote.contacted


async def test_an_enabled_again_allocation_is_started(bed: RunBed) -> None:
    bed.add_job("api")
    await bed.deploy()
    bed.catalog.change("api", "10.0.0.1", disabled=True)
    await bed.deploy()
    bed.catalog.change("api", "10.0.0.1", disabled=False)
    await bed.deploy()
    assert bed.did == ["copy api 10.0.0.1", "start api 10.0.0.1"]


POLICIES = pytest.mark.parametrize("policy", list(RestartPolicy))


async def stopped_and_enabled_again(bed: RunBed, policy: RestartPolicy, *, hooks: tuple[str, ...] = ()) -> None:
    bed.add_job("api", restart_policy=policy, hooks=hooks)
    await bed.deploy()
    bed.catalog.change("api", "10.0.0.1", disabled=True)
    await bed.deploy()
    bed.catalog.change("api", "10.0.0.1", disabled=False)


@POLICIES
async def test_a_start_that_fails_after_a_stop_is_tried_again_as_a_start(bed: RunBed, policy: RestartPolicy) -> None:
    await stopped_and_enabled_again(bed, policy, hooks=("after_allocation_started",))
    bed.remote.fail["start api 10.0.0.1"] = 2
    for _ in range(2):
        assert (await bed.deploy()).word == "failed"
        assert bed.did == ["copy api 10.0.0.1", "start api 10.0.0.1"]
    assert (await bed.deploy(sync_only=True)).word == "failed"
    assert bed.did == []

    bed.remote.fail.clear()
    assert (await bed.deploy()).word == "succeeded"
    assert bed.did == ["copy api 10.0.0.1", "start api 10.0.0.1", "hook after_allocation_started api 10.0.0.1"]
    assert bed.hooks.requests[-1].phase == "new"
    assert bed.catalog.states("api") == ["promoted"]
    await bed.deploy()
    assert bed.did == []


@POLICIES
async def test_job_control_hooks_hear_of_a_start_tried_again_as_of_a_new_allocation(bed: RunBed, policy: RestartPolicy) -> None:
    await stopped_and_enabled_again(bed, policy, hooks=("job_control",))
    bed.hooks.fail["job_control 10.0.0.1"] = 1
    await bed.deploy()
    bed.hooks.fail.clear()
    assert (await bed.deploy()).word == "succeeded"
    assert bed.hooks.requests[-1].lifecycle == {"NEW_ALLOCATIONS": "10.0.0.1", "UPDATED_ALLOCATIONS": ""}
    assert bed.hooks.requests[-1].phase == "new"


@POLICIES
@pytest.mark.parametrize("leaves", ["disabled", "removed"])
async def test_what_is_wanted_again_after_a_stop_that_failed_is_started(bed: RunBed, policy: RestartPolicy, leaves: str) -> None:
    bed.add_job("api", restart_policy=policy, hooks=("after_allocation_stopped",))
    await bed.deploy()
    bed.catalog.change("api", "10.0.0.1", **{leaves: True})
    bed.hooks.fail["after_allocation_stopped 10.0.0.1"] = 1  # `make stop` went well: it does not run any more
    await bed.deploy()
    bed.catalog.change("api", "10.0.0.1", **{leaves: False})
    await bed.deploy()
    assert bed.did == ["copy api 10.0.0.1", "start api 10.0.0.1"]
    assert bed.catalog.states("api") == ["promoted"]


async def test_that_a_stop_begins_is_recorded_before_anything_is_done(bed: RunBed) -> None:
    bed.add_job("api")
    await bed.deploy()
    bed.catalog.change("api", "10.0.0.1", disabled=True)
    seen: list[str] = []
    bed.remote.on_command = lambda what: seen.append(f"{what}: {bed.catalog.states('api')[0]}")
    await bed.deploy()
    assert seen == ["stop api 10.0.0.1: deploying"]
    assert bed.catalog.states("api") == ["stopped"]


async def test_a_run_that_is_stopped_while_it_stops_an_allocation_leaves_it_failed(bed: RunBed) -> None:
    bed.add_job("api")
    await bed.deploy()
    bed.catalog.change("api", "10.0.0.1", disabled=True)

    def cancel(_: str) -> None:
        raise asyncio.CancelledError

    bed.remote.on_command = cancel
    with suppress(asyncio.CancelledError):
        await bed.deploy()
    assert bed.catalog.states("api") == ["failed"]
    bed.remote.on_command = lambda _: None
    bed.catalog.change("api", "10.0.0.1", disabled=False)
    await bed.deploy()
    assert bed.did == ["copy api 10.0.0.1", "start api 10.0.0.1"]


async def test_files_of_a_start_that_failed_go_with_the_allocation_and_gc_takes_its_directory(bed: RunBed) -> None:
    bed.add_job("api")
    bed.remote.fail["start api 10.0.0.1"] = 2
    await bed.deploy()
    bed.catalog.change("api", "10.0.0.1", disabled=True)
    await bed.deploy()
    assert bed.did == ["stop api 10.0.0.1"]
    bed.catalog.change("api", "10.0.0.1", removed=True)
    await bed.deploy()
    assert bed.did == ["remove 10.0.0.1"]
    await bed.run(run_spec_pb2.RunSpec(gc=run_spec_pb2.GcSpec()))
    assert bed.did == ["purge 10.0.0.1"]


async def test_a_removed_allocation_is_stopped_then_its_files_are_deleted(bed: RunBed) -> None:
    bed.add_job("api", workers=2, hooks=("after_allocation_stopped",))
    await bed.deploy()
    bed.catalog.change("api", "10.0.0.2", removed=True)
    await bed.deploy()
    assert bed.did == ["stop api 10.0.0.2", "hook after_allocation_stopped api 10.0.0.2", "remove 10.0.0.2"]
    assert bed.catalog.states("api") == ["promoted", "removed"]


async def test_hooks_reach_the_worker_of_a_removed_allocation_that_was_just_stopped(bed: RunBed) -> None:
    bed.add_job("api", workers=3, hooks=("after_allocation_stopped", "post_deploy"))
    await bed.deploy()
    bed.catalog.change("api", "10.0.0.2", removed=True)
    bed.catalog.change("api", "10.0.0.3", removed=True)
    bed.catalog.change("api", "10.0.0.1", deployed_sha256=b"")
    await bed.deploy()
    stopped, after = bed.hooks.requests[-2:]
    assert [worker.name for worker in stopped.workers] == ["10.0.0.1", "10.0.0.2", "10.0.0.3"]
    assert (after.event, [worker.name for worker in after.workers]) == ("post_deploy", ["10.0.0.1"])


async def test_a_hook_that_fails_for_a_dead_worker_is_told_and_holds_nobody_up(bed: RunBed) -> None:
    bed.add_job("api", workers=3, hooks=("after_allocation_stopped",))
    await bed.deploy()
    for host in ("10.0.0.2", "10.0.0.3"):
        bed.catalog.change("api", host, removed=True)
    bed.catalog.workers["10.0.0.3"] = replace(bed.catalog.workers["10.0.0.3"], removed=True)
    bed.remote.unreachable.add("10.0.0.3")
    bed.hooks.fail["after_allocation_stopped 10.0.0.3"] = 1
    ended = await bed.deploy()
    assert ended.word == "succeeded", ended.result
    assert bed.catalog.states("api") == ["promoted", "removed", "removed"]
    assert any("failed on 10.0.0.3, which is assumed dead" in notice for notice in ended.result.notices)
    assert bed.did == [
        "stop api 10.0.0.2",
        "hook after_allocation_stopped api 10.0.0.2",
        "remove 10.0.0.2",
        "hook after_allocation_stopped api 10.0.0.3",
    ]


async def test_what_was_disabled_and_stopped_is_only_deleted_when_it_is_removed(bed: RunBed) -> None:
    bed.add_job("api", hooks=("after_allocation_stopped",))
    await bed.deploy()
    bed.catalog.change("api", "10.0.0.1", disabled=True)
    await bed.deploy()
    bed.catalog.change("api", "10.0.0.1", removed=True)
    await bed.deploy()
    assert bed.did == ["remove 10.0.0.1"]


async def test_stops_go_in_batches_of_max_concurrent_stops(bed: RunBed) -> None:
    bed.add_job("api", workers=3, max_concurrent_stops=2)
    await bed.deploy()
    for host in ("10.0.0.1", "10.0.0.2", "10.0.0.3"):
        bed.catalog.change("api", host, disabled=True)
    ended = await bed.deploy()
    batches = [list(event.batch_started.workers) for event in ended.events if event.HasField("batch_started")]
    assert batches == [["10.0.0.1", "10.0.0.2"], ["10.0.0.3"]]


async def test_a_stop_that_fails_fails_its_job_and_is_tried_again(bed: RunBed) -> None:
    bed.add_job("api", workers=2)
    await bed.deploy()
    bed.catalog.change("api", "10.0.0.2", disabled=True)
    bed.remote.fail["stop api 10.0.0.2"] = 2
    assert (await bed.deploy()).jobs() == {"api": "failed"}
    assert bed.catalog.states("api")[1] == str(AllocationState.FAILED)
    bed.remote.fail.clear()
    assert (await bed.deploy()).word == "succeeded"
    assert bed.did == ["stop api 10.0.0.2"]


@pytest.mark.parametrize("how", ["stop", "after_allocation_stopped"])
@pytest.mark.parametrize("leaves", ["disabled", "removed"])
async def test_of_a_stop_batch_with_a_failure_the_others_are_stopped_for_good(bed: RunBed, how: str, leaves: str) -> None:
    bed.add_job("api", workers=3, hooks=("after_allocation_stopped",))
    await bed.deploy()
    for host in ("10.0.0.2", "10.0.0.3"):
        bed.catalog.change("api", host, **{leaves: True})
    failing = bed.remote.fail if how == "stop" else bed.hooks.fail
    failing["stop api 10.0.0.2" if how == "stop" else f"{how} 10.0.0.2"] = 2
    ended = await bed.deploy()
    assert ended.jobs() == {"api": "failed"}
    assert bed.catalog.states("api") == ["promoted", "failed", "stopped" if leaves == "disabled" else "removed"]
    assert (ended.result.counts["stopped"], ended.result.counts["failed"]) == (1, 1)

    bed.remote.fail.clear()
    bed.hooks.fail.clear()
    assert (await bed.deploy()).word == "succeeded"
    assert "stop api 10.0.0.2" in bed.did
    assert not any("10.0.0.3" in step for step in bed.did)


async def test_jobs_that_demand_others_are_stopped_first(bed: RunBed) -> None:
    bed.add_job("database")
    bed.add_job("api", deployment_seq=1, demanded_jobs=("database",))
    await bed.deploy()
    for job in ("database", "api"):
        bed.catalog.change(job, "10.0.0.1", disabled=True)
    await bed.deploy()
    assert bed.did == ["stop api 10.0.0.1", "stop database 10.0.0.1"]


async def test_a_job_without_a_makefile_is_stopped_by_its_job_control_hook(bed: RunBed) -> None:
    bed.add_job("api", hooks=("job_control",), has_makefile=False)
    await bed.deploy()
    bed.catalog.change("api", "10.0.0.1", disabled=True)
    await bed.deploy()
    assert bed.did == ["hook job_control api 10.0.0.1"]
    assert bed.hooks.requests[-1].lifecycle == {"TARGET": "stop"}


@pytest.mark.parametrize("event", ["after_allocation_stopped", "job_control"])
async def test_what_a_hook_stores_while_it_stops_is_rendered_by_the_same_deploy(bed: RunBed, event: str) -> None:
    files = {"members.j2": "left: {{ get('vars/job/api', 'left', 'nobody') }}"}
    bed.catalog.values["vars/job/api"] = Namespace(values={})
    bed.add_job("api", workers=2, files=files, hooks=(event,), has_makefile=event != "job_control")
    await bed.deploy()
    bed.catalog.change("api", "10.0.0.2", disabled=True)

    def store(request: EventRun) -> None:
        if request.phase == "stop":
            bed.catalog.values["vars/job/api"] = Namespace(values={"left": "10.0.0.2"})

    bed.hooks.on_event = store
    ended = await bed.deploy()
    assert ended.word == "succeeded", ended.result
    assert "copy api 10.0.0.1" in bed.did
    await bed.deploy()
    assert bed.did == []


async def test_what_a_hook_of_a_demanded_job_stores_is_rendered_by_the_same_deploy(bed: RunBed) -> None:
    bed.add_job("database", workers=2, hooks=("after_allocation_stopped",))
    files = {"members.j2": "left: {{ get('vars/job/database', 'left', 'nobody') }}"}
    bed.catalog.values["vars/job/database"] = Namespace(values={})
    bed.add_job("api", files=files, deployment_seq=1, demanded_jobs=("database",))
    await bed.deploy()
    bed.catalog.change("database", "10.0.0.2", disabled=True)
    bed.hooks.on_event = lambda _: bed.catalog.values.update({"vars/job/database": Namespace(values={"left": "10.0.0.2"})})
    await bed.deploy()
    assert "restart api 10.0.0.1" in bed.did
