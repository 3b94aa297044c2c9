"""Runs, claimed while there is room and carried out side by side, each from its claim to its recorded end.

    claim -> [ lease kept ] -> work -> journal flushed -> FinishRun
                 |               ^
                 |               | ended by: cancel level NOW, the run's own time limit, a lost lease, shutdown
                 v
             LeaseLost: hooks killed, work ended, nothing recorded

While work is being ended the lease is still kept: nobody takes the run over before its hooks are gone.
"""

import asyncio
import time
from collections.abc import Sequence

import structlog

from maand_contracts.catalog.v1.run_event_pb2 import RunResult
from maand_executor.catalog_client import ClaimedRun
from maand_executor.claims.claim_loop import ClaimLoop, ask_or_pause
from maand_executor.claims.claimed_tasks import OwnTasks
from maand_executor.claims.run_endings import LOST, Ending, judge_ending, judge_refused_output
from maand_executor.claims.work_by_kind import do_the_work
from maand_executor.content.content_store import make_private_directory
from maand_executor.content.hook_directories import remove_tree
from maand_executor.errors import LeaseLost, RunCancelled, RunTimedOut
from maand_executor.output import events
from maand_executor.output.journal import Journal
from maand_executor.rules.cancel import CancelLevel, CancelSignal
from maand_executor.rules.facts import BucketConfig
from maand_executor.rules.side_by_side import end_tasks
from maand_executor.ssh.remote import Remote
from maand_executor.steps.context import ExecutorParts, RunContext, TaskWork
from maand_executor.steps.lease import Lease
from maand_executor.steps.report import RunReport
from maand_executor.steps.task_loops import TaskLoops
from maand_wire.errors import RemoteError
from maand_wire.tracing import root_span

log = structlog.get_logger("maand.executor")

RELEASED = "released"
"""How a run ends here when the executor stops: another one may go on with it."""


class RunLoop:
    """RunLoop runs and has them carried out: the runs one executor owns."""

    def __init__(self, parts: ExecutorParts) -> None:
        self._parts = parts
        self._active: dict[tuple[str, int], ClaimedRun] = {}
        """By run and fence: after a freeze the run may be claimed again before its older claim is wound up."""
        self._loop = ClaimLoop(
            "claims of runs", at_once=parts.settings.work.runs_at_once, claim=self._claim, carry_out=self._carry_out
        )

    @property
    def active_run_ids(self) -> Sequence[str]:
        """Ids of the runs that are being carried out, each once."""
        return tuple(dict.fromkeys(run_id for run_id, _ in self._active))

    async def run(self) -> None:
        """Claim and carry out until cancelled; then every run's work is ended before this returns."""
        await self._loop.run()

    async def _claim(self) -> ClaimedRun | None:
        settings = self._parts.settings
        return await ask_or_pause(
            "runs",
            lambda: self._parts.catalog.claim_run(
                self._parts.executor_id, wait=settings.lease.claim_wait, bucket_ids=settings.bucket_ids
            ),
            pause=settings.lease.retry_pause,
        )

    async def _carry_out(self, claim: ClaimedRun) -> None:
        run = claim.identity
        self._active[run.run_id, run.fence] = claim
        try:
            with structlog.contextvars.bound_contextvars(run=run.run_id, kind=claim.kind):
                await Runner(self._parts, claim).carry_out()
        except Exception:  # one run's accident must not end the others
            log.exception("run abandoned", run=run.run_id, fence=run.fence)
        finally:
            self._active.pop((run.run_id, run.fence), None)


