"""The other kinds of run: build, hooks, commands, health, job control, gc."""

from dataclasses import replace
from pathlib import Path

import grpc
import pytest

from maand_contracts.catalog.v1 import run_event_pb2 as pb
from maand_contracts.catalog.v1 import run_spec_pb2 as spec
from maand_contracts.common.v1 import error_pb2
from maand_executor.claims.work_by_kind import WORK_BY_KIND
from maand_executor.rules.cancel import CancelLevel
from maand_executor.rules.facts import HealthCheck, SshProbe
from maand_wire.errors import RemoteError
from tests.unit.executor.fakes_runs import Ended, RunBed


@pytest.fixture
def bed(tmp_path: Path) -> RunBed:
    return RunBed(tmp_path)


def build() -> spec.RunSpec:
    return spec.RunSpec(build=spec.BuildSpec(snapshot_id="snapshot"))


def hooks(name: str, *, keep_going: bool = False, **settings: object) -> spec.RunSpec:
    return spec.RunSpec(hooks=spec.HooksSpec(hook=name, **settings), keep_going=keep_going)  # type: ignore[arg-type]  # test values


def command(text: str, *, keep_going: bool = False, **settings: object) -> spec.RunSpec:
    return spec.RunSpec(run_command=spec.RunCommandSpec(command=text, **settings), keep_going=keep_going)  # type: ignore[arg-type]  # test values


def control(action: "spec.JobAction.ValueType", **settings: object) -> spec.RunSpec:
    return spec.RunSpec(job_control=spec.JobControlSpec(job="api", action=action, **settings))  # type: ignore[arg-type]  # test values


def health(**settings: object) -> spec.RunSpec:
    return spec.RunSpec(health_check=spec.HealthCheckSpec(**settings))  # type: ignore[arg-type]  # test values


def test_every_kind_of_the_contract_has_its_work() -> None:
    kinds = {field.name for field in spec.RunSpec.DESCRIPTOR.oneofs_by_name["spec"].fields}
    assert set(WORK_BY_KIND) == kinds


async def test_a_run_of_no_kind_is_refused(bed: RunBed) -> None:
    assert (await bed.run(spec.RunSpec())).result.failures[0].kind == pb.FAILURE_KIND_INVALID


async def test_nothing_is_done_before_the_first_build(bed: RunBed) -> None:
    bed.catalog.config = replace(bed.catalog.config, built=False)
    ended = await bed.deploy()
    assert ended.result.failures[0].help == "run `maand build` first"


# Build ------------------------------------------------------------------------------------------------------------------


async def test_post_build_hooks_run_demanded_jobs_first(bed: RunBed) -> None:
    bed.add_job("api", deployment_seq=1, hooks=("post_build",))
    bed.add_job("database", hooks=("post_build",))
    assert (await bed.run(build())).word == "succeeded"
    assert bed.did == ["hook post_build database 10.0.0.1", "hook post_build api 10.0.0.1"]


async def test_a_failed_post_build_hook_fails_the_build_and_ends_it(bed: RunBed) -> None:
    bed.add_job("a", hooks=("post_build",))
    bed.add_job("b", hooks=("post_build",))
    bed.hooks.fail["post_build 10.0.0.1"] = 3
    ended = await bed.run(build())
    assert ended.word == "failed"
    assert bed.did == ["hook post_build a 10.0.0.1"]
    assert ended.result.failures[0].exit_code == 3


async def test_a_wrong_workspace_fails_with_its_problems(bed: RunBed) -> None:
    problem = error_pb2.Problem(code="unknown_key", message="x", file="workspace/jobs/api/manifest.json", line=4)
    status = grpc.StatusCode.INVALID_ARGUMENT
    bed.catalog.build_failure = RemoteError(status, "1 problem", code="invalid_workspace", problems=[problem])
    ended = await bed.run(build())
    assert ended.word == "failed"
    assert ended.result.failures[0].kind == pb.FAILURE_KIND_INVALID
    assert list(ended.result.problems) == [problem]


async def test_who_takes_a_build_over_does_not_build_again_but_runs_the_hooks_that_are_left(bed: RunBed) -> None:
    bed.add_job("a", hooks=("post_build",))
    bed.catalog.build_failure = AssertionError("built again")
    ended = await bed.run(build(), steps=["build"])
    assert ended.word == "succeeded", ended.result
    assert bed.did == ["hook post_build a 10.0.0.1"]
    assert ended.result.message == "built 1 jobs on 1 workers, 1 allocations"
    assert dict(ended.result.counts) == {"jobs": 1, "workers": 1, "active_allocations": 1}


