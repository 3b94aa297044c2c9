"""An executor that dies in the middle of a deploy: another goes on, and repeats nothing that was promoted."""

import asyncio
import random
from collections import Counter
from datetime import timedelta
from pathlib import Path

from maand_contracts.catalog.v1 import run_spec_pb2
from tests.integration.executor.deploy_bed import DeployBed, deploy_bed
from tests.testbed.sshd import SshTestBed
from tests.testbed.worker import SshWorker

DEPLOY = run_spec_pb2.RunSpec(deploy=run_spec_pb2.DeploySpec())
JOBS = ("api", "database", "web")
SLOW = """\
start restart stop:
\t@sleep 0.2; echo $@ $(JOB) >> ../../../log
"""


async def killed_after_promotions(bed: DeployBed, promotions: int) -> str:
    """Deploy with an executor process and kill it after that many promotions; return the run's id."""
    process = await bed.start_executor_process()
    run_id = await bed.begin(DEPLOY)
    seen = 0
    while seen < promotions:
        seen = list((await bed.states("api")).values()).count("promoted")
        await asyncio.sleep(0.02)
    process.kill()
    await process.wait()
    return run_id


async def promoted_allocations(bed: DeployBed) -> list[str]:
    """Return what is promoted, as `job host`."""
    return [f"{job} {host}" for job in JOBS for host, state in (await bed.states(job)).items() if state == "promoted"]


def started_on(bed: DeployBed, worker: SshWorker, job: str) -> int:
    """Return how often a job was started on a worker."""
    return bed.log_of(worker).count(f"start {job}")


async def test_a_killed_deploy_is_taken_over_and_repeats_no_promoted_step(tmp_path: Path, test_bed: SshTestBed) -> None:
    async with deploy_bed(tmp_path, test_bed, workers=4, lease=timedelta(seconds=4)) as bed:
        bed.write_job("api", {}, {"Makefile": SLOW, "app.conf": "v1"})
        await bed.build()
        await bed.deploy()
        await bed.stop_executor()
        bed.write_job("api", {}, {"Makefile": SLOW, "app.conf": "v2"})
        await bed.start_executor()
        await bed.build()
        await bed.stop_executor()

        run_id = await killed_after_promotions(bed, 2)
        done = {host for host, state in (await bed.states("api")).items() if state == "promoted"}
        await bed.start_executor()
        ended = await bed.follow(run_id)

        assert ended.state == "succeeded", ended.result
        assert set((await bed.states("api")).values()) == {"promoted"}
        assert ended.run.fence == 2
        assert (ended.result.counts["promoted"], ended.result.message) == (4, "api: 4 updated")
        for worker in bed.workers:
            restarts = Counter(bed.log_of(worker))["restart api"]
            assert restarts == 1 if worker.host in done else restarts in (1, 2)


async def test_an_executor_killed_again_and_again_still_deploys_everything_once(tmp_path: Path, test_bed: SshTestBed) -> None:
    async with deploy_bed(tmp_path, test_bed, workers=3, lease=timedelta(seconds=4)) as bed:
        for job in ("api", "database", "web"):
            bed.write_job(job, {"max_concurrent_starts": 1}, {"Makefile": SLOW})
        await bed.build()
        await bed.stop_executor()
        run_id = await bed.begin(DEPLOY)
        done: dict[str, int] = {}
        for seconds in (1.5, 2.0, 2.5):
            process = await bed.start_executor_process()
            await asyncio.sleep(seconds + random.random())
            process.kill()
            await process.wait()
            started = {f"{job} {worker.host}": started_on(bed, worker, job) for job in JOBS for worker in bed.workers}
            assert all(started[key] == count for key, count in done.items())
            done = {key: started[key] for key in await promoted_allocations(bed)}
        await bed.start_executor()
        ended = await bed.follow(run_id)
        assert ended.state == "succeeded", ended.result
        assert len(await promoted_allocations(bed)) == 9
        for worker in bed.workers:
            for job in JOBS:
                assert started_on(bed, worker, job) == done.get(f"{job} {worker.host}", started_on(bed, worker, job))


