"""Work on many workers, spread over executors: split into tasks that any executor claims, this one at once.

few workers   -> here
many workers  -> CreateTasks ─┬─ this executor's loops: claim one of this run's tasks, carry it out, claim the next …
                              ├─ other executors: likewise, as their long polls are answered (see `claims/claimed_tasks.py`)
                              └─ AwaitTasks until every task ended -> an outcome for every worker

What is spread is the same function everywhere, but for what only the owner has at hand; `claims/work_by_kind.py` lists what
executors do by the contract's name.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta

from maand_contracts.catalog.v1 import run_event_pb2 as pb
from maand_contracts.catalog.v1 import task_pb2
from maand_executor.rules.cancel import CancelLevel
from maand_executor.rules.facts import Worker
from maand_executor.rules.side_by_side import end_tasks, side_by_side
from maand_executor.rules.waves import split_into_batches
from maand_executor.steps.context import RunContext, TaskWork, TellOutcome
from maand_executor.steps.failures import outcome_of_failure
from maand_executor.steps.task_loops import TaskLoops
from maand_wire.errors import RemoteError

STOPPING_LIMIT = timedelta(seconds=10)
"""How long a run that is stopped at once waits until other executors ended their commands for it."""
DROPPING_LIMIT = timedelta(seconds=2)
"""How long the catalog may take to drop tasks; the end of the run drops them too."""
AWAIT = timedelta(seconds=20)
"""How long one AwaitTasks waits; below the idle limits of proxies and load balancers."""
LOOK_HELP = "look at the worker; then run it there again by name, if that does no harm"

DoOnWorker = Callable[[RunContext, Worker], Awaitable[task_pb2.WorkerOutcome]]
SpecOf = Callable[[Sequence[str]], task_pb2.TaskSpec]
"""Names the work of a task on these workers."""


@dataclass(frozen=True, kw_only=True)
class UnknownOutcome:
    """What is told of a worker of which nothing is known: the step as a failure calls it, whose it is, what to do next."""

    step: str
    job: str = ""
    help: str = LOOK_HELP


class FanOut:
    """One kind of work of one run. `all_at_once`: every worker's must be under way at the same time, however many they are."""

    def __init__(
        self, context: RunContext, spec_of: SpecOf, work: TaskWork, *, unknown: UnknownOutcome, all_at_once: bool = False
    ) -> None:
        self._context = context
        self._spec_of = spec_of
        self._work = work
        self._unknown = unknown
        self._all_at_once = all_at_once

    async def run(self, workers: Sequence[Worker]) -> list[task_pb2.WorkerOutcome]:
        """Do it on all of them and return an outcome for each, in their order; what did not succeed has a failure."""
        width = self._context.settings.task_width
        if len(workers) <= width:
            return [explain_failure(one, self._unknown) for one in await self._do_here(workers)]
        await self._context.journal.flush()  # what was told before comes before what others tell
        loops = self._context.task_loops
        if loops is None:
            raise RuntimeError("the work of a task is not split further")
        ended = await self._share(self._split(workers, width, loops), loops)
        found = {outcome.worker: outcome for task in ended for outcome in task.outcomes}
        if len(found) < len(workers):
            await self._let_a_cancel_end_this()
        by = {name: task.executor_id for task in ended for name in task.spec.workers}
        return [
            explain_failure(found[worker.name], self._unknown)
            if worker.name in found
            else interrupted_outcome(worker.name, self._unknown, by.get(worker.name, ""))
            for worker in workers
        ]

    async def _let_a_cancel_end_this(self) -> None:
        """Be ended as cancelled, not as failed, when that is why tasks were given up: others may hear of it before the owner."""
        await self._context.lease.renew()
        if self._context.cancel.level is CancelLevel.NOW:
            await asyncio.sleep(STOPPING_LIMIT.total_seconds())

    async def _do_here(self, workers: Sequence[Worker]) -> list[task_pb2.WorkerOutcome]:
        found: dict[str, task_pb2.WorkerOutcome] = {}

        def tell(outcome: task_pb2.WorkerOutcome) -> None:
            found[outcome.worker] = outcome

        await self._work(self._context, self._spec_of([worker.name for worker in workers]), workers, tell)
        return [found[worker.name] for worker in workers]

    def _split(self, workers: Sequence[Worker], width: int, loops: TaskLoops[TaskWork]) -> list[task_pb2.NewTask]:
        """Split evenly, so that the last task is no straggler: 51 workers at a width of 50 are 26 and 25, not 50 and 1."""
        tasks = math.ceil(len(workers) / width)  # as few as the width allows, then as many workers in each as in the others
        parts = split_into_batches([worker.name for worker in workers], math.ceil(len(workers) / tasks))
        specs, split = [self._spec_of(names) for names in parts], loops.next_number()
        return [
            task_pb2.NewTask(name=f"{spec.WhichOneof('work')}/{split}/{number}", spec=spec)
            for number, spec in enumerate(specs, start=1)
        ]

    async def _share(self, tasks: Sequence[task_pb2.NewTask], loops: TaskLoops[TaskWork]) -> list[task_pb2.Task]:
        after, names = loops.seen, {task.name for task in tasks}
        await self._context.catalog.create_tasks(self._context.identity, tasks)
        gathering = asyncio.create_task(self._gather(names, loops, after))
        try:
            async with loops.lend(names, self._work, all_at_once=self._all_at_once):
                return await asyncio.shield(gathering)
        except asyncio.CancelledError:
            if self._context.cancel.level is CancelLevel.NOW:
                await asyncio.wait({gathering}, timeout=STOPPING_LIMIT.total_seconds())
            else:
                await self._drop(sorted(names))
            raise
        finally:
            await end_tasks(gathering)

    async def _drop(self, names: Sequence[str]) -> None:
        """End what is not wanted any more although the run may go on: a gate, say, whose time is over."""
        with suppress(RemoteError):
            await self._context.catalog.drop_tasks(self._context.identity, names, deadline=DROPPING_LIMIT)

    async def _gather(self, names: set[str], loops: TaskLoops[TaskWork], after: int) -> list[task_pb2.Task]:
        ended: dict[str, task_pb2.Task] = {}
        while ended.keys() != names:
            try:
                told = await self._context.catalog.await_tasks(self._context.identity, after=after, wait=AWAIT)
            except RemoteError as error:
                if not error.is_temporary:
                    raise
                continue
            for task in told:
                after = max(after, task.sequence)
                if task.name in names:
                    ended[task.name] = task
            loops.seen = max(loops.seen, after)
        return list(ended.values())


