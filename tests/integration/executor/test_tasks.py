"""Wide work over a crowd of workers, shared by two executors on one catalog: done once everywhere, told once, ended on demand."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import select

from maand_catalog.database.transaction import Transaction
from maand_catalog.rpc.tasks import read_outcomes
from maand_catalog.rules.tasks import Task, TaskState
from maand_catalog.store.runs.task_states import TASK_COLUMNS, to_task
from maand_catalog.store.tables.runs import tasks
from maand_contracts.catalog.v1 import run_event_pb2 as pb
from maand_contracts.catalog.v1 import run_spec_pb2 as spec_pb
from maand_executor.service import RunningExecutor, start_executor
from tests.integration.executor.deploy_bed import DeployBed, Ended, deploy_bed
from tests.testbed.fixtures import MakeTestBed
from tests.testbed.worker import SshWorker

CROWD = 120
TASKS = 3
"""Of 40 workers each: split evenly."""


class Crowd:
    """A bucket with a crowd of workers, and executors."""

    def __init__(self, bed: DeployBed, machine: SshWorker) -> None:
        self.bed = bed
        self.machine = machine
        self._helpers: list[RunningExecutor] = []

    @property
    def hosts(self) -> list[str]:
        """Addresses of the workers."""
        return list(self.machine.hosts)

    @property
    def ran(self) -> list[str]:
        """Workers on which a command noted that it ran, once for each time."""
        note = self.machine.path("/opt/ran")
        return note.read_text().splitlines() if note.exists() else []

    async def start_helper(self) -> RunningExecutor:
        """Start a second executor."""
        settings = self.bed.executor_settings
        state = settings.state_dir.with_name("helper")
        self._helpers.append(await start_executor(replace(settings, listen="127.0.0.1:0", state_dir=state)))
        return self._helpers[-1]

    async def stop_helpers(self) -> None:
        """Stop the second executor, if there is one."""
        while self._helpers:
            await self._helpers.pop().stop()

    async def tasks(self) -> list[Task]:
        """Return every task there was."""

        def read(tx: Transaction) -> list[Task]:
            return [to_task(row) for row in tx.connection.execute(select(*TASK_COLUMNS).order_by(tasks.c.task_id))]

        return await self.bed.catalog.database.read(read)

    async def until(self, what: Callable[[list[Task]], bool]) -> list[Task]:
        """Wait until the tasks are like that."""
        async with asyncio.timeout(60):
            while not what(found := await self.tasks()):  # noqa: ASYNC110 - a database tells the test nothing
                await asyncio.sleep(0.05)
        return found

    async def command(self, script: str) -> str:
        """Begin a command that notes where it runs, and return the run's id."""
        noted = f'echo "$WORKER_IP" >> /opt/ran; {script}'
        return await self.bed.begin(spec_pb.RunSpec(run_command=spec_pb.RunCommandSpec(command=noted)))


@asynccontextmanager
async def a_crowd(directory: Path, make_test_bed: MakeTestBed, *, lease: float = 15) -> AsyncIterator[Crowd]:
    ssh = make_test_bed(max_startups="500")
    machine = await asyncio.to_thread(ssh.start_crowd, CROWD)
    async with deploy_bed(directory, ssh, workers=0, lease=timedelta(seconds=lease)) as bed:
        await bed.configure(ssh_port=machine.port)
        bed.write_workers(machine.hosts)
        await bed.build()
        crowd = Crowd(bed, machine)
        try:
            yield crowd
        finally:
            await crowd.stop_helpers()


def lines(ended: Ended) -> Counter[str]:
    """Count the lines of output by worker and text."""
    return Counter(f"{event.worker} {line}" for event in ended.of_kind("output") for line in event.output.lines)


def finished_steps(ended: Ended, outcome: "pb.StepOutcome.ValueType" = pb.STEP_OUTCOME_SUCCEEDED) -> Counter[str]:
    """Count by worker how often a step was told to have ended so."""
    return Counter(event.worker for event in ended.of_kind("step_finished") if event.step_finished.outcome == outcome)


async def test_a_command_on_a_crowd_is_shared_by_two_executors_and_runs_once_on_every_worker(
    tmp_path: Path, make_test_bed: MakeTestBed
) -> None:
    async with a_crowd(tmp_path, make_test_bed) as crowd:
        helper = await crowd.start_helper()
        assert crowd.bed.executor
        executors = {crowd.bed.executor.executor_id, helper.executor_id}
        ended = await crowd.bed.follow(await crowd.command('echo "I am $WORKER_IP"; exit $((${WORKER_IP##*.} == 2))'))
        shared = await crowd.tasks()
        assert sorted(crowd.ran) == sorted(crowd.hosts)
    assert {task.executor_id for task in shared} == executors
    assert [(task.state, len(read_outcomes(task.outcomes))) for task in shared] == [(TaskState.FINISHED, 40)] * TASKS
    assert lines(ended) == Counter(f"{host} I am {host}" for host in crowd.hosts)
    first, *others = crowd.hosts
    assert finished_steps(ended) == Counter(others)
    assert finished_steps(ended, pb.STEP_OUTCOME_FAILED) == Counter([first])
    assert (ended.state, ended.result.message) == ("failed", f"failed on 1 of {CROWD} workers")
    assert [(one.worker, one.exit_code) for one in ended.result.failures] == [(first, 1)]
    assert ended.events[-1].HasField("run_finished")


