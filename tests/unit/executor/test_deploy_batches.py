"""Deploys in batches: their order, what a failure in one keeps and leaves, gates."""

from pathlib import Path

import pytest

from maand_executor.errors import JobCancelled
from maand_executor.hooks.errors import InterpreterMissing
from maand_executor.hooks.request import EventRun
from maand_executor.rules.facts import AllocationState, Namespace, RestartPolicy, RolloutOrder
from tests.unit.executor.fakes_runs import RunBed


@pytest.fixture
def bed(tmp_path: Path) -> RunBed:
    return RunBed(tmp_path)


async def test_updates_go_in_batches_in_rollout_order_each_promoted_before_the_next(bed: RunBed) -> None:
    bed.add_job("api", workers=3, max_concurrent_upgrades=2)
    await bed.deploy()
    bed.write("api", {"Makefile": "changed"})
    bed.catalog.orders["api"] = RolloutOrder(workers=("10.0.0.3", "10.0.0.2", "10.0.0.1"), set_by_hook=True)
    bed.catalog.moves.clear()
    await bed.deploy()
    assert {step.rpartition(" ")[2] for step in bed.did[:4]} == {"10.0.0.3", "10.0.0.2"}
    assert bed.did[4:] == ["copy api 10.0.0.1", "restart api 10.0.0.1"]
    assert [state for _, state in bed.catalog.moves] == ["deploying"] * 2 + ["promoted"] * 2 + ["deploying", "promoted"]


async def test_restart_and_reload_share_batches_in_rollout_order(bed: RunBed) -> None:
    bed.add_job("api", workers=2, restart_policy=RestartPolicy.RELOAD, files={"a.j2": "{{ get('vars/bucket', worker_ip, '') }}"})
    await bed.deploy()
    bed.catalog.values["vars/bucket"] = Namespace(values={"10.0.0.1": "changed"})
    bed.catalog.change("api", "10.0.0.2", state=AllocationState.FAILED)
    await bed.deploy()
    assert bed.did == ["copy api 10.0.0.1", "reload api 10.0.0.1", "copy api 10.0.0.2", "restart api 10.0.0.2"]


async def test_a_failure_in_the_middle_batch_keeps_what_was_promoted_and_leaves_the_rest_untouched(bed: RunBed) -> None:
    bed.add_job("api", workers=3)
    await bed.deploy()
    bed.write("api", {"Makefile": "changed"})
    bed.remote.fail["restart api 10.0.0.2"] = 3
    ended = await bed.deploy()
    assert ended.word == "failed"
    assert bed.catalog.states("api") == ["promoted", "failed", "promoted"]
    assert "copy api 10.0.0.3" not in bed.did
    (failure,) = ended.result.failures
    assert (failure.job, failure.worker, failure.step, failure.exit_code) == ("api", "10.0.0.2", "restart", 3)
    assert list(failure.last_lines) == ["no"]
    assert ended.result.counts == {"promoted": 1, "failed": 1, "untouched": 1}
    assert ended.result.next_command == "maand deploy"


async def test_the_next_deploy_does_only_what_is_left(bed: RunBed) -> None:
    bed.add_job("api", workers=3)
    await bed.deploy()
    bed.write("api", {"Makefile": "changed"})
    bed.remote.fail["restart api 10.0.0.2"] = 3
    await bed.deploy()
    bed.remote.fail.clear()
    ended = await bed.deploy()
    assert ended.word == "succeeded"
    assert bed.did == [f"{step} api 10.0.0.{n}" for n in (2, 3) for step in ("copy", "restart")]


async def test_keep_going_takes_later_batches_and_fails_at_the_end(bed: RunBed) -> None:
    bed.add_job("api", workers=3)
    await bed.deploy()
    bed.write("api", {"Makefile": "changed"})
    bed.remote.fail["restart api 10.0.0.2"] = 3
    ended = await bed.deploy(keep_going=True)
    assert ended.word == "failed"
    assert bed.catalog.states("api") == ["promoted", "failed", "promoted"]
    assert "restart api 10.0.0.3" in bed.did


async def test_all_starts_are_gated_once_after_the_last_batch(bed: RunBed) -> None:
    bed.add_job("api", workers=3, max_concurrent_starts=1, hooks=("health_check",))
    await bed.deploy()
    assert [step for step in bed.did if step.startswith("hook")] == ["hook health_check api 10.0.0.1,10.0.0.2,10.0.0.3"]
    assert bed.did[-1].startswith("hook health_check")


