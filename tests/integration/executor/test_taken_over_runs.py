"""Runs other than a deploy whose executor dies: what was recorded as done is not done again."""

import asyncio
from collections import Counter
from datetime import timedelta
from pathlib import Path

import pytest

from maand_contracts.catalog.v1 import run_event_pb2 as pb
from maand_contracts.catalog.v1 import run_pb2
from maand_contracts.catalog.v1.run_spec_pb2 import (
    JOB_ACTION_RESTART,
    HooksSpec,
    JobControlSpec,
    RunCommandSpec,
    RunSpec,
)
from tests.integration.executor.deploy_bed import DeployBed, deploy_bed
from tests.testbed.sshd import SshTestBed
from tests.testbed.worker import SshWorker

SHORT = timedelta(seconds=4)
WAITS_ON_ALL_BUT_THE_FIRST = 'echo ran >> /opt/ran; [ "$WORKER_IP" = {first} ] || until [ -e /opt/go ]; do sleep 0.05; done{end}'


async def kill(process: asyncio.subprocess.Process) -> None:
    process.kill()
    await process.wait()


async def until(bed: DeployBed, run_id: str, state: "run_pb2.RunState.ValueType") -> run_pb2.Run:
    async with asyncio.timeout(60):
        while True:
            got = await bed.runs().GetRun(run_pb2.GetRunRequest(bucket_id=bed.bucket_id, run_id=run_id))
            if got.run.state == state:
                return got.run
            await asyncio.sleep(0.1)


async def resume(bed: DeployBed, run_id: str, *, again: bool = False) -> None:
    await bed.runs().ResumeRun(run_pb2.ResumeRunRequest(bucket_id=bed.bucket_id, run_id=run_id, again=again))


def times_run(worker: SshWorker) -> int:
    file = worker.path("/opt/ran")
    return len(file.read_text().splitlines()) if file.exists() else 0


async def recorded(bed: DeployBed, run_id: str, beginning: str) -> None:
    request = run_pb2.ListStepsRequest(bucket_id=bed.bucket_id, run_id=run_id)
    async with asyncio.timeout(60):
        while not any(name.startswith(beginning) for name in (await bed.runs().ListSteps(request)).names):  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def test_a_resumed_command_runs_only_where_it_had_not_begun_and_names_where_its_end_is_unknown(
    tmp_path: Path, test_bed: SshTestBed
) -> None:
    async with deploy_bed(tmp_path, test_bed, workers=3, lease=SHORT) as bed:
        await bed.build()
        await bed.stop_executor()
        run_id = await interrupted_command(bed)
        _, second, third = bed.workers

        third.path("/opt/go").touch()
        await bed.start_executor()
        await resume(bed, run_id)
        run = await until_at_rest_again(bed, run_id)
        assert [times_run(worker) for worker in bed.workers] == [1, 1, 1]
        assert run.state == run_pb2.RUN_STATE_INTERRUPTED
        assert run.message.startswith(f"unknown on {second.host}: the command began there")
        assert f"maand runs resume {run_id} --again" in run.message

        second.path("/opt/go").touch()
        await resume(bed, run_id, again=True)
        ended = await bed.follow(run_id)
        assert ended.state == "succeeded", ended.result
        assert ended.result.counts == {"succeeded": 3}
        assert [times_run(worker) for worker in bed.workers] == [1, 2, 1]


async def interrupted_command(bed: DeployBed, *, end: str = "") -> str:
    """Run a command two at a time that ends on the first worker only, and kill its executor; return the run's id."""
    process = await bed.start_executor_process()
    text = WAITS_ON_ALL_BUT_THE_FIRST.format(first=bed.hosts[0], end=end)
    run_id = await bed.begin(RunSpec(run_command=RunCommandSpec(command=text, concurrency=2), keep_going=True))
    await recorded(bed, run_id, f"/{bed.hosts[0]}/command:ended:")
    async with asyncio.timeout(60):
        while not times_run(bed.workers[1]):  # noqa: ASYNC110 - a file tells nobody
            await asyncio.sleep(0.05)
    await kill(process)
    await until(bed, run_id, run_pb2.RUN_STATE_INTERRUPTED)
    return run_id


async def until_at_rest_again(bed: DeployBed, run_id: str) -> run_pb2.Run:
    async with asyncio.timeout(60):
        while True:
            run = (await bed.follow(run_id)).run
            if run.fence > 1 and run.state == run_pb2.RUN_STATE_INTERRUPTED:
                return run
            await asyncio.sleep(0.1)


@pytest.mark.parametrize("again", [False, True])
async def test_a_command_that_failed_before_the_interruption_is_not_repeated_and_still_counts(
    tmp_path: Path, test_bed: SshTestBed, again: bool
) -> None:
    async with deploy_bed(tmp_path, test_bed, workers=2, lease=SHORT) as bed:
        await bed.build()
        await bed.stop_executor()
        run_id = await interrupted_command(bed, end="; exit 3")
        for worker in bed.workers:
            worker.path("/opt/go").touch()
        await bed.start_executor()
        await resume(bed, run_id, again=again)
        if not again:
            await until_at_rest_again(bed, run_id)
            assert [times_run(worker) for worker in bed.workers] == [1, 1]
            return
        ended = await bed.follow(run_id)
        assert ended.state == "failed"
        assert [times_run(worker) for worker in bed.workers] == [1, 2]
        assert [(one.worker, one.exit_code) for one in ended.result.failures] == [(host, 3) for host in bed.hosts]
        assert ended.result.counts == {"failed": 2}


