"""Gates: whose failure it is, what is said of it, and that nothing but success counts as healthy.

Each fault in turn: an allocation that hangs, that fails, whose hook was interrupted, cancelled or is not known. The others keep
their outcome, and everything that is said names the worker.
"""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from maand_contracts.catalog.v1 import run_event_pb2 as pb
from maand_contracts.catalog.v1 import run_spec_pb2 as spec
from maand_contracts.catalog.v1 import task_pb2
from maand_executor.rules.facts import HealthCheck, InvocationOutcome, SshProbe
from maand_executor.steps.fan_out import UnknownOutcome, explain_failure
from maand_executor.steps.health_gate import describe_unhealthy
from tests.unit.executor.fakes_runs import Ended, RunBed, promoted

QUICK = timedelta(milliseconds=30)
PROBED = HealthCheck(probes=(SshProbe(command="is-well"),), timeout=QUICK, wait_attempts=3, wait_interval=timedelta())
SICK, WELL = "10.0.0.2", "10.0.0.1"
RESTART = spec.RunSpec(job_control=spec.JobControlSpec(job="api", action=spec.JOB_ACTION_RESTART, batch=3))
START = spec.RunSpec(job_control=spec.JobControlSpec(job="api", action=spec.JOB_ACTION_START))


@pytest.fixture
def bed(tmp_path: Path) -> RunBed:
    bed = RunBed(tmp_path)
    bed.catalog.config = replace(bed.catalog.config, ssh_config="here", worker_root="/opt/worker")
    return bed


async def check(bed: RunBed, *, wait: bool = False) -> Ended:
    return await bed.run(spec.RunSpec(health_check=spec.HealthCheckSpec(wait=wait)))


def sick(ended: Ended) -> dict[str, str]:
    return {failure.worker: failure.message for failure in ended.result.failures}


# Whose failure it is ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wait", [False, True])
async def test_an_allocation_that_hangs_takes_nobody_with_it(bed: RunBed, wait: bool) -> None:
    bed.add_job("api", workers=3, health_check=PROBED)
    bed.remote.hanging.add(f"is-well {SICK}")
    ended = await check(bed, wait=wait)
    assert sick(ended) == {SICK: "ssh `is-well`: no answer within 0.03 s"}
    assert ended.result.counts == {"healthy": 2, "unhealthy": 1}
    assert ended.result.message == "1 of 3 allocations are unhealthy"
    assert [event.job_finished.message for event in ended.events if event.job == "api" and event.HasField("job_finished")] == [
        f"unhealthy: {SICK}"
    ]


async def test_each_of_those_that_hang_is_named_by_the_gate_of_a_deploy(bed: RunBed) -> None:
    bed.add_job("api", workers=3, health_check=PROBED)
    bed.remote.hanging |= {f"is-well {SICK}", "is-well 10.0.0.3"}
    ended = await bed.deploy()
    assert sick(ended) == dict.fromkeys((SICK, "10.0.0.3"), "ssh `is-well`: no answer within 0.03 s")


@pytest.mark.parametrize("action", [RESTART, START])
async def test_each_of_those_that_hang_is_named_and_counted_by_the_gate_of_job_control(bed: RunBed, action: spec.RunSpec) -> None:
    bed.add_job("api", workers=3, health_check=PROBED)
    bed.remote.hanging.add(f"is-well {SICK}")
    ended = await bed.run(action)
    assert sick(ended) == {SICK: "ssh `is-well`: no answer within 0.03 s"}
    assert ended.result.counts == {"succeeded": 2, "failed": 1}


async def test_a_gate_gives_its_hooks_what_is_left_of_its_time_and_one_look_gives_them_their_own(bed: RunBed) -> None:
    bed.add_job(
        "api", hooks=("health_check",), health_check=replace(PROBED, wait_attempts=30, wait_interval=timedelta(seconds=1))
    )
    await check(bed, wait=True)
    assert timedelta(seconds=20) < bed.hooks.requests[-1].time_left <= timedelta(seconds=30)
    await check(bed)
    assert bed.hooks.requests[-1].time_left == timedelta.max


