"""Batches of hooks shared by two executors: every hook once, with all it is told, a mutex between them, ended on demand."""

import asyncio
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from sqlalchemy import select

from maand_catalog.database.transaction import Transaction
from maand_catalog.rules.tasks import TaskKind, TaskState
from maand_catalog.store.tables.identity import invocations
from maand_contracts.catalog.v1 import run_event_pb2 as pb
from maand_contracts.catalog.v1 import run_pb2, run_pb2_grpc
from maand_contracts.catalog.v1 import run_spec_pb2 as spec_pb
from tests.integration.executor.deploy_bed import Ended
from tests.integration.executor.shared_bed import SharedBed, shared_bed
from tests.testbed.sshd import SshTestBed

DEPLOY = spec_pb.RunSpec(deploy=spec_pb.DeploySpec())
COUNTS = """
import os, time
from maand import allocation_ip, get_kv_value, notice, put_job_secret, put_job_variable, run_ssh, semaphore
time.sleep(0.3)
with semaphore("counter"):
    count = int(get_kv_value("vars/job/api", "count", "0"))
    time.sleep(0.05)
    put_job_variable("count", str(count + 1)).raise_for_status()
put_job_secret("word-" + allocation_ip().replace(".", "-"), "s3cr3t-of-" + allocation_ip())
print("secret is", "s3cr3t-of-" + allocation_ip())
told = ("BATCH_INDEX", "BATCH_COUNT", "BATCH_ALLOCATIONS", "ROLLOUT_ORDER", "CLOUD_REGION")
print("told", *(os.environ[name] for name in told))
print("on", run_ssh(allocation_ip(), "echo here").stdout.strip())
notice("counted")
"""
LASTS = """
import os, time, pathlib
marks = pathlib.Path({directory!r})
(marks / (os.environ["ALLOCATION_IP"] + "." + str(os.getpid()) + ".mark")).touch()
while not any((marks / name).exists() for name in ("go", "go-" + os.environ["ALLOCATION_IP"])):
    time.sleep(0.05)
"""
"""A hook that leaves a mark for each of its processes, and lasts until the test lets it, or all, go."""


def write_api(bed: SharedBed, script: str, *events: str, scope: str = "allocation") -> None:
    hooks = {"hook_it": {"executed_on": events or ["pre_deploy"], "scope": scope}}
    manifest = {"hooks": hooks, "max_concurrent_upgrades": 6}
    bed.deploys.write_job("api", manifest, {"_hooks/hook_it.py": script})


async def begin(bed: SharedBed) -> str:
    """Begin a deploy that was given a value for `hook_env`."""
    request = run_pb2.CreateRunRequest(
        bucket_id=bed.deploys.bucket_id, spec=DEPLOY, requested_by="test@here", hook_env={"CLOUD_REGION": "eu-1"}
    )
    return (await run_pb2_grpc.RunServiceStub(bed.deploys.channel).CreateRun(request)).run.run_id


def output(ended: Ended, beginning: str) -> dict[str, str]:
    """Return by worker the line of its hook that begins so."""
    return {
        event.worker: line.removeprefix(f"{beginning} ")
        for event in ended.of_kind("output")
        for line in event.output.lines
        if line.startswith(f"{beginning} ")
    }


async def invocation_outcomes(bed: SharedBed) -> Counter[str]:
    """Count invocations by how the catalog says they ended."""

    def read(tx: Transaction) -> list[str]:
        return [str(outcome) for outcome in tx.connection.execute(select(invocations.c.outcome)).scalars()]

    return Counter(await bed.deploys.catalog.database.read(read))


async def test_hooks_of_a_batch_run_on_both_executors_with_all_they_are_told_and_one_mutex(
    tmp_path: Path, test_bed: SshTestBed
) -> None:
    async with shared_bed(tmp_path, test_bed, gateway=True) as bed:
        helper = await bed.start_helper()
        assert bed.deploys.executor
        write_api(bed, COUNTS)
        bed.deploys.write("jobs/api/count.j2", "{{ get('vars/job/api', 'count') }}")
        await bed.deploys.build()
        ended = await bed.deploys.follow(await begin(bed))
        assert ended.state == "succeeded", ended.result
        shared = await bed.tasks(TaskKind.HOOKS)
        assert {task.executor_id for task in shared} == {bed.deploys.executor.executor_id, helper.executor_id}
        hosts = bed.deploys.hosts
        assert bed.deploys.on(bed.deploys.workers[0], "jobs/api/count").read_text() == "6"
        assert output(ended, "told") == dict.fromkeys(hosts, f"0 1 {','.join(hosts)} {','.join(hosts)} eu-1")
        assert output(ended, "on") == dict.fromkeys(hosts, "here")
        assert output(ended, "secret") == dict.fromkeys(hosts, "is ***")
        assert "s3cr3t-of" not in str(ended.events)
        assert [event.batch_started.hook for event in ended.of_kind("batch_started")].count("hook_it") == 1
        assert list(ended.result.notices).count("counted") == 1
        assert await invocation_outcomes(bed) == {"succeeded": 6}


async def test_all_hooks_of_a_batch_run_side_by_side_also_when_nobody_helps(tmp_path: Path, test_bed: SshTestBed) -> None:
    async with shared_bed(tmp_path, test_bed, left_to_others=0.1) as bed:
        marks = await lasting_hooks(bed, tmp_path)
        run_id = await bed.deploys.begin(DEPLOY)
        await until(lambda: len(marks()) == 6)
        (tmp_path / "go").touch()
        ended = await bed.deploys.follow(run_id)
        assert ended.state == "succeeded", ended.result
        assert len(await bed.tasks(TaskKind.HOOKS)) == 3


