"""Carrying out tasks: parts of the wide work of a run, this executor's own or another's.

    claim -> [ lease kept, outcomes told with it ] -> every worker done -> journal flushed -> FinishTask
                 |                                       ^
                 |                                       | ended by: cancel level NOW, shutdown -> given up
                 v
             LeaseLost: the task or its run is over; remote commands ended, nothing recorded

A run's owner claims its own tasks itself (`OwnTasks`); `HelpLoop` waits for those of other executors' runs.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from types import MappingProxyType

import structlog

from maand_contracts.catalog.v1 import run_event_pb2 as events_pb
from maand_contracts.catalog.v1 import task_pb2
from maand_executor.catalog_client import CatalogClient, ClaimedTask, RenewedLease
from maand_executor.claims.claim_loop import ClaimLoop, ask_or_pause
from maand_executor.claims.run_endings import accident_message
from maand_executor.claims.work_by_kind import WORK_BY_TASK
from maand_executor.content.content_store import make_private_directory
from maand_executor.content.hook_directories import remove_tree
from maand_executor.errors import CLAIM_IS_OVER, LeaseLost
from maand_executor.output.journal import LAST_WORDS, Journal
from maand_executor.rules.cancel import CancelLevel, CancelSignal
from maand_executor.rules.facts import BucketConfig, RunIdentity, TaskIdentity, Worker
from maand_executor.rules.side_by_side import end_tasks
from maand_executor.ssh.errors import StaleFence
from maand_executor.ssh.remote import Remote
from maand_executor.steps.context import ExecutorParts, RunContext, WorkByTask
from maand_executor.steps.failures import failure_of_ssh_error
from maand_executor.steps.fan_out import failed_outcome
from maand_executor.steps.lease import Lease
from maand_executor.steps.report import RunReport
from maand_wire.errors import RemoteError
from maand_wire.tracing import root_span

log = structlog.get_logger("maand.executor.tasks")


class Outcomes:
    """What became known of a task's workers, and what of it the catalog was not told yet."""

    def __init__(self, known: Iterable[str] = ()) -> None:
        self.untold: list[task_pb2.WorkerOutcome] = []
        self._known = set(known)

    def add(self, outcome: task_pb2.WorkerOutcome) -> None:
        """Remember how it ended on a worker."""
        self.untold.append(outcome)
        self._known.add(outcome.worker)

    def told(self, count: int) -> None:
        """Forget the oldest: the catalog has them."""
        del self.untold[:count]

    def missing(self, names: Sequence[str]) -> list[str]:
        """Return the workers of which nothing is known."""
        return [name for name in names if name not in self._known]


class TaskRenewals:
    """Renews a task's lease where a `Lease` expects to renew a run's; outcomes go along."""

    def __init__(self, catalog: CatalogClient, task: TaskIdentity, outcomes: Outcomes) -> None:
        self._catalog = catalog
        self._task = task
        self._outcomes = outcomes

    async def renew_lease(self, run: RunIdentity, *, deadline: timedelta) -> RenewedLease:
        """Renew, and tell what became known."""
        telling = list(self._outcomes.untold)  # more may become known while the call is on its way: only these are told
        renewed = await self._catalog.renew_task(run.bucket_id, self._task, telling, deadline=deadline)
        self._outcomes.told(len(telling))
        return renewed