def work_on_each(do: DoOnWorker) -> TaskWork:
    """Make work of a task of what is done on each of its workers, side by side."""

    async def work(context: RunContext, _: task_pb2.TaskSpec, workers: Sequence[Worker], tell: TellOutcome) -> None:
        async def one(worker: Worker) -> None:
            tell(await do(context, worker))

        await side_by_side(workers, one)

    return work


def plain_spec(kind: str) -> SpecOf:
    """Name work of which the run's own specification says everything else."""

    def spec_of(names: Sequence[str]) -> task_pb2.TaskSpec:
        spec = task_pb2.TaskSpec(workers=names)
        getattr(spec, kind).SetInParent()
        return spec

    return spec_of


def interrupted_outcome(name: str, unknown: UnknownOutcome, executor_id: str) -> task_pb2.WorkerOutcome:
    """Say that nobody knows how it ended on a worker."""
    message = f"executor {executor_id or 'unknown'} stopped or died before it told how this ended; it was not repeated"
    failure = pb.Failure(
        kind=pb.FAILURE_KIND_COMMAND, job=unknown.job, worker=name, step=unknown.step, message=message, help=unknown.help
    )
    return task_pb2.WorkerOutcome(worker=name, outcome=pb.STEP_OUTCOME_INTERRUPTED, failure=failure)


def explain_failure(outcome: task_pb2.WorkerOutcome, unknown: UnknownOutcome) -> task_pb2.WorkerOutcome:
    """Return an outcome that has a failure unless it succeeded: whoever looks at failures only takes nothing else for well."""
    if outcome.outcome != pb.STEP_OUTCOME_SUCCEEDED and not outcome.HasField("failure"):
        word = pb.StepOutcome.Name(outcome.outcome).removeprefix("STEP_OUTCOME_").lower()
        outcome.failure.CopyFrom(
            pb.Failure(
                kind=pb.FAILURE_KIND_COMMAND,
                job=unknown.job,
                worker=outcome.worker,
                step=unknown.step,
                message=f"it ended as {word}, and its executor did not say why",
                help=unknown.help,
            )
        )
    return outcome


def succeeded_outcome(name: str) -> task_pb2.WorkerOutcome:
    """Say that it did what it should."""
    return task_pb2.WorkerOutcome(worker=name, outcome=pb.STEP_OUTCOME_SUCCEEDED)


def failed_outcome(failure: pb.Failure) -> task_pb2.WorkerOutcome:
    """Say what went wrong on a worker."""
    return task_pb2.WorkerOutcome(worker=failure.worker, outcome=outcome_of_failure(failure.kind), failure=failure)
