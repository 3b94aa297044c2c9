"""What is found out beside a run: how long the same took, and who holds up its hooks."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from maand_cli.runs.look_beside import describe_semaphore_waits, without_content
from maand_contracts.catalog.v1 import run_pb2, run_spec_pb2, semaphore_pb2
from tests.unit.cli.builders import BEGAN, started
from tests.unit.cli.fake_catalog import RUN_ID, FakeCatalog
from tests.unit.cli.terminals import run_on_a_terminal


def claim(worker: str, run_id: str = RUN_ID) -> semaphore_pb2.Claim:
    return semaphore_pb2.Claim(worker=worker, run_id=run_id)


def test_a_hook_that_waits_is_shown_with_who_holds_what_it_waits_for(fake: FakeCatalog, bucket: Path) -> None:
    ddl = semaphore_pb2.Semaphore(job="api", name="ddl", holders=[claim("10.0.0.2")], waiters=[claim("10.0.0.1")])
    asked = []

    def list_semaphores(_: Any) -> semaphore_pb2.ListSemaphoresResponse:
        asked.append(1)
        if len(asked) == 2:  # the first answer has been drawn
            fake.stopped.set()
        return semaphore_pb2.ListSemaphoresResponse(semaphores=[ddl])

    fake.answers["ListSemaphores"] = list_semaphores
    fake.endless = True
    fake.play(started("hook_migrate"))
    seen = run_on_a_terminal(bucket, "deploy")
    assert ", waits for ddl, held by 10.0.0.2" in seen.terminal


def test_holders_of_other_runs_are_named_with_them_and_waiters_of_others_are_left_out() -> None:
    semaphores: list[dict[str, Any]] = [
        {
            "job": "api",
            "name": "ddl",
            "holders": [{"worker": "10.0.0.9", "run_id": "abcdef012345"}],
            "waiters": [{"worker": "10.0.0.1", "run_id": "mine"}, {"worker": "10.0.0.2", "run_id": "other"}],
        },
        {"job": "web", "name": "slots", "holders": [], "waiters": [{"worker": "10.0.0.1", "run_id": "mine"}]},
    ]
    assert describe_semaphore_waits(semaphores, "mine") == {
        ("api", "10.0.0.1"): "waits for ddl, held by 10.0.0.9 of run ef012345",
        ("web", "10.0.0.1"): "waits for slots",
    }


def succeeded_run(run_id: str, spec: run_spec_pb2.RunSpec, seconds: int) -> run_pb2.Run:
    run = run_pb2.Run(run_id=run_id, spec=spec, state=run_pb2.RUN_STATE_SUCCEEDED)
    run.started_at.FromDatetime(BEGAN)
    run.finished_at.FromDatetime(BEGAN + timedelta(seconds=seconds))
    return run


@pytest.mark.parametrize(("command", "seconds"), [("uptime", 7), ("another", None)])
def test_last_time_is_that_of_the_same_command(fake: FakeCatalog, bucket: Path, command: str, seconds: int | None) -> None:
    def create(request: run_pb2.CreateRunRequest) -> run_pb2.CreateRunResponse:
        run = run_pb2.Run(run_id=RUN_ID, spec=request.spec, kind=run_spec_pb2.RUN_KIND_RUN_COMMAND)
        return run_pb2.CreateRunResponse(run=run)

    def end(_: Any) -> semaphore_pb2.ListSemaphoresResponse:
        fake.stopped.set()
        return semaphore_pb2.ListSemaphoresResponse()

    fake.answers["CreateRun"] = create
    earlier = [
        succeeded_run("1", run_spec_pb2.RunSpec(run_command=run_spec_pb2.RunCommandSpec(command="sleep 60")), 60),
        succeeded_run("2", run_spec_pb2.RunSpec(run_command=run_spec_pb2.RunCommandSpec(command="uptime")), 7),
    ]
    fake.answers["ListRuns"] = run_pb2.ListRunsResponse(runs=earlier)
    fake.endless = True
    fake.answers["ListSemaphores"] = end
    fake.play(started("hook_x"))
    seen = run_on_a_terminal(bucket, "run_command", command).terminal
    assert ("last time" in seen) is (seconds is not None)
    assert seconds is None or f"last time {seconds}.0 s" in seen


def test_the_workspace_makes_no_other_work_of_a_build() -> None:
    first, second = (run_spec_pb2.RunSpec(build=run_spec_pb2.BuildSpec(snapshot_id=one)) for one in "ab")
    assert without_content(first) == without_content(second)
    first, second = (run_spec_pb2.RunSpec(deploy=run_spec_pb2.DeploySpec(build_snapshot_id=one)) for one in ("a", ""))
    assert without_content(first) != without_content(second)