class TaskRunner:
    """Carries out one task. `works`: what its run's owner has at hand for it; else it is done from the catalog."""

    def __init__(self, parts: ExecutorParts, claim: ClaimedTask, works: WorkByTask = MappingProxyType({})) -> None:
        self._parts = parts
        self._claim = claim
        self._works = works
        self._cancel = CancelSignal()
        self._outcomes = Outcomes(claim.known)
        self._staging = parts.settings.staging_dir / f"task-{claim.task.task_id}.{claim.task.fence}"
        settings = replace(parts.settings.lease, renew_every=parts.settings.lease.renew_task_every)
        renewals = TaskRenewals(parts.catalog, claim.task, self._outcomes)
        self._lease = Lease(renewals, claim, self._cancel, settings)
        masks = parts.masks.of(claim.identity.bucket_id)
        self._journal = Journal(claim.identity, parts.catalog, masks=masks, meter=parts.meter)

    async def carry_out(self) -> None:
        """Do it and record its end; when cancelled, or asked to stop now, end its commands and give it up."""
        keeper = asyncio.create_task(self._lease.keep(), name=f"lease of {self._claim.name}")
        try:
            through = await self._work_to_its_end(keeper)
            await self._close_journal()
            await self._finish(given_up=not through)
            self._parts.meter.task_ended("finished" if through else "given_up")
        except (LeaseLost, RemoteError) as error:
            self._parts.meter.lease_lost("task")
            self._parts.meter.task_ended("let_go")
            log.warning("task let go", run=self._claim.identity.run_id, task=self._claim.name, reason=str(error))
        except asyncio.CancelledError:
            self._parts.meter.task_ended("given_up")
            await self._give_up()
            raise
        finally:
            await end_tasks(keeper)
            await self._journal.close_hastily()
            await asyncio.to_thread(remove_tree, self._staging)

    async def _close_journal(self) -> None:
        """Store what is on its way. Output that the catalog refuses is lost: a repeat of the task would meet the same."""
        try:
            await self._journal.close()
        except RemoteError as error:
            if ends_a_claim(error):
                raise
            log.warning("output of a task is lost", run=self._claim.identity.run_id, task=self._claim.name, reason=str(error))

    async def _work_to_its_end(self, keeper: "asyncio.Task[None]") -> bool:
        """Return whether it is through. Raises `LeaseLost`."""
        work = asyncio.create_task(self._work(), name=f"task {self._claim.name}")
        now = asyncio.create_task(self._cancel.wait(CancelLevel.NOW))
        try:
            await asyncio.wait({work, now, keeper}, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                self._judge(work)
                return True
            if keeper.done():
                self._parts.hooks.kill(self._claim.identity)
                keeper.result()
            return False
        finally:
            await end_tasks(work, now)

    def _judge(self, work: "asyncio.Task[None]") -> None:
        """Let an accident that a repeat would meet again be told for every worker it left without an outcome."""
        error = work.exception()
        if error is None:
            return
        if isinstance(error, StaleFence):
            log.warning("task ended: a worker refused its fence", worker=error.worker, reason=str(error))
            self._tell_missing(lambda name: failed_outcome(failure_of_ssh_error(error, worker=name)))
            return
        if isinstance(error, LeaseLost) or (isinstance(error, RemoteError) and ends_a_claim(error)):
            raise error
        log.error("task failed unexpectedly", exc_info=error)
        self._tell_missing(lambda name: accident_outcome(name, error))

    def _tell_missing(self, outcome_of: Callable[[str], task_pb2.WorkerOutcome]) -> None:
        for name in self._outcomes.missing(self._claim.work.workers):
            self._outcomes.add(outcome_of(name))

    async def _work(self) -> None:
        make_private_directory(self._staging)
        claim = self._claim
        facts = {"run": claim.identity.run_id, "bucket": claim.identity.bucket_id, "task": claim.name}
        with root_span(self._parts.tracer, f"task {claim.kind}", kind="consumer", traceparent=claim.traceparent, **facts):
            await self._do_the_work()

    async def _do_the_work(self) -> None:
        claim, parts = self._claim, self._parts
        config = await parts.catalog.read_config(claim.identity.bucket_id)
        do = self._works.get(claim.name) or WORK_BY_TASK[claim.work.WhichOneof("work") or ""]
        async with parts.remotes.of(config) as remote:
            await do(self._make_context(config, remote), claim.work, await self._find_workers(), self._outcomes.add)

    async def _find_workers(self) -> list[Worker]:
        names, bucket_id = self._outcomes.missing(self._claim.work.workers), self._claim.identity.bucket_id
        if not names:
            return []
        known = await self._parts.catalog.list_workers(bucket_id, names=names, include_removed=True)
        by_worker = {worker.name: worker for worker in known}
        return [by_worker.get(name) or Worker(name=name, removed=True) for name in names]

    def _make_context(self, config: BucketConfig, remote: Remote) -> RunContext:
        claim, parts = self._claim, self._parts
        return RunContext(
            identity=claim.identity,
            kind=claim.kind,
            spec=claim.spec,
            config=config,
            hook_env=claim.hook_env,
            catalog=parts.catalog,
            remote=remote.telling(self._journal.warn_once),
            hooks=parts.hooks,
            content=parts.content,
            templates=parts.templates,
            lease=self._lease,
            cancel=self._cancel,
            journal=self._journal,
            report=RunReport(),
            meter=parts.meter,
            settings=parts.settings.work,
            traceparent=claim.traceparent,
            staging_dir=self._staging,
        )

    async def _finish(self, *, given_up: bool) -> None:
        bucket_id, outcomes = self._claim.identity.bucket_id, list(self._outcomes.untold)
        await self._parts.catalog.finish_task(bucket_id, self._claim.task, outcomes, given_up=given_up)

    async def _give_up(self) -> None:
        with suppress(LeaseLost, RemoteError, TimeoutError):
            async with asyncio.timeout(LAST_WORDS.total_seconds()):
                await self._journal.close()
                await self._finish(given_up=True)


def ends_a_claim(error: RemoteError) -> bool:
    """Whether the catalog is away, or knows another owner: nothing more is said of the task."""
    return error.is_temporary or error.code in CLAIM_IS_OVER


def accident_outcome(name: str, error: BaseException) -> task_pb2.WorkerOutcome:
    """Say that maand itself failed."""
    failure = events_pb.Failure(kind=events_pb.FAILURE_KIND_INTERNAL, worker=name, message=accident_message(error))
    return task_pb2.WorkerOutcome(worker=name, outcome=events_pb.STEP_OUTCOME_FAILED, failure=failure)


class OwnTasks:
    """Tasks of a run that this executor owns."""

    def __init__(self, parts: ExecutorParts, run_id: str) -> None:
        self._parts = parts
        self._run_id = run_id

    async def do_one(self, works: WorkByTask) -> None:
        """Claim one, waiting a while for it, and carry it out."""
        claim = await claim_patiently(self._parts, run_id=self._run_id)
        if claim is None:
            return
        self._parts.meter.task_claimed(own=True)
        try:
            await TaskRunner(self._parts, claim, works).carry_out()
        except Exception:  # the task lapses and is told as what it then is; the loop takes the next
            log.exception("task abandoned", task=claim.name)


class HelpLoop:
    """Helps other executors with their runs: asks the catalog for tasks and carries out a few side by side."""

    def __init__(self, parts: ExecutorParts) -> None:
        self._parts = parts
        self._loop = ClaimLoop(
            "help with others' runs",
            at_once=parts.settings.work.foreign_tasks_at_once,
            claim=lambda: claim_patiently(parts),
            carry_out=self._carry_out,
        )

    async def run(self) -> None:
        """Help until cancelled; then every task is ended and given up before this returns."""
        await self._loop.run()

    async def _carry_out(self, claim: ClaimedTask) -> None:
        self._parts.meter.task_claimed(own=False)
        try:
            with structlog.contextvars.bound_contextvars(run=claim.identity.run_id, kind=claim.kind):
                log.info("helps with a task", task=claim.name, workers=len(claim.work.workers))
                await TaskRunner(self._parts, claim).carry_out()
        except Exception:  # one task's accident must not end the others
            log.exception("task abandoned", task=claim.name)


async def claim_patiently(parts: ExecutorParts, *, run_id: str = "") -> ClaimedTask | None:
    """Claim a task; nothing, after a pause, when the catalog cannot be asked."""
    settings = parts.settings
    return await ask_or_pause(
        "tasks",
        lambda: parts.catalog.claim_task(
            parts.executor_id, wait=settings.lease.claim_wait, bucket_ids=settings.bucket_ids, run_id=run_id
        ),
        pause=settings.lease.retry_pause,
    )