async def test_one_executor_alone_does_all_tasks_of_its_run(tmp_path: Path, make_test_bed: MakeTestBed) -> None:
    async with a_crowd(tmp_path, make_test_bed) as crowd:
        ended = await crowd.bed.follow(await crowd.command("true"))
        shared = await crowd.tasks()
        assert sorted(crowd.ran) == sorted(crowd.hosts)
    assert (ended.state, ended.result.message) == ("succeeded", f"done on {CROWD} workers")
    assert [task.state for task in shared] == [TaskState.FINISHED] * TASKS


async def test_a_killed_executors_part_of_a_command_is_told_as_interrupted_and_not_run_again(
    tmp_path: Path, make_test_bed: MakeTestBed
) -> None:
    async with a_crowd(tmp_path, make_test_bed, lease=10) as crowd:
        run_id = await crowd.command("case $WORKER_IP in *[02468]) ;; *) until [ -e /opt/go ]; do sleep 1; done ;; esac")
        await crowd.until(lambda all_of: [task.state for task in all_of].count(TaskState.RUNNING) == 2)
        helper = await crowd.bed.start_executor_process()
        *_, theirs = await crowd.until(lambda all_of: len(read_outcomes(all_of[-1].outcomes)) == 20)
        await until(lambda: len(set(crowd.ran)) == CROWD)
        helper.kill()
        await helper.wait()
        *_, theirs = await crowd.until(lambda all_of: all_of[-1].state is TaskState.LOST)
        crowd.machine.path("/opt/go").touch()
        ended = await crowd.bed.follow(run_id)
        assert sorted(crowd.ran) == sorted(crowd.hosts), "nothing ran twice"
    assert dict(ended.result.counts) == {"succeeded": 100, "interrupted": 20}
    assert (ended.state, ended.result.message) == ("failed", f"unknown on 20 of {CROWD} workers")
    unknown = {failure.worker for failure in ended.result.failures}
    assert unknown == {host for host in crowd.hosts[80:] if int(host[-1]) % 2}
    assert all(theirs.executor_id in failure.message for failure in ended.result.failures)
    assert set(finished_steps(ended, pb.STEP_OUTCOME_INTERRUPTED)) == unknown
    told = finished_steps(ended)  # the dead executor's last events may have died with it; its outcomes had been told
    assert Counter(crowd.hosts[:80]) <= told <= Counter(set(crowd.hosts) - unknown)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - a file tells nobody that it changed
            await asyncio.sleep(0.05)


async def test_a_second_cancel_ends_commands_of_every_executor_before_the_run_ends(
    tmp_path: Path, make_test_bed: MakeTestBed
) -> None:
    async with a_crowd(tmp_path, make_test_bed) as crowd:
        await crowd.start_helper()
        run_id = await crowd.command("sleep 4321")
        await crowd.until(lambda all_of: [task.state for task in all_of].count(TaskState.RUNNING) == TASKS)
        await until(lambda: len(crowd.ran) >= 100)
        await crowd.bed.cancel(run_id)
        await crowd.bed.cancel(run_id)
        async with asyncio.timeout(60):
            ended = await crowd.bed.follow(run_id)
        assert ended.state == "cancelled"
        await asyncio.to_thread(crowd.machine.wait_until_gone, "sleep 4321")
        assert not [task for task in await crowd.tasks() if task.is_open]


@pytest.mark.parametrize("executors", [1, 2])
async def test_an_executor_that_stops_in_order_gives_its_part_up(
    tmp_path: Path, make_test_bed: MakeTestBed, executors: int
) -> None:
    """With one, it is the owner: the run is interrupted. With two, the helper: what it had begun is told as interrupted."""
    async with a_crowd(tmp_path, make_test_bed) as crowd:
        run_id = await crowd.command("until [ -e /opt/go ]; do sleep 1; done")
        await crowd.until(lambda all_of: [task.state for task in all_of].count(TaskState.RUNNING) == 2)
        if executors == 1:
            await crowd.bed.stop_executor()
            ended = await crowd.bed.follow(run_id)
            assert ended.state == "interrupted"
            assert not [task for task in await crowd.tasks() if task.is_open]
            return
        await crowd.start_helper()
        await crowd.until(lambda all_of: all_of[-1].state is TaskState.RUNNING)
        await until(lambda: bool(set(crowd.ran) & set(crowd.hosts[80:])))
        await crowd.stop_helpers()
        crowd.machine.path("/opt/go").touch()
        ended = await crowd.bed.follow(run_id)
    assert dict(ended.result.counts) == {"succeeded": 80, "interrupted": 40}


async def test_a_probe_of_a_crowd_is_shared_and_tells_every_worker_once(tmp_path: Path, make_test_bed: MakeTestBed) -> None:
    async with a_crowd(tmp_path, make_test_bed) as crowd:
        helper = await crowd.start_helper()
        probe = spec_pb.WorkerProbeSpec(probe=spec_pb.WORKER_PROBE_FACTS)
        ended = await crowd.bed.run(spec_pb.RunSpec(worker_probe=probe))
        shared = await crowd.tasks()
    assert (ended.state, ended.result.message) == ("succeeded", f"{CROWD} of {CROWD} workers are well")
    reports = {event.worker: event.worker_report for event in ended.of_kind("worker_report")}
    assert sorted(reports) == sorted(crowd.hosts)
    assert len(ended.of_kind("worker_report")) == CROWD
    assert all(report.memory_mb for report in reports.values())
    assert helper.executor_id in {task.executor_id for task in shared}