REVERSES_ONCE = """
from maand import current_version, is_one_shot, put_rollout_order, rollout_order
if is_one_shot() and current_version() != "0.0.0":
    put_rollout_order(list(reversed(rollout_order()))).raise_for_status()
"""


async def test_a_takeover_does_not_build_again_and_keeps_the_order_that_a_hook_set(tmp_path: Path, test_bed: SshTestBed) -> None:
    async with deploy_bed(tmp_path, test_bed, workers=4, lease=timedelta(seconds=4)) as bed:
        await bed.start_gateway()
        hooks = {"hook_order": {"executed_on": ["pre_deploy"]}}
        waits = "start restart stop:\n\t@[ $(ALLOCATION_INDEX) != 2 ] || until [ -e ../../../go ]; do sleep 0.05; done; "
        waits += "echo $@ $(JOB) >> ../../../log\n"
        bed.write_job("api", {"version": "1.0.0", "hooks": hooks}, {"Makefile": SLOW, "_hooks/hook_order.py": REVERSES_ONCE})
        await bed.build()
        assert (await bed.deploy()).state == "succeeded"
        bed.write_job("api", {"version": "2.0.0", "hooks": hooks}, {"Makefile": waits})
        snapshot = await bed.upload()

        run_id = await bed.begin(run_spec_pb2.RunSpec(deploy=run_spec_pb2.DeploySpec(build_snapshot_id=snapshot)))
        await bed.until(run_id, "promoted")
        executor, bed.executor = bed.executor, None
        assert executor is not None
        await executor.stop()  # while the second of the reversed order restarts
        bed.workers[2].path("/opt/worker/go").touch()
        await bed.start_executor()
        ended = await bed.follow(run_id)
        assert ended.state == "succeeded", ended.result
        promoted = [host for event in ended.of_kind("promoted") for host in event.promoted.workers]
        assert promoted == list(reversed(bed.hosts))
        assert ended.batches("pre_deploy") == [[host] for host in bed.hosts], "the recorded hooks are not run again"


async def test_an_orderly_stop_interrupts_the_run_and_the_next_executor_goes_on_at_once(
    tmp_path: Path, test_bed: SshTestBed
) -> None:
    async with deploy_bed(tmp_path, test_bed, workers=3) as bed:
        bed.write_job("api", {"max_concurrent_starts": 1}, {"Makefile": SLOW})
        await bed.build()
        run_id = await bed.begin(DEPLOY)
        await bed.until(run_id, "step_started", job="api")
        await bed.stop_executor()
        await bed.start_executor()
        async with asyncio.timeout(60):
            ended = await bed.follow(run_id)
        assert ended.state == "succeeded", ended.result
        assert set((await bed.states("api")).values()) == {"promoted"}


async def test_a_second_cancel_ends_remote_commands_at_once_and_says_what_is_where(tmp_path: Path, test_bed: SshTestBed) -> None:
    async with deploy_bed(tmp_path, test_bed, workers=2) as bed:
        bed.write_job("api", {"max_concurrent_starts": 1}, {"Makefile": "start:\n\t@sleep 1234\n"})
        await bed.build()
        run_id = await bed.begin(DEPLOY)
        await asyncio.to_thread(bed.workers[0].run, "until pgrep -f 'sleep 123[4]'; do sleep 0.05; done")
        await bed.cancel(run_id)
        await bed.cancel(run_id)
        async with asyncio.timeout(60):
            ended = await bed.follow(run_id)
        assert ended.state == "cancelled"
        await asyncio.to_thread(bed.workers[0].wait_until_gone, "sleep 1234")
        states = await bed.states("api")
        assert states == {bed.hosts[0]: "failed", bed.hosts[1]: "planned"}