async def test_after_a_failed_start_what_did_start_is_gated_and_promoted(bed: RunBed) -> None:
    bed.add_job("api", workers=4, max_concurrent_starts=2, hooks=("after_allocation_started", "health_check"))
    bed.remote.fail["start api 10.0.0.2"] = 1
    ended = await bed.deploy()
    assert ended.word == "failed"
    assert [step for step in bed.did if step.startswith("hook")] == [
        "hook after_allocation_started api 10.0.0.1",
        "hook health_check api 10.0.0.1",
    ]
    assert bed.catalog.states("api") == ["promoted", "failed", "planned", "planned"]
    assert ended.result.counts == {"promoted": 1, "failed": 1, "untouched": 2}

    bed.remote.fail.clear()
    assert (await bed.deploy()).word == "succeeded"
    started = [step for step in bed.did if step.startswith("start")]
    assert started == [f"start api 10.0.0.{number}" for number in (2, 3, 4)]


async def updated_in_one_batch(bed: RunBed, *, hooks: tuple[str, ...] = ()) -> None:
    bed.add_job("api", workers=3, max_concurrent_upgrades=3, hooks=hooks)
    await bed.deploy()
    bed.write("api", {"Makefile": "changed"})


EVERY_WAY_TO_FAIL = pytest.mark.parametrize("how", ["copy", "restart", "job_control", "after_allocation_started", "health_check"])


@EVERY_WAY_TO_FAIL
async def test_of_a_batch_with_a_failure_the_others_are_promoted_and_the_next_deploy_does_what_is_left(
    bed: RunBed, how: str
) -> None:
    hook = how if how not in ("copy", "restart") else "after_allocation_started"
    await updated_in_one_batch(bed, hooks=(hook,))
    failing = bed.hooks.fail if how == hook else bed.remote.fail
    failing[f"{how} api 10.0.0.2" if how in ("copy", "restart") else f"{how} 10.0.0.2"] = 3
    ended = await bed.deploy()
    assert ended.word == "failed"
    assert bed.catalog.states("api") == ["promoted", "failed", "promoted"]
    assert [failure.worker for failure in ended.result.failures] == ["10.0.0.2"]
    assert ended.result.counts == {"promoted": 2, "failed": 1}
    if how in ("copy", "restart"):
        assert "hook after_allocation_started api 10.0.0.1,10.0.0.3" in bed.did, "nothing runs for what was not started"

    bed.hooks.fail.clear()
    bed.remote.fail.clear()
    assert (await bed.deploy()).word == "succeeded"
    assert {step.rpartition(" ")[2] for step in bed.did if step.startswith("copy")} == {"10.0.0.2"}


async def test_who_takes_a_failing_batch_over_repeats_nothing_that_was_promoted(bed: RunBed) -> None:
    await updated_in_one_batch(bed)
    bed.remote.fail["restart api 10.0.0.2"] = 3
    await bed.deploy()
    bed.remote.fail.clear()
    ended = await bed.deploy(steps=["api/10.0.0.1/promoted", "api/10.0.0.3/promoted"])
    assert ended.word == "succeeded"
    assert bed.did == ["copy api 10.0.0.2", "restart api 10.0.0.2"]


async def test_a_cancel_in_a_later_step_of_a_batch_takes_nothing_of_what_failed_before(bed: RunBed) -> None:
    await updated_in_one_batch(bed, hooks=("after_allocation_started",))
    bed.remote.fail["restart api 10.0.0.2"] = 3

    def cancel(_: EventRun) -> None:
        raise JobCancelled("stopped while its hooks ran")

    bed.hooks.on_event = cancel
    ended = await bed.deploy()
    assert [(failure.worker, failure.step) for failure in ended.result.failures] == [("10.0.0.2", "restart")]
    messages = [bed.catalog.allocations[f"api@10.0.0.{number}"].message for number in (1, 2, 3)]
    stopped = "the run was stopped in the middle of this batch"
    assert messages == [stopped, "make restart ended with exit code 3", stopped]


async def test_a_batch_whose_hooks_cannot_begin_is_failed_as_a_whole(bed: RunBed) -> None:
    await updated_in_one_batch(bed, hooks=("after_allocation_started",))

    def refuse(request: EventRun) -> None:
        raise InterpreterMissing("bun", job=request.job.name, hook=request.job.hooks[0].name)

    bed.hooks.on_event = refuse
    ended = await bed.deploy()
    assert ended.word == "failed"
    assert bed.catalog.states("api") == ["failed"] * 3


async def test_a_gate_looks_at_its_batch_and_at_what_was_promoted_before(bed: RunBed) -> None:
    bed.add_job("api", workers=3, hooks=("health_check",))
    await bed.deploy()
    bed.write("api", {"Makefile": "changed"})
    await bed.deploy()
    gates = [step.rpartition(" ")[2] for step in bed.did if step.startswith("hook health_check")]
    assert gates == ["10.0.0.1", "10.0.0.1,10.0.0.2", "10.0.0.1,10.0.0.2,10.0.0.3"]
