"""Work on many workers, spread over executors: split into tasks that any executor claims, this one at once.

few workers   -> side by side, here
many workers  -> CreateTasks ─┬─ this executor's hands: claim one of this run's tasks, carry it out, claim the next …
                              ├─ other executors: likewise, as their long polls are answered (see `maand_executor/tasks.py`)
                              └─ AwaitTasks until every task ended -> an outcome for every worker

What is spread is the same function everywhere; `task_work.py` lists them by the contract's name.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta

from maand_contracts.catalog.v1 import run_event_pb2 as pb
from maand_contracts.catalog.v1 import task_pb2
from maand_executor.cancel import CancelLevel
from maand_executor.context import RunContext
from maand_executor.facts import Worker
from maand_executor.side_by_side import side_by_side
from maand_executor.waves import batches
from maand_wire.errors import RemoteError

HANDS = 2
"""Tasks of one run that its owner does at once: while the last workers of one are waited for, the next keeps the pool busy."""
STOPPING_LIMIT = timedelta(seconds=10)
"""How long a run that is stopped at once waits until other executors ended their commands for it."""
AWAIT = timedelta(seconds=20)
"""How long one AwaitTasks waits; below the idle limits of proxies and load balancers."""
LOOK_HELP = "look at the worker; then run it there again by name, if that does no harm"

DoOnWorker = Callable[[RunContext, Worker], Awaitable[task_pb2.WorkerOutcome]]


class Spread:
    """One kind of work of one run. `kind` is the contract's name of it, `step` what a failure calls it."""

    def __init__(self, context: RunContext, kind: str, do: DoOnWorker, *, step: str) -> None:
        self._context = context
        self._kind = kind
        self._do = do
        self._step = step
        self._splits = 0
        self._seen = 0

    async def over(self, workers: Sequence[Worker]) -> list[task_pb2.WorkerOutcome]:
        """Do it on all of them and return an outcome for each, in their order."""
        width = task_width(self._context)
        if len(workers) <= width:
            return await side_by_side(workers, lambda worker: self._do(self._context, worker))
        await self._context.journal.flush()  # what was told before comes before what others tell
        ended = await self._share(self._split(workers, width))
        found = {outcome.worker: outcome for task in ended for outcome in task.outcomes}
        by = {host: task.executor_id for task in ended for host in task.spec.workers}
        return [found.get(worker.host) or interrupted(worker.host, self._step, by.get(worker.host, "")) for worker in workers]

    def _split(self, workers: Sequence[Worker], width: int) -> list[task_pb2.NewTask]:
        """Split evenly, so that the last task is no straggler."""
        self._splits += 1
        parts = batches([worker.host for worker in workers], -(-len(workers) // -(-len(workers) // width)))
        return [
            task_pb2.NewTask(name=f"{self._kind}/{self._splits}/{number}", spec=spec_of(self._kind, hosts))
            for number, hosts in enumerate(parts, start=1)
        ]

    async def _share(self, tasks: Sequence[task_pb2.NewTask]) -> list[task_pb2.Task]:
        await self._context.catalog.create_tasks(self._context.identity, tasks)
        hands = [asyncio.create_task(self._keep_busy()) for _ in range(HANDS)]
        gathering = asyncio.create_task(self._gather({task.name for task in tasks}))
        try:
            await asyncio.wait({gathering, *hands}, return_when=asyncio.FIRST_COMPLETED)
            for failed in (hand for hand in hands if hand.done()):
                failed.result()
            return await gathering
        finally:
            await end(hands)
            if self._context.cancel.level is CancelLevel.NOW:
                await asyncio.wait({gathering}, timeout=STOPPING_LIMIT.total_seconds())
            await end([gathering])

    async def _keep_busy(self) -> None:
        """Carry out tasks of this run until cancelled."""
        while True:
            await self._context.do_task()

    async def _gather(self, names: set[str]) -> list[task_pb2.Task]:
        ended: dict[str, task_pb2.Task] = {}
        while ended.keys() != names:
            try:
                told = await self._context.catalog.await_tasks(self._context.identity, after=self._seen, wait=AWAIT)
            except RemoteError as error:
                if not error.is_temporary:
                    raise
                continue
            for task in told:
                self._seen = max(self._seen, task.sequence)
                if task.name in names:
                    ended[task.name] = task
        return list(ended.values())


def task_width(context: RunContext) -> int:
    """Return for how many workers one task is: about 50, and so many that a hand or two keep all SSH sessions busy."""
    return max(context.settings.task_width, -(-context.config.max_ssh_sessions // HANDS))


def spec_of(kind: str, hosts: Sequence[str]) -> task_pb2.TaskSpec:
    """Name the work of a task."""
    spec = task_pb2.TaskSpec(workers=hosts)
    getattr(spec, kind).SetInParent()
    return spec


def interrupted(host: str, step: str, executor_id: str) -> task_pb2.WorkerOutcome:
    """Say that nobody knows how it ended on a worker."""
    message = f"executor {executor_id or 'unknown'} stopped or died before it told how this ended; it was not repeated"
    failure = pb.Failure(kind=pb.FAILURE_KIND_COMMAND, worker=host, step=step, message=message, help=LOOK_HELP)
    return task_pb2.WorkerOutcome(worker=host, outcome=pb.STEP_OUTCOME_INTERRUPTED, failure=failure)


def well(host: str) -> task_pb2.WorkerOutcome:
    """Say that it did what it should."""
    return task_pb2.WorkerOutcome(worker=host, outcome=pb.STEP_OUTCOME_SUCCEEDED)


def not_well(failure: pb.Failure) -> task_pb2.WorkerOutcome:
    """Say what went wrong on a worker."""
    unreachable = failure.kind == pb.FAILURE_KIND_UNREACHABLE
    outcome = pb.STEP_OUTCOME_UNREACHABLE if unreachable else pb.STEP_OUTCOME_FAILED
    return task_pb2.WorkerOutcome(worker=failure.worker, outcome=outcome, failure=failure)


async def end(tasks: "Sequence[asyncio.Task[None]] | Sequence[asyncio.Task[list[task_pb2.Task]]]") -> None:
    """Cancel tasks that still run, and wait until they are over."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