async def test_a_hook_that_runs_once_in_a_rollout_runs_once_whoever_shares_the_rest(tmp_path: Path, test_bed: SshTestBed) -> None:
    async with shared_bed(tmp_path, test_bed, gateway=True) as bed:
        await bed.start_helper()
        write_api(bed, "print('told once')", "pre_deploy", scope="rollout")
        await bed.deploys.build()
        ended = await bed.deploys.deploy()
        assert ended.state == "succeeded", ended.result
        assert output(ended, "told") == {bed.deploys.hosts[0]: "once"}
        assert not await bed.tasks(TaskKind.HOOKS)


async def test_a_hook_that_fails_on_another_executor_fails_the_job_with_its_last_lines(
    tmp_path: Path, test_bed: SshTestBed
) -> None:
    async with shared_bed(tmp_path, test_bed, gateway=True) as bed:
        await bed.start_helper()
        script = "import os, time; time.sleep(0.3); print('number', os.environ['ALLOCATION_INDEX']); raise SystemExit(7)"
        write_api(bed, script, "pre_deploy")
        await bed.deploys.build()
        ended = await bed.deploys.deploy()
        assert ended.state == "failed"
        failures = ended.result.failures
        assert [(one.worker, one.step, one.exit_code, list(one.last_lines)) for one in failures] == [
            (host, "hook_it", 7, [f"number {number}"]) for number, host in enumerate(bed.deploys.hosts)
        ]
        assert set((await bed.deploys.states("api")).values()) == {"planned"}


async def lasting_hooks(bed: SharedBed, directory: Path) -> Callable[[], list[str]]:
    """Build a job whose hooks last; return what tells the workers for which one was started."""
    write_api(bed, LASTS.format(directory=str(directory)), "pre_deploy")
    await bed.deploys.build()
    return lambda: [path.name.rsplit(".", 2)[0] for path in directory.glob("*.mark")]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - a file tells nobody that it changed
            await asyncio.sleep(0.05)


async def test_hooks_of_a_killed_executor_are_recorded_as_interrupted_and_run_again(tmp_path: Path, test_bed: SshTestBed) -> None:
    async with shared_bed(tmp_path, test_bed, lease=5) as bed:
        marks = await lasting_hooks(bed, tmp_path)
        run_id = await bed.deploys.begin(DEPLOY)
        await bed.until(lambda found: [task.state for task in found].count(TaskState.RUNNING) == 2, TaskKind.HOOKS)
        helper = await bed.start_helper_process()
        await until(lambda: len(marks()) == 6)
        helper.kill()
        await helper.wait()
        await bed.until(lambda found: found[-1].fence == 2 or found[-1].state is TaskState.PENDING, TaskKind.HOOKS)
        (tmp_path / "go").touch()
        ended = await bed.deploys.follow(run_id)
        assert ended.state == "succeeded", ended.result
        assert await invocation_outcomes(bed) == {"succeeded": 6, "interrupted": 2}
        assert Counter(marks()) == {host: 2 if host in bed.deploys.hosts[4:] else 1 for host in bed.deploys.hosts}


async def test_a_takeover_repeats_no_hook_that_another_executor_had_brought_to_its_end(
    tmp_path: Path, test_bed: SshTestBed
) -> None:
    async with shared_bed(tmp_path, test_bed, lease=5, executor=False) as bed:
        owner = await bed.start_helper_process()
        marks = await lasting_hooks(bed, tmp_path)
        run_id = await bed.deploys.begin(DEPLOY)
        await bed.until(lambda found: [task.state for task in found].count(TaskState.RUNNING) == 2, TaskKind.HOOKS)
        await bed.start_helper()
        await until(lambda: len(marks()) == 6)
        theirs = bed.deploys.hosts[4:]
        for host in theirs:
            (tmp_path / f"go-{host}").touch()
        await bed.until(lambda found: found[-1].state is TaskState.FINISHED, TaskKind.HOOKS)
        owner.kill()
        await owner.wait()
        await until(lambda: len(marks()) == 10)
        (tmp_path / "go").touch()
        ended = await bed.deploys.follow(run_id)
        assert (ended.state, ended.run.fence) == ("succeeded", 2), ended.result
        assert Counter(marks()) == {host: 1 if host in theirs else 2 for host in bed.deploys.hosts}
        assert await invocation_outcomes(bed) == {"succeeded": 6, "interrupted": 4}


async def test_a_second_cancel_ends_hooks_of_both_executors_within_ten_seconds(tmp_path: Path, test_bed: SshTestBed) -> None:
    async with shared_bed(tmp_path, test_bed) as bed:
        marks = await lasting_hooks(bed, tmp_path)
        await bed.start_helper()
        run_id = await bed.deploys.begin(DEPLOY)
        await until(lambda: len(marks()) == 6)
        await bed.deploys.cancel(run_id)
        await bed.deploys.cancel(run_id)
        async with asyncio.timeout(10):
            ended = await bed.deploys.follow(run_id)
        assert ended.state == "cancelled"
        finished = [one for one in ended.of_kind("step_finished") if one.step_finished.outcome == pb.STEP_OUTCOME_CANCELLED]
        assert sorted(one.worker for one in finished) == sorted(bed.deploys.hosts)
        assert (await invocation_outcomes(bed)).keys() <= {"cancelled", "interrupted"}
        assert not [task for task in await bed.tasks() if task.is_open]