async def test_a_build_is_a_recorded_step(bed: RunBed) -> None:
    bed.add_job("a")
    await bed.run(build())
    assert bed.catalog.steps == ["build"]


async def test_a_deploy_may_build_first(bed: RunBed) -> None:
    bed.add_job("api", hooks=("post_build",))
    await bed.deploy(build_snapshot_id="snapshot")
    assert bed.did == ["hook post_build api 10.0.0.1", "copy api 10.0.0.1", "start api 10.0.0.1"]


# Hooks by hand ----------------------------------------------------------------------------------------------------------


async def test_a_hook_runs_on_every_job_that_registers_it_in_name_order(bed: RunBed) -> None:
    for name in ("web", "api", "other"):
        bed.add_job(name, workers=2, hooks=("cli",) if name != "other" else ())
    ended = await bed.run(hooks("hook_cli", args=["--dry-run", "x"]))
    assert ended.word == "succeeded"
    assert bed.did == ["hook cli api 10.0.0.1,10.0.0.2", "hook cli web 10.0.0.1,10.0.0.2"]
    assert bed.hooks.requests[0].arguments == ("--dry-run", "x")
    assert bed.hooks.requests[0].only_hook == "hook_cli"


async def test_a_failed_hook_keeps_the_results_of_the_others(bed: RunBed) -> None:
    bed.add_job("api", workers=3, hooks=("cli",))
    bed.hooks.fail["cli 10.0.0.2"] = 9
    ended = await bed.run(hooks("hook_cli", job="api"))
    assert ended.word == "failed"
    assert ended.result.counts == {"succeeded": 2, "failed": 1}
    assert [(failure.worker, failure.exit_code) for failure in ended.result.failures] == [("10.0.0.2", 9)]


@pytest.mark.parametrize(
    ("name", "job", "help_"),
    [
        ("hook_cly", "", 'did you mean "hook_cli"?'),
        ("hook_pre_deploy", "", 'add "cli" to its executed_on'),
        ("hook_cli", "apii", 'did you mean "api"?'),
    ],
)
async def test_an_unknown_hook_or_job_is_an_error_with_the_nearest_name(bed: RunBed, name: str, job: str, help_: str) -> None:
    bed.add_job("api", hooks=("cli", "pre_deploy"))
    failure = (await bed.run(hooks(name, job=job))).result.failures[0]
    assert (failure.kind, failure.help) == (pb.FAILURE_KIND_INVALID, help_)


# Commands ---------------------------------------------------------------------------------------------------------------


def batches(ended: Ended) -> list[list[str]]:
    return [list(event.batch_started.workers) for event in ended.events if event.HasField("batch_started")]


async def test_a_command_runs_on_all_workers_in_batches(bed: RunBed) -> None:
    bed.add_workers(3)
    ended = await bed.run(command("uptime", concurrency=2))
    assert batches(ended) == [["10.0.0.1", "10.0.0.2"], ["10.0.0.3"]]
    assert sorted(bed.did) == ["uptime 10.0.0.1", "uptime 10.0.0.2", "uptime 10.0.0.3"]


async def test_a_command_runs_on_named_or_labelled_workers_only(bed: RunBed) -> None:
    bed.add_workers(3)
    bed.catalog.workers["10.0.0.2"] = replace(bed.catalog.workers["10.0.0.2"], labels=("db", "worker"))
    await bed.run(command("a", workers=["10.0.0.3"]))
    assert bed.did == ["a 10.0.0.3"]
    await bed.run(command("b", labels=["db"]))
    assert bed.did == ["b 10.0.0.2"]


async def test_the_remote_exit_code_is_told_and_later_batches_are_left(bed: RunBed) -> None:
    bed.add_workers(3)
    bed.remote.fail["false 10.0.0.1"] = 42
    ended = await bed.run(command("false", concurrency=1))
    assert ended.result.failures[0].exit_code == 42
    assert ended.result.counts == {"failed": 1, "untouched": 2}


async def test_keep_going_takes_the_later_batches_too(bed: RunBed) -> None:
    bed.add_workers(3)
    bed.remote.fail["false 10.0.0.1"] = 42
    bed.remote.unreachable.add("10.0.0.2")
    ended = await bed.run(command("false", keep_going=True, concurrency=1))
    assert ended.result.counts == {"failed": 1, "unreachable": 1, "succeeded": 1}


