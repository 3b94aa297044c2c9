"""The hook engine: the hooks of a job on one event, one after another, each over its batches.

hooks in name order:  batches in rollout order:  allocations side by side
     first failure         first failure ends           all may finish
     ends the event        the event (or goes on)
"""

import asyncio
import os
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from pathlib import Path

from maand_executor.content.allocation_trees import digests_of
from maand_executor.content.content_store import ContentStore
from maand_executor.content.hook_directories import HookDirectories, HookDirectoryContent
from maand_executor.hooks.batch_places import BatchPlaces
from maand_executor.hooks.dependencies import Dependencies
from maand_executor.hooks.identities import HookCatalog, Identities
from maand_executor.hooks.interpreter import Interpreter, Interpreters
from maand_executor.hooks.invocation import HookRun, Invocation, InvocationRunner
from maand_executor.hooks.live_invocations import LiveInvocations
from maand_executor.hooks.request import EventRun, TellResult
from maand_executor.hooks.subreaper import Subreaper
from maand_executor.hooks.targets import (
    NothingReachable,
    is_done,
    level_that_stops,
    plan_hook,
    unreachable_result,
    wanted_hooks,
)
from maand_executor.output import events
from maand_executor.rules.facts import Allocation, Hook, InvocationStart, JobFile, RunIdentity
from maand_executor.rules.hook_outcomes import EventOutcome, InvocationResult
from maand_executor.rules.meter import Meter
from maand_executor.rules.side_by_side import end_tasks, side_by_side
from maand_executor.rules.waves import Batch
from maand_wire.tracing import child_span

PROCESSES_PER_CORE = 20
"""Hooks mostly wait: for an API call, a worker, a sleep. Each costs about 12 ms of processor time to start, so that a core starts
these in a quarter of a second; `python -m tests.bench hooks` measures it."""
WAIT_TOLD_AFTER = timedelta(seconds=5)
"""How long a batch waits for places before that is told."""


def tell_nobody(_: InvocationResult) -> None:
    """Nobody waits for single results."""


@dataclass(frozen=True, kw_only=True)
class PreparedHooks:
    """What the hooks of one event need, on this machine."""

    files: tuple[JobFile, ...]
    interpreters: Mapping[str, Interpreter]
    """By hook name."""


