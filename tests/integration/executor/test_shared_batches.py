"""Batches of a deploy shared by two executors: the same plan, gates and promotions, whoever did what, and whoever dies."""

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from maand_catalog.rpc.tasks import read_outcomes
from maand_catalog.rules.tasks import TaskKind, TaskState
from maand_contracts.catalog.v1 import run_event_pb2 as pb
from maand_contracts.catalog.v1 import run_spec_pb2 as spec_pb
from maand_executor.steps.lifecycle_steps import DIFFERS
from tests.integration.executor.deploy_bed import MAKEFILE, Ended
from tests.integration.executor.shared_bed import SharedBed, shared_bed
from tests.testbed.sshd import SshTestBed

DEPLOY = spec_pb.RunSpec(deploy=spec_pb.DeploySpec())
TEMPLATE = "I am {{ worker_ip }}, number {{ allocation_index }}, at {{ new_version }}\n"
SLOW = MAKEFILE.replace("\t@$(say)\n", "\t@sleep 0.4; $(say)\n")
WAITS = MAKEFILE.replace("\t@$(say)\n", "\t@$(say); until [ -e ../../../go ]; do sleep 0.1; done\n")
"""Its targets last until the test lets them go."""


def write_api(bed: SharedBed, makefile: str = MAKEFILE, *, text: str = "v1", **manifest: Any) -> None:
    files = {"Makefile": makefile, "app.conf": text, "own.conf.j2": TEMPLATE}
    bed.deploys.write_job("api", {"version": "1.0.0", **manifest}, files)


async def deployed(bed: SharedBed, makefile: str = MAKEFILE, **manifest: Any) -> Ended:
    write_api(bed, makefile, **manifest)
    await bed.deploys.build()
    return await bed.deploys.deploy()


def logs(bed: SharedBed, target: str) -> Counter[str]:
    """Count by worker how often a target was run."""
    deploys = bed.deploys
    return Counter(worker.host for worker in deploys.workers for line in deploys.log_of(worker) if line.startswith(f"{target} "))


def let_go(bed: SharedBed) -> None:
    for worker in bed.deploys.workers:
        worker.path("/opt/worker/go").touch()


async def test_batches_of_a_deploy_are_shared_and_every_allocation_is_brought_up_once(
    tmp_path: Path, test_bed: SshTestBed
) -> None:
    async with shared_bed(tmp_path, test_bed) as bed:
        helper = await bed.start_helper()
        assert bed.deploys.executor
        check = {"checks": [{"type": "ssh", "command": f"test -e /opt/worker/{bed.deploys.bucket_id}/jobs/api/app.conf"}]}
        first = await deployed(bed, SLOW, health_check=check)
        assert first.state == "succeeded", first.result
        started = await bed.tasks(TaskKind.LIFECYCLE)
        assert {task.executor_id for task in started} == {bed.deploys.executor.executor_id, helper.executor_id}
        assert [task.state for task in started] == [TaskState.FINISHED] * 3
        assert logs(bed, "start") == Counter(bed.deploys.hosts)
        for number, worker in enumerate(bed.deploys.workers):
            own = bed.deploys.on(worker, "jobs/api/own.conf")
            assert own.read_text() == f"I am {worker.host}, number {number}, at 1.0.0\n"
        assert set((await bed.deploys.states("api")).values()) == {"promoted"}
        kinds = [event.WhichOneof("event") for event in first.events]
        assert kinds.index("promoted") > max(i for i, kind in enumerate(kinds) if kind == "step_finished")

        again = await bed.deploys.deploy()
        assert again.actions("api") == dict.fromkeys(bed.deploys.hosts, "skip")

        write_api(bed, SLOW, text="v2", max_concurrent_upgrades=3, health_check=check)
        await bed.deploys.build()
        second = await bed.deploys.deploy()
        assert second.state == "succeeded", second.result
        hosts = bed.deploys.hosts
        assert second.batches("update") == [hosts[:3], hosts[3:]]
        assert [list(event.promoted.workers) for event in second.of_kind("promoted")] == [
            hosts[:3],
            hosts[3:],
        ]
        assert logs(bed, "restart") == Counter(hosts)