@pytest.mark.parametrize(("end", "code", "keep_going"), [("", 0, True), ("; exit 3", 3, False)])
async def test_a_worker_that_could_not_be_reached_is_tried_again_when_the_command_is_resumed(
    tmp_path: Path, test_bed: SshTestBed, end: str, code: int, keep_going: bool
) -> None:
    nobody = "127.9.9.9"
    async with deploy_bed(tmp_path, test_bed, workers=2, lease=SHORT) as bed:
        bed.write_workers([*bed.hosts, nobody])
        await bed.build()
        await bed.stop_executor()
        process = await bed.start_executor_process()
        text = WAITS_ON_ALL_BUT_THE_FIRST.format(first=bed.hosts[0], end=end)
        run_id = await bed.begin(RunSpec(run_command=RunCommandSpec(command=text), keep_going=keep_going))
        await recorded(bed, run_id, f"/{bed.hosts[0]}/command:ended:{code}")
        await until_told(bed, run_id, nobody)
        await kill(process)
        await until(bed, run_id, run_pb2.RUN_STATE_INTERRUPTED)
        await bed.start_executor()
        await resume(bed, run_id)
        run = await until_at_rest_again(bed, run_id)
        assert run.message.startswith(f"unknown on {bed.hosts[1]}: ")
        tried = [one for one in (await bed.follow(run_id)).of_kind("step_started") if one.worker == nobody]
        assert len(tried) == 2


async def until_told(bed: DeployBed, run_id: str, worker: str) -> None:
    request = run_pb2.WatchRunRequest(bucket_id=bed.bucket_id, run_id=run_id, follow=True)
    async for response in bed.runs().WatchRun(request):
        if any(event.worker == worker and event.HasField("step_finished") for event in response.events):
            return


COUNTS = """\
import pathlib
from maand import allocation_ip
here = pathlib.Path({directory!r})
with open(here / (allocation_ip() + '.ran'), 'a') as file:
    file.write('x')
import time
while not (here / 'go').exists() and allocation_ip() != {first!r}:
    time.sleep(0.05)
"""


async def test_a_hook_by_hand_that_ended_is_not_repeated_by_a_takeover_and_is_counted(
    tmp_path: Path, test_bed: SshTestBed
) -> None:
    async with deploy_bed(tmp_path, test_bed, workers=3, lease=SHORT) as bed:
        hooks = {"hook_it": {"executed_on": ["cli"]}}
        script = COUNTS.format(directory=str(tmp_path), first=bed.hosts[0])
        bed.write_job("api", {"hooks": hooks, "max_concurrent_upgrades": 1}, {"_hooks/hook_it.py": script})
        await bed.build()
        await bed.stop_executor()
        process = await bed.start_executor_process()
        run_id = await bed.begin(RunSpec(hooks=HooksSpec(hook="hook_it", job="api")))
        second = tmp_path / f"{bed.hosts[1]}.ran"
        async with asyncio.timeout(60):
            while not second.exists():  # noqa: ASYNC110 - a file tells nobody
                await asyncio.sleep(0.05)
        await kill(process)
        (tmp_path / "go").touch()
        await bed.start_executor()
        ended = await bed.follow(run_id)
        assert (ended.state, ended.run.fence) == ("succeeded", 2), ended.result
        assert [len((tmp_path / f"{host}.ran").read_text()) for host in bed.hosts] == [1, 2, 1]
        assert ended.result.counts == {"succeeded": 3}


WAITING_RESTART = """\
start:
\t@true
restart:
\t@echo restart >> /opt/log; [ $(ALLOCATION_INDEX) = 0 ] || until [ -e /opt/go ]; do sleep 0.05; done
"""


async def test_a_job_restarted_by_hand_is_not_restarted_again_where_that_was_done(tmp_path: Path, test_bed: SshTestBed) -> None:
    async with deploy_bed(tmp_path, test_bed, workers=3, lease=SHORT) as bed:
        bed.write_job("api", {"max_concurrent_upgrades": 1}, {"Makefile": WAITING_RESTART})
        await bed.build()
        await bed.deploy()
        await bed.stop_executor()
        process = await bed.start_executor_process()
        run_id = await bed.begin(RunSpec(job_control=JobControlSpec(job="api", action=JOB_ACTION_RESTART)))
        async with asyncio.timeout(60):
            while not bed.workers[1].path("/opt/log").exists():  # noqa: ASYNC110 - a file tells nobody
                await asyncio.sleep(0.05)
        await kill(process)
        for worker in bed.workers:
            worker.path("/opt/go").touch()
        await bed.start_executor()
        ended = await bed.follow(run_id)
        assert (ended.state, ended.run.fence) == ("succeeded", 2), ended.result
        restarts = [Counter(worker.path("/opt/log").read_text().split())["restart"] for worker in bed.workers]
        assert restarts == [1, 2, 1]
        assert ended.result.counts == {"succeeded": 3}
        assert not [event for event in ended.of_kind("step_finished") if event.step_finished.outcome == pb.STEP_OUTCOME_FAILED]