class HookEngine:
    """One per executor. `close` it when no event runs any more."""

    def __init__(
        self,
        *,
        catalog: HookCatalog,
        content: ContentStore,
        state_dir: Path,
        workspace_dir: Path | None = None,
        hook_api: str = "127.0.0.1:8080",
        process_limit: int = 0,
        host: Mapping[str, str] = os.environ,
        meter: Meter | None = None,
    ) -> None:
        self.live = LiveInvocations()
        """Who is alive, by token."""
        self._catalog = catalog
        self._content = content
        self._subreaper = Subreaper()
        self._interpreters = Interpreters(content, Dependencies(state_dir, content, self._subreaper), workspace_dir)
        directories = HookDirectories(state_dir, content)
        directories.remove_leftovers()
        self._runner = InvocationRunner(
            directories=directories,
            live=self.live,
            subreaper=self._subreaper,
            hook_api=hook_api,
            host=host,
            meter=meter or Meter(),
        )
        self._places = BatchPlaces(process_limit or len(os.sched_getaffinity(0)) * PROCESSES_PER_CORE)

    async def run_event(self, request: EventRun) -> EventOutcome:
        """Run an event to its end. No hooks or no targets: done, well.

        Raises `HookPrerequisiteMissing` before anything was started, `LeaseLost` or `RemoteError` when the catalog refuses.
        Cancelling the task ends every process of the event: TERM, grace, KILL.
        """
        hooks = wanted_hooks(request)
        if not hooks or not request.allocations:
            return EventOutcome()
        outcome = EventOutcome()
        for hook_run in await self._make_runs(request, hooks):
            outcome = outcome.followed_by(await self._run_hook(hook_run))
            if not outcome.ok:
                break
        return outcome

    async def run_part(self, request: EventRun, hook: Hook, batch: Batch, some: Sequence[Allocation], tell: TellResult) -> None:
        """Run one hook for some allocations of a batch of a run that another executor owns. Raises as `run_event`.

        At once: the owner waited for places for the whole batch, and its other allocations may wait for these.
        """
        (hook_run,) = await self._make_runs(request, [hook])
        await self._run_some(hook_run, batch, some, tell)

    async def _make_runs(self, request: EventRun, hooks: Sequence[Hook]) -> list[HookRun]:
        """Have everything that hooks need for the request's allocations. Raises `HookPrerequisiteMissing`."""
        prepared = await self.prepare(request.run.bucket_id, hooks)
        ids = [allocation.allocation_id for allocation in request.allocations]
        certificates = await self._catalog.read_certificates(request.run.bucket_id, ids)
        runs = []
        for hook in hooks:
            interpreter = prepared.interpreters[hook.name]
            content = HookDirectoryContent(
                bucket_id=request.run.bucket_id,
                files=prepared.files,
                certificates=certificates,
                node_modules=interpreter.node_modules,
            )
            runs.append(HookRun(request=request, hook=hook, interpreter=interpreter, content=content))
        return runs

    async def prepare(self, bucket_id: str, hooks: Sequence[Hook]) -> PreparedHooks:
        """Have everything that these hooks (of one job) need on this machine. Raises `HookPrerequisiteMissing`.

        `run_event` does it by itself; a preflight may do it earlier, before anything was changed anywhere.
        """
        files = await self._catalog.list_job_files(bucket_id, hooks[0].job)
        await self._content.ensure(bucket_id, digests_of(files))
        interpreters = {hook.name: await self._interpreters.interpreter_for(hook, files) for hook in hooks}
        return PreparedHooks(files=files, interpreters=interpreters)

    def kill(self, run: RunIdentity) -> None:
        """Kill every hook process of this claim now: its lease is lost, somebody else may start them again."""
        self._runner.kill(run)

    def close(self) -> None:
        """Release what the engine holds beyond its events."""
        self._subreaper.close()

    async def _run_hook(self, hook_run: HookRun) -> EventOutcome:
        """Run one hook over its batches."""
        request = hook_run.request
        try:
            batches = await plan_hook(request, hook_run.hook)
        except NothingReachable as error:
            return EventOutcome(results=(unreachable_result(request, hook_run.hook, str(error)),))
        outcome = EventOutcome()
        for number, batch in enumerate(batches):
            todo = [allocation for allocation in batch.allocations if not is_done(request, hook_run.hook, allocation)]
            async with AsyncExitStack() as held:
                await self._take_places(request, len(todo), held)
                cancelled = request.cancel.level >= level_that_stops(request)
                if cancelled or (outcome.failed and not request.goes_on):
                    untouched = tuple(worker for later in batches[number:] for worker in later.workers)
                    return replace(outcome, untouched=untouched, stopped=cancelled)
                outcome = outcome.followed_by(EventOutcome(results=await self._run_batch(hook_run, batch, todo)))
        return outcome

    async def _take_places(self, request: EventRun, count: int, held: AsyncExitStack) -> None:
        """Wait until the whole batch has room; no longer than run and event want to go on, and not at all in a nested run."""
        if request.nested or not count:
            return
        waiting = asyncio.create_task(held.enter_async_context(self._places.hold(count)))
        telling = asyncio.create_task(self._tell_wait(request, count))
        cancelled = asyncio.create_task(request.cancel.wait(level_that_stops(request)))
        try:
            seconds = None if request.ends_at is None else request.time_left.total_seconds()
            await asyncio.wait({waiting, cancelled}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await end_tasks(waiting, telling, cancelled)

    async def _tell_wait(self, request: EventRun, count: int) -> None:
        await asyncio.sleep(WAIT_TOLD_AFTER.total_seconds())
        busy = f"{self._places.taken} of {self._places.limit} hook processes of this executor run"
        request.journal.report(events.notice_event(f"{request.event} for {count} waits: {busy}", job=request.job.name))

    async def _run_batch(self, hook_run: HookRun, batch: Batch, todo: Sequence[Allocation]) -> tuple[InvocationResult, ...]:
        """Run what is not done of a batch; all are allowed to finish, whoever fails."""
        if not todo:
            return ()
        request, hook = hook_run.request, hook_run.hook
        job, index, count = request.job.name, batch.index, batch.count
        request.journal.report(
            events.batch_started(job=job, phase=request.event, hook=hook.name, index=index, count=count, workers=batch.workers)
        )
        with child_span(f"batch {request.event}", job=job, hook=hook.name, index=index, count=count):
            run_here = partial(self._run_some, hook_run, batch)
            if request.share is None or len(todo) <= request.share_above:
                return await run_here(todo)
            return await request.share(request, hook, batch, todo, run_here)

    async def _run_some(
        self, hook_run: HookRun, batch: Batch, some: Sequence[Allocation], tell: TellResult = tell_nobody
    ) -> tuple[InvocationResult, ...]:
        request, hook = hook_run.request, hook_run.hook
        identities = Identities(self._catalog, request.run)
        starts = [InvocationStart(allocation_id=one.allocation_id, hook=hook.name, event=request.event) for one in some]
        begun = await identities.begin(starts)
        try:
            invocations = [
                Invocation(hook_run=hook_run, batch=batch, allocation=allocation, begun=identity)
                for allocation, identity in zip(some, begun, strict=True)
            ]
            return tuple(await side_by_side(invocations, lambda invocation: self._run_one(invocation, identities, tell)))
        finally:
            await asyncio.shield(asyncio.ensure_future(identities.end_all()))

    async def _run_one(self, invocation: Invocation, identities: Identities, tell: TellResult) -> InvocationResult:
        result = await self._runner.run(invocation, identities)
        request = invocation.request
        if result.ok and request.is_recorded:
            await request.record(request.step_name(invocation.hook, invocation.allocation))
        tell(result)
        return result