async def test_an_unknown_worker_is_an_error(bed: RunBed) -> None:
    bed.add_workers(2)
    failure = (await bed.run(command("x", workers=["10.0.0.11"]))).result.failures[0]
    assert failure.kind == pb.FAILURE_KIND_INVALID


async def test_a_cancel_leaves_the_later_batches(bed: RunBed) -> None:
    bed.add_workers(2)
    bed.remote.on_command = lambda _: bed.cancel.raise_to(CancelLevel.AFTER_BATCH)
    ended = await bed.run(command("x", concurrency=1))
    assert ended.word == "cancelled"
    assert bed.did == ["x 10.0.0.1"]


# Health -----------------------------------------------------------------------------------------------------------------

PROBED = HealthCheck(probes=(SshProbe(command="is-well"),), wait_attempts=1)


async def test_health_is_checked_with_probes_then_hooks(bed: RunBed) -> None:
    bed.catalog.config = replace(bed.catalog.config, ssh_config="here")
    bed.add_job("api", workers=2, hooks=("health_check",), health_check=PROBED)
    ended = await bed.run(health())
    assert ended.word == "succeeded", ended.result
    assert sorted(bed.did[:2]) == ["is-well 10.0.0.1", "is-well 10.0.0.2"]
    assert bed.did[2:] == ["hook health_check api 10.0.0.1,10.0.0.2"]


async def test_an_unhealthy_allocation_fails_the_check(bed: RunBed) -> None:
    bed.catalog.config = replace(bed.catalog.config, ssh_config="here")
    bed.add_job("api", workers=2, health_check=PROBED)
    bed.remote.fail["is-well 10.0.0.2"] = 1
    ended = await bed.run(health())
    assert ended.word == "failed"
    assert ended.result.counts == {"healthy": 1, "unhealthy": 1}
    assert ended.jobs() == {"api": "failed"}


async def test_nothing_to_check_is_skipped_and_said(bed: RunBed) -> None:
    bed.catalog.config = replace(bed.catalog.config, ssh_config="here")
    bed.add_job("api")
    ended = await bed.run(health())
    assert ended.word == "succeeded"
    assert ended.result.message == "skipped: no probes and no health_check hooks"


async def test_an_unreachable_worker_is_told_first(bed: RunBed) -> None:
    bed.catalog.config = replace(bed.catalog.config, ssh_config="here")
    bed.add_job("api", health_check=PROBED)
    bed.remote.unreachable.add("10.0.0.1")
    ended = await bed.run(health())
    assert ended.result.failures[0].kind == pb.FAILURE_KIND_UNREACHABLE


# Job control ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("action", "settings", "target"),
    [
        (spec.JOB_ACTION_START, {}, "start"),
        (spec.JOB_ACTION_STOP, {}, "stop"),
        (spec.JOB_ACTION_RESTART, {}, "restart"),
        (spec.JOB_ACTION_RUN, {"target": "backup"}, "backup"),
        (spec.JOB_ACTION_STATUS, {}, "status"),
    ],
)
async def test_an_action_runs_its_make_target_on_every_allocation(
    bed: RunBed, action: "spec.JobAction.ValueType", settings: dict[str, object], target: str
) -> None:
    bed.add_job("api", workers=2)
    assert (await bed.run(control(action, **settings))).word == "succeeded"
    assert sorted(bed.did) == [f"{target} api 10.0.0.1", f"{target} api 10.0.0.2"]


async def test_a_restart_honours_batches_hooks_and_gates(bed: RunBed) -> None:
    bed.add_job("api", workers=2, hooks=("after_allocation_started", "health_check"))
    await bed.run(control(spec.JOB_ACTION_RESTART))
    assert bed.did == [
        step
        for host in ("10.0.0.1", "10.0.0.2")
        for step in (f"restart api {host}", f"hook after_allocation_started api {host}", f"hook health_check api {host}")
    ]


