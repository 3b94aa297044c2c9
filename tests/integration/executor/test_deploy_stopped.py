"""What was stopped is started when it is wanted again, whatever failed or was killed in between, for every restart policy."""

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest

from maand_contracts.catalog.v1 import run_spec_pb2
from tests.integration.executor.deploy_bed import DeployBed, deploy_bed
from tests.testbed.sshd import SshTestBed

DEPLOY = run_spec_pb2.RunSpec(deploy=run_spec_pb2.DeploySpec())
POLICIES = ("always", "reload", "never")
MAKEFILE = """\
start:
\t@mkdir -p data; echo start >> data/log; if [ -e data/broken ]; then exit 3; fi; if [ -e data/slow ]; then sleep 4321; fi
\t@touch data/running
restart reload:
\t@echo $@ >> data/log; test -e data/running
stop:
\t@echo stop >> data/log; rm -f data/running
\t@if [ -e data/broken ]; then exit 3; fi; if [ -e data/slow ]; then sleep 4321; fi
"""
"""A job that can only be restarted while it runs, and whose start and stop fail or hang when they are told to."""


def write_jobs(bed: DeployBed) -> None:
    for policy in POLICIES:
        bed.write_job(policy, {"restart_policy": policy}, {"Makefile": MAKEFILE})


def disable(bed: DeployBed, jobs: tuple[str, ...]) -> None:
    listed = ", ".join(f'"{job}": {{}}' for job in jobs)
    bed.write("disabled.json", f'{{"jobs": {{{listed}}}}}')


def data(bed: DeployBed, job: str, name: str) -> Path:
    return bed.on(bed.workers[0], f"jobs/{job}/data/{name}")


def log(bed: DeployBed, job: str) -> list[str]:
    return data(bed, job, "log").read_text().split()


def tell(bed: DeployBed, name: str) -> None:
    """Have every job's next start or stop be `broken` or `slow`."""
    for job in POLICIES:
        data(bed, job, name).touch()


def tell_no_more(bed: DeployBed, name: str) -> None:
    for job in POLICIES:
        data(bed, job, name).unlink()


async def deployed(bed: DeployBed) -> None:
    write_jobs(bed)
    await bed.build()
    assert (await bed.deploy()).state == "succeeded"


async def leave_the_workspace(bed: DeployBed, how: str) -> None:
    if how == "disabled":
        disable(bed, POLICIES)
    else:
        for job in POLICIES:
            bed.remove(f"jobs/{job}")
    await bed.build()


async def come_back(bed: DeployBed, how: str) -> None:
    if how == "disabled":
        disable(bed, ())
    else:
        write_jobs(bed)
    await bed.build()


async def all_started(bed: DeployBed, *, log_ends: list[str]) -> None:
    """Deploy, and insist that everything is started, runs, and is left alone by the next deploy."""
    refused = await bed.deploy(sync_only=True, jobs=POLICIES)
    assert refused.state == "failed", refused.result
    ended = await bed.deploy()
    assert ended.state == "succeeded", ended.result
    for job in POLICIES:
        assert ended.actions(job) == {bed.hosts[0]: "start"}
        assert await bed.states(job) == {bed.hosts[0]: "promoted"}
        assert log(bed, job)[-len(log_ends) :] == log_ends, job
        assert data(bed, job, "running").exists()
    again = await bed.deploy()
    assert {action for job in POLICIES for action in again.actions(job).values()} == {"skip"}


@pytest.mark.parametrize("how", ["disabled", "removed"])
async def test_a_start_that_failed_after_a_stop_is_a_start_again(tmp_path: Path, test_bed: SshTestBed, how: str) -> None:
    async with deploy_bed(tmp_path, test_bed, workers=1) as bed:
        await deployed(bed)
        await leave_the_workspace(bed, how)
        assert (await bed.deploy()).state == "succeeded"
        tell(bed, "broken")
        await come_back(bed, how)
        assert (await bed.deploy()).state == "failed"
        assert {state for job in POLICIES for state in (await bed.states(job)).values()} == {"failed"}
        tell_no_more(bed, "broken")

        await all_started(bed, log_ends=["start", "stop", "start", "start"])


@pytest.mark.parametrize("how", ["disabled", "removed"])
async def test_what_a_stop_that_failed_may_have_stopped_is_started(tmp_path: Path, test_bed: SshTestBed, how: str) -> None:
    async with deploy_bed(tmp_path, test_bed, workers=1) as bed:
        await deployed(bed)
        tell(bed, "broken")
        await leave_the_workspace(bed, how)
        assert (await bed.deploy()).state == "failed"
        tell_no_more(bed, "broken")
        await come_back(bed, how)

        await all_started(bed, log_ends=["start", "stop", "start"])


async def killed_in(bed: DeployBed, step: str) -> str:
    """Deploy with an executor process and kill it while that step hangs for every job; return the run's id."""
    await bed.stop_executor()
    seen = {job: log(bed, job).count(step) for job in POLICIES}
    process = await bed.start_executor_process()
    run_id = await bed.begin(DEPLOY)
    async with asyncio.timeout(60):
        while any(log(bed, job).count(step) == seen[job] for job in POLICIES):  # noqa: ASYNC110 - a worker's log tells nobody
            await asyncio.sleep(0.05)
    process.kill()
    await process.wait()
    return run_id


async def test_a_start_after_a_stop_is_a_start_for_whoever_takes_the_run_over(tmp_path: Path, test_bed: SshTestBed) -> None:
    async with deploy_bed(tmp_path, test_bed, workers=1, lease=timedelta(seconds=4)) as bed:
        await deployed(bed)
        await leave_the_workspace(bed, "disabled")
        assert (await bed.deploy()).state == "succeeded"
        await come_back(bed, "disabled")
        tell(bed, "slow")
        run_id = await killed_in(bed, "start")
        assert {state for job in POLICIES for state in (await bed.states(job)).values()} == {"deploying"}
        tell_no_more(bed, "slow")
        await bed.start_executor()
        ended = await bed.follow(run_id)

        assert ended.state == "succeeded", ended.result
        for job in POLICIES:
            assert (await bed.states(job), log(bed, job)[-3:]) == ({bed.hosts[0]: "promoted"}, ["stop", "start", "start"])
            assert data(bed, job, "running").exists()


async def test_a_stop_that_was_killed_and_is_not_wanted_any_more_ends_in_a_start(tmp_path: Path, test_bed: SshTestBed) -> None:
    async with deploy_bed(tmp_path, test_bed, workers=1, lease=timedelta(seconds=4)) as bed:
        await deployed(bed)
        await leave_the_workspace(bed, "disabled")
        tell(bed, "slow")
        run_id = await killed_in(bed, "stop")
        await bed.cancel(run_id)
        tell_no_more(bed, "slow")
        await bed.start_executor()
        assert (await bed.follow(run_id)).state == "cancelled"
        await come_back(bed, "disabled")

        await all_started(bed, log_ends=["start", "stop", "start"])