# What is said of it ----------------------------------------------------------------------------------------------------


async def test_a_command_runs_in_the_directory_and_environment_of_a_lifecycle_command(bed: RunBed) -> None:
    bed.add_job("api", health_check=PROBED)
    await bed.deploy()
    start, probe = bed.remote.commands[f"start api {WELL}"], bed.remote.commands[f"is-well {WELL}"]
    assert probe.directory == f"/opt/worker/{bed.catalog.config.bucket_id}/jobs/api"
    assert probe.environment == start.environment
    assert {"ALLOCATION_IP", "ALLOCATION_INDEX", "JOB", "CURRENT_VERSION", "NEW_VERSION"} <= set(probe.environment)
    assert probe.fence is None, "it only looks"


@pytest.mark.parametrize("way", ["fail", "hang"])
async def test_what_a_command_said_is_shown_masked(bed: RunBed, way: str) -> None:
    bed.add_job("api", health_check=PROBED)
    bed.catalog.secrets = ["swordfish"]
    step = f"is-well {WELL}"
    bed.remote.said[step] = b"login swordfish refused\n"
    if way == "fail":
        bed.remote.fail[step] = 1
    else:
        bed.remote.hanging.add(step)
    ended = await check(bed)
    assert list(ended.result.failures[0].last_lines) == ["login *** refused"]


async def test_a_gate_says_why_it_waits_once_for_each_reason(bed: RunBed) -> None:
    bed.add_job("api", workers=2, health_check=replace(PROBED, timeout=timedelta(seconds=5), wait_attempts=100))
    looks: list[str] = []

    def change_reason(step: str) -> None:
        looks.extend([step] if step == f"is-well {SICK}" else [])
        bed.remote.fail[f"is-well {SICK}"] = {1: 3, 2: 3, 3: 4}.get(len(looks), 0)

    bed.remote.on_command = change_reason
    ended = await check(bed, wait=True)
    assert ended.word == "succeeded"
    assert [event.waiting.reason for event in ended.events if event.HasField("waiting")] == [
        f"health of api (1 of 2): {SICK}: ssh `is-well`: exit code 3",
        f"health of api (1 of 2): {SICK}: ssh `is-well`: exit code 4",
    ]


def test_reasons_stay_small_however_many_are_unhealthy() -> None:
    alike = [pb.Failure(worker=f"10.0.0.{number}", step="health", message="tcp 80: refused") for number in range(5)]
    assert describe_unhealthy(alike, watched=6) == "(1 of 6): 10.0.0.0, 10.0.0.1, 10.0.0.2, and 2 more: tcp 80: refused"
    failures = [pb.Failure(worker=f"10.0.0.{number}", step="hook_ready", message=f"{number}" * 1_000) for number in range(9)]
    text = describe_unhealthy(failures, watched=10)
    assert text.startswith("(1 of 10): 10.0.0.0: hook_ready: 000")
    assert text.endswith("; and 6 more")
    assert len(text) < 500


async def test_a_late_attempt_of_a_gate_has_as_much_time_for_a_probe_as_the_first(bed: RunBed) -> None:
    """A gate of five seconds and probes that may take as long: cut to what is left, slow but healthy ones would be sick."""
    bed.add_job("api", health_check=replace(PROBED, timeout=timedelta(seconds=5), wait_attempts=100))
    step, limits = f"is-well {WELL}", list[timedelta | None]()

    def look(_: str) -> None:
        limits.append(bed.remote.commands[step].timeout)
        bed.remote.fail[step] = 1 if len(limits) < 3 else 0

    bed.remote.on_command = look
    assert (await check(bed, wait=True)).word == "succeeded"
    assert limits == [timedelta(seconds=5)] * 3


# Nothing but success is healthy ----------------------------------------------------------------------------------------