async def test_one_executor_alone_does_all_parts_of_a_batch(tmp_path: Path, test_bed: SshTestBed) -> None:
    async with shared_bed(tmp_path, test_bed) as bed:
        ended = await deployed(bed)
        assert ended.state == "succeeded", ended.result
        assert [task.state for task in await bed.tasks(TaskKind.LIFECYCLE)] == [TaskState.FINISHED] * 3
        assert logs(bed, "start") == Counter(bed.deploys.hosts)
        assert set((await bed.deploys.states("api")).values()) == {"promoted"}


async def test_jobs_side_by_side_share_their_batches_and_none_takes_a_task_from_another(
    tmp_path: Path, test_bed: SshTestBed
) -> None:
    async with shared_bed(tmp_path, test_bed) as bed:
        for job in ("api", "database", "web"):
            bed.deploys.write_job(job, {}, {"Makefile": SLOW})
        await bed.deploys.build()
        ended = await bed.deploys.deploy()
        assert ended.state == "succeeded", ended.result
        assert {task.state for task in await bed.tasks()} == {TaskState.FINISHED}
        assert logs(bed, "start") == Counter(3 * bed.deploys.hosts)


async def test_a_helper_killed_in_the_middle_leaves_its_part_failed_and_the_next_deploy_mends_it(
    tmp_path: Path, test_bed: SshTestBed
) -> None:
    async with shared_bed(tmp_path, test_bed, lease=5) as bed:
        write_api(bed, WAITS)
        await bed.deploys.build()
        run_id = await bed.deploys.begin(DEPLOY)
        await bed.until(lambda found: [task.state for task in found].count(TaskState.RUNNING) == 2, TaskKind.LIFECYCLE)
        helper = await bed.start_helper_process()
        *_, theirs = await bed.until(lambda found: found[-1].state is TaskState.RUNNING, TaskKind.LIFECYCLE)
        await until_started(bed, 6)
        helper.kill()
        await helper.wait()
        await bed.until(lambda found: found[-1].state is TaskState.LOST, TaskKind.LIFECYCLE)
        let_go(bed)
        ended = await bed.deploys.follow(run_id)
        assert ended.state == "failed"
        lost = bed.deploys.hosts[4:]
        assert [failure.worker for failure in ended.result.failures] == lost
        assert all(theirs.executor_id in failure.message for failure in ended.result.failures)
        told = [one for one in ended.of_kind("step_finished") if one.step_finished.outcome == pb.STEP_OUTCOME_INTERRUPTED]
        assert [(one.worker, one.job) for one in told] == [(host, "api") for host in lost]
        states = await bed.deploys.states("api")
        assert {host for host, state in states.items() if state == "failed"} == set(lost)
        assert promoted_workers(ended) == sorted(set(bed.deploys.hosts) - set(lost))

        mended = await bed.deploys.deploy()
        assert mended.state == "succeeded", mended.result
        assert promoted_workers(mended) == sorted(lost)


def promoted_workers(ended: Ended) -> list[str]:
    return sorted(host for event in ended.of_kind("promoted") for host in event.promoted.workers)


async def until_started(bed: SharedBed, count: int) -> None:
    async with asyncio.timeout(60):
        while logs(bed, "start").total() < count:  # noqa: ASYNC110 - a file tells nobody that it changed
            await asyncio.sleep(0.05)


async def test_the_owner_killed_in_the_middle_is_taken_over_and_what_was_promoted_is_not_repeated(
    tmp_path: Path, test_bed: SshTestBed
) -> None:
    async with shared_bed(tmp_path, test_bed, lease=5) as bed:
        assert (await deployed(bed)).state == "succeeded"
        write_api(bed, SLOW, text="v2", max_concurrent_upgrades=3)
        await bed.deploys.build()
        await bed.deploys.stop_executor()
        owner = await bed.start_helper_process()
        run_id = await bed.deploys.begin(DEPLOY)
        await bed.deploys.until(run_id, "batch_started", job="api")
        await bed.start_helper()
        await bed.deploys.until(run_id, "promoted")
        owner.kill()
        await owner.wait()
        done = {host for host, state in (await bed.deploys.states("api")).items() if state == "promoted"}
        ended = await bed.deploys.follow(run_id)
        assert ended.state == "succeeded", ended.result
        assert ended.run.fence == 2
        promoted = [host for event in ended.of_kind("promoted") for host in event.promoted.workers]
        assert sorted(promoted) == sorted(bed.deploys.hosts)
        restarts = logs(bed, "restart")
        assert {host: restarts[host] for host in done} == dict.fromkeys(done, 1)
        assert all(restarts[host] in (1, 2) for host in bed.deploys.hosts)
        assert not [task for task in await bed.tasks() if task.is_open]