class Runner:
    """Carries out one run."""

    def __init__(self, parts: ExecutorParts, claim: ClaimedRun) -> None:
        self._parts = parts
        self._claim = claim
        self._cancel = CancelSignal()
        self._lease = Lease(parts.catalog, claim, self._cancel, parts.settings.lease)
        masks = parts.masks.of(claim.identity.bucket_id)
        self._journal = Journal(claim.identity, parts.catalog, masks=masks, meter=parts.meter)
        self._report = RunReport()
        self._staging = parts.settings.staging_dir / f"{claim.identity.run_id}.{claim.identity.fence}"

    async def carry_out(self) -> None:
        """Do the run's work and record its end. Cancelling it ends the work; the run is then left to `release_leases`."""
        run = self._claim.identity
        log.info("run claimed", run=run.run_id, kind=self._claim.kind, fence=run.fence)
        began, outcome = time.monotonic(), RELEASED
        self._parts.meter.run_began(self._claim.kind)
        keeper = asyncio.create_task(self._lease.keep(), name=f"lease of {run.run_id}")
        try:
            ending = await self._work_to_its_end(keeper)
            if ending.state is not None:
                await self._finish(ending)
            outcome = ending.word
            log.info("run ended", run=run.run_id, outcome=outcome)
        except (LeaseLost, RemoteError) as error:
            outcome = LOST.word
            log.warning("run let go", run=run.run_id, reason=str(error))
        finally:
            await end_tasks(keeper)  # before anything that could fail: a keeper left behind would hold the run for ever
            self._count(outcome, time.monotonic() - began)
            await self._journal.close_hastily()
            await asyncio.to_thread(remove_tree, self._staging)

    def _count(self, outcome: str, seconds: float) -> None:
        if outcome == LOST.word:
            self._parts.meter.lease_lost("run")
        self._parts.meter.run_ended(self._claim.kind, outcome, seconds)

    async def _work_to_its_end(self, keeper: asyncio.Task[None]) -> Ending:
        work = asyncio.create_task(self._work(), name=f"run {self._claim.identity.run_id}")
        now = asyncio.create_task(self._cancel.wait(CancelLevel.NOW))
        limit = self._claim.spec.timeout_seconds or None
        try:
            await asyncio.wait({work, now, keeper}, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
            reason = None if work.done() else self._why_stopped(now, keeper)
            await end_tasks(work)
            return judge_ending(reason or error_of_task(work), self._report)
        finally:
            await end_tasks(work, now)

    def _why_stopped(self, now: asyncio.Task[None], keeper: asyncio.Task[None]) -> Exception:
        if keeper.done():
            self._parts.hooks.kill(self._claim.identity)
            log.warning("lease lost, hooks killed", run=self._claim.identity.run_id, fence=self._claim.identity.fence)
            return LeaseLost(str(error_of_task(keeper)))
        if now.done():
            return RunCancelled("stopped at once, as asked")
        return RunTimedOut(f"the run took longer than its limit of {self._claim.spec.timeout_seconds} s")

    async def _work(self) -> None:
        run, claim = self._claim.identity, self._claim
        facts: dict[str, str | int] = {"run": run.run_id, "bucket": run.bucket_id, "fence": run.fence}
        with root_span(self._parts.tracer, f"run {claim.kind}", kind="consumer", traceparent=claim.traceparent, **facts) as span:
            await self._do_the_work()
            if self._report.failures:
                span.fail("failed")

    async def _do_the_work(self) -> None:
        claim = self._claim
        self._journal.report(events.run_started(executor_id=self._parts.executor_id, fence=claim.identity.fence))
        config = await self._parts.catalog.read_config(claim.identity.bucket_id)
        make_private_directory(self._staging)
        async with self._parts.remotes.of(config) as remote:
            await do_the_work(self._make_context(config, remote))

    def _make_context(self, config: BucketConfig, remote: Remote) -> RunContext:
        claim = self._claim
        return RunContext(
            identity=claim.identity,
            kind=claim.kind,
            spec=claim.spec,
            config=config,
            hook_env=claim.hook_env,
            nested=claim.nested,
            catalog=self._parts.catalog,
            remote=remote.telling(self._journal.warn_once),
            hooks=self._parts.hooks,
            content=self._parts.content,
            templates=self._parts.templates,
            lease=self._lease,
            cancel=self._cancel,
            journal=self._journal,
            report=self._report,
            meter=self._parts.meter,
            settings=self._parts.settings.work,
            traceparent=claim.traceparent,
            staging_dir=self._staging,
            task_loops=self._make_task_loops(),
        )

    def _make_task_loops(self) -> TaskLoops[TaskWork]:
        own = OwnTasks(self._parts, self._claim.identity.run_id)
        return TaskLoops(own.do_one, left_to_others=self._parts.settings.work.left_to_others)

    async def _finish(self, ending: Ending) -> None:
        result = self._report.result()
        try:
            await self._journal.mask(result)
        except RemoteError as error:
            result = RunResult()  # what cannot be masked is not stored
            ending = judge_refused_output(error, result)
        try:
            await self._journal.close()
        except RemoteError as error:
            ending = judge_refused_output(error, result)
        assert ending.state is not None
        await self._parts.catalog.finish_run(self._claim.identity, ending.state, result)


def error_of_task(work: "asyncio.Task[None]") -> BaseException | None:
    """Return how work ended by itself."""
    return asyncio.CancelledError() if work.cancelled() else work.exception()
