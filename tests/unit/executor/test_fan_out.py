"""How wide work is split, and what is told of workers of which nothing is known."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from maand_contracts.catalog.v1 import run_event_pb2 as pb
from maand_contracts.catalog.v1 import run_spec_pb2, task_pb2
from maand_executor.claims.work_by_kind import WORK_BY_TASK
from maand_executor.output.journal import Journal
from maand_executor.rules.facts import RunIdentity, Worker
from maand_executor.steps.context import RunContext, WorkByTask
from maand_executor.steps.fan_out import FanOut, UnknownOutcome, plain_spec, succeeded_outcome, work_on_each
from maand_executor.steps.report import RunReport
from maand_executor.steps.task_loops import TaskLoops
from tests.unit.executor.fakes_runs import RUN, RunBed


class TaskCatalog:
    """Remembers what was split, and lets one task after the other be done or lost."""

    def __init__(self, lost: Sequence[str] = ()) -> None:
        self.created: list[task_pb2.NewTask] = []
        self.ended: list[task_pb2.Task] = []
        self.dropped: list[str] = []
        self._lost = lost

    async def create_tasks(self, run: RunIdentity, tasks: Sequence[task_pb2.NewTask]) -> None:
        self.created += tasks

    async def await_tasks(self, run: RunIdentity, *, after: int, wait: timedelta) -> tuple[task_pb2.Task, ...]:
        while len(self.ended) <= after:  # noqa: ASYNC110 - a list tells nobody that it grew
            await asyncio.sleep(0)
        return tuple(self.ended[after:])

    async def drop_tasks(self, run: RunIdentity, names: Sequence[str], *, deadline: timedelta) -> None:
        self.dropped += names

    async def do_task(self, works: WorkByTask) -> None:
        """Do the next task, as an executor would."""
        if len(self.ended) == len(self.created):
            await asyncio.Event().wait()
        new = self.created[len(self.ended)]
        outcomes = [] if new.name in self._lost else map(succeeded_outcome, new.spec.workers)
        sequence = len(self.ended) + 1
        self.ended.append(task_pb2.Task(name=new.name, spec=new.spec, outcomes=outcomes, executor_id="helper", sequence=sequence))


def workers(count: int) -> list[Worker]:
    return [Worker(name=f"10.0.{number // 250}.{number % 250}", position=number) for number in range(count)]


def a_context(directory: Path, catalog: TaskCatalog) -> RunContext:
    bed = RunBed(directory)
    context = bed.context(run_spec_pb2.RunSpec(), Journal(RUN, bed.catalog), RunReport())
    faked: Any = catalog
    return replace(context, catalog=faked, task_loops=TaskLoops(catalog.do_task, left_to_others=timedelta(seconds=60)))


async def do_well(_: RunContext, worker: Worker) -> task_pb2.WorkerOutcome:
    return succeeded_outcome(worker.name)


def fan_out_of(context: RunContext, kind: str) -> FanOut:
    return FanOut(context, plain_spec(kind), work_on_each(do_well), unknown=UnknownOutcome(step=kind))


@pytest.mark.parametrize(("count", "widths"), [(50, []), (51, [26, 25]), (120, [40, 40, 40]), (101, [34, 34, 33])])
async def test_what_is_more_than_fifty_is_split_evenly(tmp_path: Path, count: int, widths: list[int]) -> None:
    catalog = TaskCatalog()
    outcomes = await fan_out_of(a_context(tmp_path, catalog), "login").run(workers(count))
    assert [len(task.spec.workers) for task in catalog.created] == widths
    assert [outcome.worker for outcome in outcomes] == [worker.name for worker in workers(count)]


async def test_a_second_split_of_a_run_has_names_of_its_own_and_only_its_own_tasks_count(tmp_path: Path) -> None:
    catalog = TaskCatalog()
    fan_out = fan_out_of(a_context(tmp_path, catalog), "login")
    for _ in range(2):
        assert len(await fan_out.run(workers(60))) == 60
    assert [task.name for task in catalog.created] == ["login/1/1", "login/1/2", "login/2/1", "login/2/2"]


async def test_workers_of_which_nothing_is_known_are_interrupted(tmp_path: Path) -> None:
    catalog = TaskCatalog(lost=["command/1/2"])
    outcomes = await fan_out_of(a_context(tmp_path, catalog), "command").run(workers(60))
    assert [one.outcome for one in outcomes] == [pb.STEP_OUTCOME_SUCCEEDED] * 30 + [pb.STEP_OUTCOME_INTERRUPTED] * 30
    assert outcomes[-1].failure.message.startswith("executor helper stopped or died before it told how this ended")


async def test_work_that_is_broken_off_while_the_run_goes_on_is_dropped(tmp_path: Path) -> None:
    """As a health gate is, when its time is over."""
    catalog = TaskCatalog()
    context = replace(a_context(tmp_path, catalog), task_loops=TaskLoops(never, left_to_others=timedelta(seconds=60)))
    sharing = asyncio.create_task(fan_out_of(context, "login").run(workers(60)))
    async with asyncio.timeout(10):
        while not catalog.created:  # noqa: ASYNC110 - a list tells nobody that it grew
            await asyncio.sleep(0)
    sharing.cancel()
    await asyncio.gather(sharing, return_exceptions=True)
    assert sharing.cancelled()
    assert catalog.dropped == ["login/1/1", "login/1/2"]


async def never(_: WorkByTask) -> None:
    await asyncio.Event().wait()


def test_every_kind_of_task_of_the_contract_can_be_done() -> None:
    assert set(WORK_BY_TASK) == {field.name for field in task_pb2.TaskSpec.DESCRIPTOR.oneofs_by_name["work"].fields}