async def test_a_second_cancel_ends_commands_of_both_executors(tmp_path: Path, test_bed: SshTestBed) -> None:
    async with shared_bed(tmp_path, test_bed) as bed:
        await bed.start_helper()
        write_api(bed, "start stop:\n\t@echo $@ $(JOB) >> ../../../log; sleep 4321\n")
        await bed.deploys.build()
        run_id = await bed.deploys.begin(DEPLOY)
        await until_started(bed, 6)
        await bed.deploys.cancel(run_id)
        await bed.deploys.cancel(run_id)
        async with asyncio.timeout(60):
            ended = await bed.deploys.follow(run_id)
        assert ended.state == "cancelled"
        for worker in bed.deploys.workers:
            await asyncio.to_thread(worker.wait_until_gone, "sleep 4321")
        assert not [task for task in await bed.tasks() if task.is_open]


CHANGES_WHAT_IS_RENDERED = """
from maand import is_one_shot, put_job_variable
if is_one_shot():
    put_job_variable("colour", "blue").raise_for_status()
"""


async def test_what_another_executor_renders_differently_is_not_copied_and_says_so(tmp_path: Path, test_bed: SshTestBed) -> None:
    async with shared_bed(tmp_path, test_bed, workers=12, gateway=True) as bed:
        await bed.start_helper()
        hooks = {"hook_change": {"executed_on": ["after_allocation_started"]}}
        files = {
            "Makefile": SLOW,
            "_hooks/hook_change.py": CHANGES_WHAT_IS_RENDERED,
            "app.conf.j2": "{{ get('vars/job/api', 'colour', 'red') }}\n",
        }
        bed.deploys.write_job("api", {"hooks": hooks, "max_concurrent_starts": 6}, files)
        await bed.deploys.build()
        ended = await bed.deploys.deploy()
        assert ended.state == "failed"
        second = (await bed.tasks(TaskKind.LIFECYCLE))[3:]
        of_others = [task for task in second if task.executor_id != ended.run.executor_id]
        theirs = {one.worker for task in of_others for one in read_outcomes(task.outcomes)}
        failed = {failure.worker: failure for failure in ended.result.failures}
        assert failed.keys() == theirs
        assert theirs
        assert {failure.step for failure in failed.values()} == {"copy"}
        assert {failure.message for failure in failed.values()} == {DIFFERS}
        for worker in bed.deploys.workers:
            assert bed.deploys.on(worker, "jobs/api/app.conf").exists() == (worker.host not in theirs)

        mended = await bed.deploys.deploy()
        assert mended.state == "succeeded", mended.result
        assert {bed.deploys.on(worker, "jobs/api/app.conf").read_text() for worker in bed.deploys.workers} == {"blue\n"}


@pytest.mark.parametrize("action", ["stop", "restart"])
async def test_job_control_and_reconcile_are_shared_too(tmp_path: Path, test_bed: SshTestBed, action: str) -> None:
    async with shared_bed(tmp_path, test_bed) as bed:
        await bed.start_helper()
        assert (await deployed(bed, SLOW, max_concurrent_upgrades=6)).state == "succeeded"
        if action == "restart":
            control = spec_pb.JobControlSpec(job="api", action=spec_pb.JOB_ACTION_RESTART)
            ended = await bed.deploys.run(spec_pb.RunSpec(job_control=control))
        else:
            bed.deploys.remove("jobs/api")
            await bed.deploys.build()
            ended = await bed.deploys.deploy()
        assert ended.state == "succeeded", ended.result
        assert logs(bed, action) == Counter(bed.deploys.hosts)
        shared = await bed.tasks(TaskKind.LIFECYCLE)
        assert len({task.executor_id for task in shared[3:]}) == 2
        assert all(len(read_outcomes(task.outcomes)) == 2 for task in shared)
        if action == "stop":
            assert set((await bed.deploys.states("api")).values()) == {"removed"}
