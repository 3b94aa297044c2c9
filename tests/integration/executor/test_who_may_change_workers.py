"""Fences in whole runs: who looks leaves no mark, who is nested acts for its holder, who is refused says so and ends."""

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from maand_catalog.database.clock import DatabaseClock
from maand_catalog.store.runs import leases
from maand_contracts.catalog.v1 import run_event_pb2 as events_pb
from maand_contracts.catalog.v1 import run_pb2
from maand_contracts.catalog.v1.run_spec_pb2 import (
    JOB_ACTION_RUN,
    JOB_ACTION_STATUS,
    DeploySpec,
    JobControlSpec,
    RunCommandSpec,
    RunSpec,
)
from tests.integration.executor.deploy_bed import DeployBed, deploy_bed
from tests.integration.executor.shared_bed import shared_bed
from tests.testbed.sshd import SshTestBed
from tests.waiting import until

DEPLOY = RunSpec(deploy=DeploySpec())
STATUS = RunSpec(job_control=JobControlSpec(job="api", action=JOB_ACTION_STATUS))
TARGET = RunSpec(job_control=JobControlSpec(job="api", action=JOB_ACTION_RUN, target="status"))
WAITS = """\
start status:
\t@echo $@ >> ../../../log
restart:
\t@echo $@ >> ../../../log; until [ -e /opt/go ]; do sleep 0.05; done
"""


async def in_the_middle_of_an_upgrade(bed: DeployBed) -> str:
    """Begin an upgrade, one worker at a time, that waits in the first worker's restart; return the run's id."""
    bed.write_job("api", {"version": "1.0.0", "max_concurrent_upgrades": 1}, {"Makefile": WAITS})
    await bed.build()
    await bed.deploy()
    bed.write_job("api", {"version": "1.1.0", "max_concurrent_upgrades": 1}, {"Makefile": WAITS})
    await bed.build()
    run_id = await bed.begin(DEPLOY)
    await asyncio.to_thread(bed.workers[0].run, "until grep -q restart /opt/worker/log; do sleep 0.05; done")
    return run_id


def let_go(bed: DeployBed) -> None:
    for worker in bed.workers:
        worker.path("/opt/go").touch()


@pytest.mark.parametrize(
    "looks", [STATUS, RunSpec(deploy=DeploySpec(dry_run=True)), RunSpec(run_command=RunCommandSpec(command="true"))]
)
async def test_a_run_that_only_looks_beside_a_deploy_disturbs_it_not(
    tmp_path: Path, test_bed: SshTestBed, looks: RunSpec
) -> None:
    async with deploy_bed(tmp_path, test_bed, workers=2) as bed:
        run_id = await in_the_middle_of_an_upgrade(bed)
        fences = [bed.on(worker, "fence").read_text() for worker in bed.workers]
        assert (await bed.run(looks)).state == "succeeded"
        assert [bed.on(worker, "fence").read_text() for worker in bed.workers] == fences
        let_go(bed)
        ended = await bed.follow(run_id)
        assert (ended.state, ended.run.fence) == ("succeeded", 1), ended.result
        assert set((await bed.states("api")).values()) == {"promoted"}


@pytest.mark.parametrize("hours", [1, 24, -1])
async def test_a_wall_clock_that_is_set_in_the_middle_of_a_deploy_disturbs_it_not(
    tmp_path: Path, test_bed: SshTestBed, monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    renewed: list[str] = []
    set_by = timedelta()
    read, renew = DatabaseClock.read, leases.renew_lease

    def renew_and_count(*args: Any, **more: Any) -> leases.Renewal:
        renewal = renew(*args, **more)
        renewed.append("once")
        return renewal

    monkeypatch.setattr(DatabaseClock, "read", lambda self, connection: read(self, connection) + set_by)
    monkeypatch.setattr(leases, "renew_lease", renew_and_count)
    async with deploy_bed(tmp_path, test_bed, workers=2) as bed:
        run_id = await in_the_middle_of_an_upgrade(bed)
        set_by, before = timedelta(hours=hours), len(renewed)
        await until(lambda: len(renewed) > before + 1)
        let_go(bed)
        ended = await bed.follow(run_id)
        assert (ended.state, ended.run.fence) == ("succeeded", 1), ended.result
        assert [bed.log_of(worker).count("restart") for worker in bed.workers] == [1, 1]
        assert ended.run.finished_at.ToDatetime() >= ended.run.started_at.ToDatetime()


@pytest.mark.parametrize("nested", [TARGET, STATUS])
async def test_a_run_started_in_a_hook_of_a_deploy_disturbs_it_not(tmp_path: Path, test_bed: SshTestBed, nested: RunSpec) -> None:
    async with deploy_bed(tmp_path, test_bed, workers=2) as bed:
        run_id = await in_the_middle_of_an_upgrade(bed)
        request = run_pb2.CreateRunRequest(bucket_id=bed.bucket_id, spec=nested, requested_by="hook", parent_run_id=run_id)
        child = (await bed.runs().CreateRun(request)).run
        assert (await bed.follow(child.run_id)).state == "succeeded"
        let_go(bed)
        ended = await bed.follow(run_id)
        assert (ended.state, ended.run.fence) == ("succeeded", 1), ended.result


@pytest.mark.parametrize(
    ("seen", "said"), [("999 1 1\n", "run 999 of this bucket"), ("3 1 9999999999\n", "a later life of this")]
)
async def test_a_worker_that_saw_a_later_run_ends_the_deploy_with_a_sentence_and_frees_the_bucket(
    tmp_path: Path, test_bed: SshTestBed, seen: str, said: str
) -> None:
    async with deploy_bed(tmp_path, test_bed, workers=3) as bed:
        bed.write_job("api", {"max_concurrent_starts": 1})
        await bed.build()
        fence = bed.on(bed.workers[1], "fence")
        fence.parent.mkdir(parents=True)
        fence.write_text(seen)
        async with asyncio.timeout(60):
            refused = await bed.deploy()
        assert (refused.state, refused.run.fence) == ("failed", 1)
        assert [(failure.worker, failure.kind) for failure in refused.result.failures] == [
            (bed.hosts[1], events_pb.FAILURE_KIND_FENCE_REFUSED)
        ]
        assert f"{bed.hosts[1]}: refused the fence of this run: {said}" in refused.result.message
        assert "maand-catalog new-epoch" in refused.result.failures[0].help
        assert bed.log_of(bed.workers[1]) == []
        assert "deploying" not in (await bed.states("api")).values()

        fence.unlink()
        ended = await bed.deploy()
        assert ended.state == "succeeded", ended.result
        assert len(bed.log_of(bed.workers[0])) <= 2


async def test_a_worker_that_refuses_a_shared_batch_fails_it_and_is_named(tmp_path: Path, test_bed: SshTestBed) -> None:
    async with shared_bed(tmp_path, test_bed, workers=4) as shared:
        bed = shared.deploys
        bed.write_job("api", {})
        await bed.build()
        fence = bed.on(bed.workers[2], "fence")
        fence.parent.mkdir(parents=True)
        fence.write_text("999 1 1\n")
        async with asyncio.timeout(60):
            refused = await bed.deploy()
        assert (refused.state, refused.run.fence) == ("failed", 1)
        failures = {failure.worker: failure.message for failure in refused.result.failures}
        assert "run 999 of this bucket has changed this worker" in failures[bed.hosts[2]]
