"""What is told to other executors, and read back; and the loops of a run that does several things at once."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from maand_contracts.catalog.v1 import run_event_pb2 as pb
from maand_contracts.catalog.v1 import run_spec_pb2, task_pb2
from maand_executor.catalog_client.tasks import CREATED_A_CALL, CREATED_BYTES, calls_of
from maand_executor.deploy.shared_lifecycle import do_lifecycle, step_from_message
from maand_executor.hooks.outcome_messages import outcome_from_result, result_from_outcome
from maand_executor.output.journal import Journal
from maand_executor.rules.facts import Allocation, Hook, InvocationOutcome, RolloutOrder
from maand_executor.rules.hook_outcomes import InvocationResult
from maand_executor.rules.waves import Batch
from maand_executor.steps.context import RunContext, WorkByTask
from maand_executor.steps.event_hooks import run_event_hooks
from maand_executor.steps.fleet import read_fleet
from maand_executor.steps.lifecycle_steps import DIFFERS, Act, LifecycleStep, LifecycleSteps
from maand_executor.steps.report import RunReport
from maand_executor.steps.shared_hooks import SHORTEST_LIMIT, make_hooks_task, make_request
from maand_executor.steps.task_loops import TASK_LOOPS, TaskLoops
from tests.unit.executor.fakes_runs import RUN, RunBed

HOST = "10.0.0.1"
API = Allocation(allocation_id="a1", job="api", worker=HOST, index=3, disabled=True, current_version="1.0.0", new_version="2.0.0")
HOOK = Hook(name="hook_a", job="api", path="_hooks/hook_a.py", runtime="python", executed_on=("pre_deploy",))


# -- what is told -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("act", Act)
def test_a_step_is_read_as_it_was_written(act: Act) -> None:
    step = LifecycleStep(allocation=API, copy=b"digest", act=act, target="restart")
    spec = LifecycleSteps("api", [step]).spec_of([HOST])
    assert (list(spec.workers), spec.lifecycle.job, spec.lifecycle.check_host) == ([HOST], "api", True)
    assert [step_from_message(one) for one in spec.lifecycle.steps] == [step]


def test_a_task_holds_the_steps_of_its_own_workers_only() -> None:
    steps = [LifecycleStep(allocation=replace(API, worker=host), act=Act.STOP) for host in ("w1", "w2", "w3")]
    spec = LifecycleSteps("api", steps).spec_of(["w2", "w3"])
    assert [one.allocation.worker for one in spec.lifecycle.steps] == ["w2", "w3"]


@pytest.mark.parametrize("outcome", [one for one in InvocationOutcome if one is not InvocationOutcome.INTERRUPTED])
def test_how_a_hook_ended_is_read_as_it_was_told(outcome: InvocationOutcome) -> None:
    failed = outcome is not InvocationOutcome.SUCCEEDED
    result = InvocationResult(
        hook="hook_a",
        allocation_id="a1",
        worker=HOST,
        outcome=outcome,
        exit_code=7 if failed else 0,
        message="exit code 7" if failed else "",
        last_lines=("so", "it", "is") if failed else (),
        notices=("counted",),
    )
    assert result_from_outcome(HOOK, API, outcome_from_result("api", result)) == result


def test_a_hook_of_which_nothing_is_known_was_interrupted() -> None:
    unknown = task_pb2.WorkerOutcome(worker=HOST, outcome=pb.STEP_OUTCOME_INTERRUPTED)
    assert result_from_outcome(HOOK, API, unknown).outcome is InvocationOutcome.INTERRUPTED


@pytest.mark.parametrize(("size", "count", "calls"), [(10, 1, 1), (10, CREATED_A_CALL + 1, 2), (CREATED_BYTES // 2, 3, 3)])
def test_tasks_are_created_in_calls_that_fit_a_message(size: int, count: int, calls: int) -> None:
    tasks = [task_pb2.NewTask(name="n" * size) for _ in range(count)]
    made = list(calls_of(tasks))
    assert len(made) == calls
    assert [task for call in made for task in call] == tasks


@pytest.mark.parametrize(("limit", "told"), [(None, 0.0), (timedelta(seconds=40), 40.0), (timedelta(), SHORTEST_LIMIT)])
async def test_the_time_that_a_gate_has_left_is_told_to_who_runs_its_hooks(
    tmp_path: Path, limit: timedelta | None, told: float
) -> None:
    bed = RunBed(tmp_path)
    job = bed.add_job("api", hooks=("health_check",))
    context = bed.context(run_spec_pb2.RunSpec(), Journal(RUN, bed.catalog), RunReport())
    fleet, (one,) = await read_fleet(context), bed.catalog.allocations.values()
    await run_event_hooks(context, fleet, job, "health_check", [one], order=RolloutOrder(workers=(HOST,)), time_limit=limit)
    batch = Batch(index=0, count=1, allocations=(one,))
    task = make_hooks_task(bed.hooks.requests[0], job.hooks[0], batch, [one])
    assert task.time_limit_seconds == pytest.approx(told, abs=5 if limit else 0)
    read = await make_request(context, task, job, (one,))
    assert (read.time_left == timedelta.max) == (limit is None)
    assert limit is None or read.time_left <= limit or limit == timedelta()


# -- what another executor does ---------------------------------------------------------------------------------------------


async def carried_out(bed: RunBed, spec: task_pb2.TaskSpec) -> dict[str, task_pb2.WorkerOutcome]:
    """Carry a task out as an executor that does not own the run."""
    context = bed.context(run_spec_pb2.RunSpec(), Journal(RUN, bed.catalog), RunReport())
    told: dict[str, task_pb2.WorkerOutcome] = {}
    workers = [bed.catalog.workers[host] for host in spec.workers]
    await do_lifecycle(context, spec, workers, lambda outcome: told.__setitem__(outcome.worker, outcome))
    return told


async def test_what_is_rendered_as_planned_is_copied_and_what_is_not_says_why(tmp_path: Path) -> None:
    bed = RunBed(tmp_path)
    bed.add_job("api", workers=2)
    await bed.deploy()
    first, second = (bed.catalog.allocations[one] for one in bed.catalog.allocations)
    bed.did.clear()
    steps = [
        LifecycleStep(allocation=first, copy=first.deployed_sha256, act=Act.MAKE, target="restart"),
        LifecycleStep(allocation=second, copy=b"another digest", act=Act.MAKE, target="restart"),
    ]
    told = await carried_out(bed, LifecycleSteps("api", steps).spec_of([first.worker, second.worker]))
    assert told[first.worker].outcome == pb.STEP_OUTCOME_SUCCEEDED
    assert (told[second.worker].outcome, told[second.worker].failure.message) == (pb.STEP_OUTCOME_FAILED, DIFFERS)
    assert told[second.worker].failure.help
    assert [line for line in bed.did if line.startswith(("copy", "restart"))] == [
        f"copy api {first.worker}",
        f"restart api {first.worker}",
    ]


# -- loops ------------------------------------------------------------------------------------------------------------------


class Tasks:
    """Tasks that loops find, one after another, and how far they came."""

    def __init__(self, *names: str) -> None:
        self.waiting = list(names)
        self.begun: list[str] = []
        self.done: list[str] = []
        self.go = asyncio.Event()

    async def do_one(self, works: WorkByTask) -> None:
        if not self.waiting:
            await asyncio.Event().wait()
        name = self.waiting.pop(0)
        self.begun.append(name)
        await self.go.wait()
        self.done.append(name)


async def no_work(_: RunContext, __: task_pb2.TaskSpec, ___: Any, ____: Any) -> None:
    """Do nothing."""


async def until(condition: Any) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - a list tells nobody that it grew
            await asyncio.sleep(0)


async def test_a_hand_sees_another_jobs_task_through_when_the_work_it_was_lent_for_is_over() -> None:
    tasks = Tasks("api/1", "web/1")
    loops = TaskLoops(tasks.do_one, left_to_others=timedelta(seconds=60))
    async with loops.lend(["web/1"], no_work):
        async with loops.lend(["api/1"], no_work):
            await until(lambda: len(tasks.begun) == TASK_LOOPS)
            tasks.waiting.append("web/2")
        tasks.go.set()
        await until(lambda: "web/1" in tasks.done)
    assert tasks.begun[:2] == ["api/1", "web/1"]


async def test_hands_rest_when_nothing_is_shared_and_work_again_when_something_is() -> None:
    tasks = Tasks()
    loops = TaskLoops(tasks.do_one, left_to_others=timedelta(seconds=60))
    tasks.go.set()
    for name in ("one", "two"):
        tasks.waiting.append(name)
        async with loops.lend([name], no_work):
            await until(lambda name=name: name in tasks.done)
    tasks.waiting.append("three")
    await asyncio.sleep(0)
    assert tasks.done == ["one", "two"]
    assert [loops.next_number(), loops.next_number()] == [1, 2]


async def test_hands_are_there_for_what_is_lent_now_and_do_not_add_up_over_a_run() -> None:
    begun = 0

    async def do_one(_: WorkByTask) -> None:
        nonlocal begun
        begun += 1
        await asyncio.Event().wait()

    loops = TaskLoops(do_one, left_to_others=timedelta())
    async with loops.lend(["copies/1"], no_work):
        for batch in range(20):
            async with loops.lend([f"hooks/{batch}/{number}" for number in range(3)], no_work, all_at_once=True):
                await until(lambda: begun == TASK_LOOPS + 3)
        for _ in range(10):
            await asyncio.sleep(0)
    assert begun == TASK_LOOPS + 3


async def test_work_that_must_be_under_way_at_once_has_a_hand_for_every_task() -> None:
    names = [f"hooks/{number}" for number in range(7)]
    tasks = Tasks(*names)
    loops = TaskLoops(tasks.do_one, left_to_others=timedelta())
    async with loops.lend(names, no_work, all_at_once=True):
        await until(lambda: len(tasks.begun) == len(names))
        tasks.go.set()
        await until(lambda: len(tasks.done) == len(names))