LOST = (InvocationOutcome.INTERRUPTED, "failed")
CALLED_OFF = (InvocationOutcome.CANCELLED, "cancelled")


@pytest.mark.parametrize(("outcome", "word"), [LOST, CALLED_OFF])
@pytest.mark.parametrize("wait", [False, True])
async def test_a_health_check_whose_hook_was_lost_is_not_passed(
    bed: RunBed, outcome: InvocationOutcome, word: str, wait: bool
) -> None:
    bed.add_job("api", workers=2, hooks=("health_check",), health_check=HealthCheck(wait_attempts=1))
    bed.hooks.ended[f"health_check {SICK}"] = outcome
    ended = await check(bed, wait=wait)
    assert ended.word == word
    assert "healthy" not in ended.jobs().values()
    assert list(sick(ended)) == ([SICK] if word == "failed" else [])


@pytest.mark.parametrize(("outcome", "word"), [LOST, CALLED_OFF])
@pytest.mark.parametrize("event", ["pre_deploy", "job_control", "after_allocation_started", "health_check"])
async def test_a_deploy_promotes_nobody_whose_hook_was_lost(
    bed: RunBed, event: str, outcome: InvocationOutcome, word: str
) -> None:
    bed.add_job("api", workers=2, hooks=(event,), health_check=HealthCheck(wait_attempts=1))
    bed.hooks.ended[f"{event} {SICK}"] = outcome
    ended = await bed.deploy()
    assert ended.word == word
    if event == "pre_deploy":
        assert not promoted(*bed.catalog.states("api"))
    else:
        well = "promoted" if word == "failed" else "failed"  # after a cancel nobody knows more of the others either
        assert bed.catalog.states("api") == [well, "failed"], "what was begun is not left as if it went on"


@pytest.mark.parametrize(("outcome", "word"), [LOST, CALLED_OFF])
@pytest.mark.parametrize("event", ["job_control", "after_allocation_started", "health_check"])
@pytest.mark.parametrize("action", [RESTART, START])
async def test_job_control_records_nobody_as_done_whose_hook_was_lost(
    bed: RunBed, action: spec.RunSpec, event: str, outcome: InvocationOutcome, word: str
) -> None:
    bed.add_job("api", workers=3, hooks=(event,), health_check=HealthCheck(wait_attempts=1))
    bed.hooks.ended[f"{event} {SICK}"] = outcome
    ended = await bed.run(action)
    assert ended.word == word
    assert "done" not in ended.result.message
    if not (event == "health_check" and action is START):  # there the gate comes after all batches were done
        done = {step.split("/")[1] for step in bed.catalog.steps if "/control:" in step}
        assert done == ({WELL, "10.0.0.3"} if word == "failed" else set())


@pytest.mark.parametrize(("outcome", "word"), [LOST, CALLED_OFF])
async def test_hooks_by_hand_and_after_a_build_that_were_lost_are_not_well(
    bed: RunBed, outcome: InvocationOutcome, word: str
) -> None:
    bed.add_job("api", workers=2, hooks=("cli", "post_build"))
    bed.hooks.ended |= {f"cli {SICK}": outcome, f"post_build {SICK}": outcome}
    by_hand = await bed.run(spec.RunSpec(hooks=spec.HooksSpec(hook="hook_cli")))
    assert (by_hand.word, dict(by_hand.result.counts)) == (word, {"succeeded": 1, word: 1})
    assert (await bed.run(spec.RunSpec(build=spec.BuildSpec(snapshot_id="snapshot")))).word == word


def test_an_outcome_without_a_failure_is_given_one_unless_it_succeeded() -> None:
    unknown = UnknownOutcome(step="preflight", job="api")
    for outcome in pb.StepOutcome.values():
        told = explain_failure(task_pb2.WorkerOutcome(worker=SICK, outcome=outcome), unknown)
        assert told.HasField("failure") == (outcome != pb.STEP_OUTCOME_SUCCEEDED)
        assert not told.HasField("failure") or (told.failure.worker, told.failure.step) == (SICK, "preflight")