async def test_of_a_controlled_batch_with_a_failure_the_others_go_on_and_are_recorded(bed: RunBed) -> None:
    bed.add_job("api", workers=3, max_concurrent_upgrades=3, hooks=("after_allocation_started", "health_check"))
    bed.remote.fail["restart api 10.0.0.2"] = 1
    bed.hooks.fail["health_check 10.0.0.3"] = 1
    ended = await bed.run(control(spec.JOB_ACTION_RESTART))
    assert ended.word == "failed"
    assert "hook after_allocation_started api 10.0.0.1,10.0.0.3" in bed.did
    assert ended.result.counts == {"succeeded": 1, "failed": 2}
    assert bed.catalog.steps == ["api/10.0.0.1/control:restart"]


@pytest.mark.parametrize("hooks", [(), ("job_control",)], ids=["make", "hook"])
async def test_a_status_looks_at_all_allocations_at_once_whatever_the_first_says(bed: RunBed, hooks: tuple[str, ...]) -> None:
    bed.add_job("api", workers=3, max_concurrent_upgrades=1, hooks=hooks)
    bed.remote.fail["status api 10.0.0.1"] = 1
    bed.hooks.fail["job_control 10.0.0.1"] = 1
    ended = await bed.run(control(spec.JOB_ACTION_STATUS))
    assert ended.result.counts == {"succeeded": 2, "failed": 1}


async def test_job_control_hooks_are_told_the_target(bed: RunBed) -> None:
    bed.add_job("api", workers=2, hooks=("job_control",))
    await bed.run(control(spec.JOB_ACTION_STOP, workers=["10.0.0.2"]))
    assert bed.did == ["hook job_control api 10.0.0.2"]
    assert bed.hooks.requests[0].lifecycle == {"TARGET": "stop"}


async def test_a_disabled_allocation_is_named_as_such_and_no_other_one_is_suggested(bed: RunBed) -> None:
    bed.add_job("api", workers=2)
    bed.catalog.allocations["api@10.0.0.2"] = replace(bed.catalog.allocations["api@10.0.0.2"], disabled=True)
    ended = await bed.run(control(spec.JOB_ACTION_STOP, workers=["10.0.0.2"]))
    assert ended.result.message == "api on 10.0.0.2 is disabled"
    assert "10.0.0.1" not in ended.result.failures[0].help
    assert bed.did == []


async def test_a_job_without_active_allocations_is_told_so_instead_of_done(bed: RunBed) -> None:
    bed.add_job("api", workers=0, hooks=("cli",))
    by_hand = await bed.run(hooks("hook_cli"))
    assert (by_hand.word, by_hand.result.message) == ("succeeded", "nothing to do: no active allocations of api")
    ended = await bed.run(control(spec.JOB_ACTION_STOP))
    assert (ended.word, ended.result.message) == ("succeeded", "nothing to do: api has no active allocations")


async def test_a_failed_restart_ends_the_rollout(bed: RunBed) -> None:
    bed.add_job("api", workers=3)
    bed.remote.fail["restart api 10.0.0.1"] = 1
    ended = await bed.run(control(spec.JOB_ACTION_RESTART))
    assert ended.word == "failed"
    assert ended.result.counts == {"failed": 1, "untouched": 2}


@pytest.mark.parametrize("wrong", [control(spec.JOB_ACTION_UNSPECIFIED), control(spec.JOB_ACTION_RUN)])
async def test_an_action_that_makes_no_sense_is_refused(bed: RunBed, wrong: spec.RunSpec) -> None:
    bed.add_job("api")
    assert (await bed.run(wrong)).result.failures[0].kind == pb.FAILURE_KIND_INVALID


# Takeovers --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "recorded", "done", "counts"),
    [
        (
            spec.RunSpec(run_command=spec.RunCommandSpec(command="true")),
            ["/10.0.0.1/command:begun", "/10.0.0.1/command:ended:3"],
            ["true 10.0.0.2"],
            {"failed": 1, "succeeded": 1},
        ),
        (
            spec.RunSpec(job_control=spec.JobControlSpec(job="api", action=spec.JOB_ACTION_RESTART)),
            ["api/10.0.0.1/control:restart"],
            ["restart api 10.0.0.2"],
            {"succeeded": 2},
        ),
    ],
    ids=["run_command", "job_control"],
)
async def test_the_end_of_a_run_that_was_taken_over_counts_what_every_owner_did(
    bed: RunBed, asked: spec.RunSpec, recorded: list[str], done: list[str], counts: dict[str, int]
) -> None:
    bed.add_job("api", workers=2)
    await bed.deploy()
    asked.keep_going = True
    ended = await bed.run(asked, steps=recorded)
    assert ended.result.counts == counts
    assert bed.did == done
