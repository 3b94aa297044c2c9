"""One hook on one allocation, from its private directory to its result.

    StepStarted -> directory -> process ... -> output closed, token ended -> directory removed -> StepFinished

Whatever way it ends, cancelled included: nothing of it is left running, on disk, or able to call the API.
"""

import asyncio
import os
import time
from collections import defaultdict
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from signal import SIGKILL

from maand_executor.content.allocation_trees import HOOKS
from maand_executor.content.content_store import ContentDamaged
from maand_executor.content.hook_directories import HookDirectories, HookDirectoryContent
from maand_executor.hooks.identities import Identities
from maand_executor.hooks.interpreter import Interpreter
from maand_executor.hooks.live_invocations import LiveInvocation, LiveInvocations
from maand_executor.hooks.outcome_messages import STEP_OUTCOMES
from maand_executor.hooks.process import Command, GroupProcess, ProcessEnd, supervise_process
from maand_executor.hooks.request import EventRun
from maand_executor.hooks.subreaper import Subreaper
from maand_executor.output import events
from maand_executor.output.output_source import OutputSource
from maand_executor.rules.cancel import CancelLevel, CancelSignal
from maand_executor.rules.facts import Allocation, BegunInvocation, Certificates, Hook, InvocationOutcome, RunIdentity
from maand_executor.rules.hook_environment import InvocationFacts, invocation_environment
from maand_executor.rules.hook_outcomes import InvocationResult, outcome_of, sentence_of, sentence_of_survivor, shell_exit_code
from maand_executor.rules.meter import Meter
from maand_executor.rules.output_lines import tail_lines
from maand_executor.rules.waves import Batch
from maand_executor.rules.worker_scripts import job_directory
from maand_wire.host_faults import HostFault, find_host_fault
from maand_wire.tracing import child_span, current_traceparent

CANNOT_EXECUTE = 126
"""Exit code of a process that could not be started, as shells say it."""


@dataclass(frozen=True, kw_only=True)
class HookRun:
    """One hook of an event, ready to be started on any of its allocations."""

    request: EventRun
    hook: Hook
    interpreter: Interpreter
    content: HookDirectoryContent

    @property
    def time_limit(self) -> timedelta:
        """Its limit: the manifest's, else the bucket's."""
        return self.hook.timeout or self.request.config.hook_timeout


@dataclass(frozen=True, kw_only=True)
class Invocation:
    """One hook on one allocation."""

    hook_run: HookRun
    batch: Batch
    allocation: Allocation
    begun: BegunInvocation

    @property
    def request(self) -> EventRun:
        """The event it belongs to."""
        return self.hook_run.request

    @property
    def hook(self) -> Hook:
        """The hook."""
        return self.hook_run.hook


class InvocationRunner:
    """Runs invocations. One per executor."""

    def __init__(
        self,
        *,
        directories: HookDirectories,
        live: LiveInvocations,
        subreaper: Subreaper,
        hook_api: str,
        host: Mapping[str, str],
        meter: Meter,
    ) -> None:
        self._meter = meter
        self._directories = directories
        self._live = live
        self._subreaper = subreaper
        self._hook_api = hook_api
        self._host = host
        self._processes: dict[RunIdentity, set[GroupProcess]] = defaultdict(set)

    async def run(self, invocation: Invocation, identities: Identities) -> InvocationResult:
        """Run one invocation; its token is dead when this returns."""
        try:
            return await self._run_unless_over(invocation, identities)
        finally:
            await end_identity(identities, invocation, broken_off_as(invocation))

    def kill(self, run: RunIdentity) -> None:
        """Kill every process of a claim of a run, or of a task of one, now, without grace: its lease is lost."""
        for process in self._processes.get(run, ()):
            process.signal_group(SIGKILL)

    async def _run_unless_over(self, invocation: Invocation, identities: Identities) -> InvocationResult:
        request = invocation.request
        if request.cancel.level >= CancelLevel.NOW:
            return result_without_process(invocation, InvocationOutcome.CANCELLED, message="not started: the run was cancelled")
        if not request.time_left:
            message = "not started: the time of its health gate was over"
            return result_without_process(invocation, InvocationOutcome.TIMED_OUT, message=message)
        worker, step = invocation.allocation.worker, invocation.hook.name
        request.journal.report(events.step_started(job=request.job.name, worker=worker, step=step))
        began = time.monotonic()
        try:
            result = await self._run_traced(invocation, identities)
        except asyncio.CancelledError:
            outcome = broken_off_as(invocation)
            message = sentence_of(outcome, 0, invocation.hook_run.time_limit)
            broken_off = result_without_process(invocation, outcome, message=message)
            self._tell(request, replace(broken_off, duration=timedelta(seconds=time.monotonic() - began)))
            raise
        self._tell(request, result)
        return result

    def _tell(self, request: EventRun, result: InvocationResult) -> None:
        self._meter.hook_ended(request.event, result.outcome.value, result.duration.total_seconds())
        request.journal.report(
            events.step_finished(
                job=request.job.name,
                worker=result.worker,
                step=result.hook,
                outcome=STEP_OUTCOMES[result.outcome],
                exit_code=result.exit_code,
                duration=result.duration,
                message=result.message,
            )
        )

    async def _run_traced(self, invocation: Invocation, identities: Identities) -> InvocationResult:
        request, allocation = invocation.request, invocation.allocation
        facts = {"job": request.job.name, "worker": allocation.worker, "allocation": allocation.allocation_id}
        with child_span(f"hook {invocation.hook.name}", event=request.event, hook=invocation.hook.name, **facts) as span:
            result = await self._run_in_directory(invocation, identities)
            span.set(outcome=result.outcome.value, exit_code=result.exit_code)
            if not result.ok:
                span.fail(result.outcome.value)
        return result

    async def _run_in_directory(self, invocation: Invocation, identities: Identities) -> InvocationResult:
        """Make the directory, run in it, remove or keep it. What this host refuses (disk full, too many files) is a failure."""
        begun, allocation = invocation.begun, invocation.allocation
        try:
            directory = await self._directories.make(begun.invocation_id, allocation.allocation_id, invocation.hook_run.content)
            try:
                return await self._run_process(invocation, directory, identities)
            finally:
                await self._put_away(invocation, directory)
        except (OSError, ContentDamaged, HostFault) as error:
            await end_identity(identities, invocation, InvocationOutcome.FAILED)
            message = f"could not be started: {find_host_fault(error) or error}"
            return result_without_process(invocation, InvocationOutcome.FAILED, exit_code=CANNOT_EXECUTE, message=message)

    async def _run_process(self, invocation: Invocation, directory: Path, identities: Identities) -> InvocationResult:
        request = invocation.request
        source = request.journal.source(job=request.job.name, worker=invocation.allocation.worker, step=invocation.hook.name)
        self._live.add(live_invocation(invocation))
        try:
            process = GroupProcess.start(self._command(invocation, directory), subreaper=self._subreaper, on_output=source.write)
            limit = min(invocation.hook_run.time_limit, request.time_left)
            end = await self._follow(process, invocation, limit)
        finally:
            self._live.remove(invocation.begun.token)
            source.close()
        await end_identity(identities, invocation, outcome_of(end.return_code, end.ended_as))
        return await result_of_process(invocation, end, source, limit)

    async def _follow(self, process: GroupProcess, invocation: Invocation, limit: timedelta) -> ProcessEnd:
        processes = self._processes[invocation.request.run]
        processes.add(process)
        try:
            asked = until_cancelled(invocation.request.cancel)
            return await supervise_process(process, limit=limit, asked_to_end=asked)
        finally:
            processes.discard(process)
            if not processes:
                self._processes.pop(invocation.request.run, None)

    def _command(self, invocation: Invocation, directory: Path) -> Command:
        script = os.path.relpath(invocation.hook.path, HOOKS)
        arguments = (*invocation.hook_run.interpreter.arguments, script, *invocation.request.arguments)
        facts = invocation_facts(invocation, self._hook_api)
        return Command(arguments=arguments, directory=directory / HOOKS, environment=invocation_environment(facts, self._host))

    async def _put_away(self, invocation: Invocation, directory: Path) -> None:
        request, worker = invocation.request, invocation.allocation.worker
        if not request.keep_workdir:
            await self._directories.remove(directory)
            return
        with suppress(OSError):
            kept = self._directories.keep(directory, hook=invocation.hook, worker=worker)
            text = f"kept the directory of {invocation.hook.name}: {kept}"
            request.journal.report(events.notice_event(text, job=request.job.name, worker=worker))


def broken_off_as(invocation: Invocation) -> InvocationOutcome:
    """Say why a task that was cancelled, or never came to its turn, did not end by itself."""
    asked = invocation.request.cancel.level >= CancelLevel.NOW
    return InvocationOutcome.CANCELLED if asked else InvocationOutcome.INTERRUPTED


async def end_identity(identities: Identities, invocation: Invocation, outcome: InvocationOutcome) -> None:
    """Revoke the token, also when this task is cancelled. What ended before stays ended as it was."""
    await asyncio.shield(asyncio.ensure_future(identities.end(invocation.begun.invocation_id, outcome)))


async def until_cancelled(cancel: CancelSignal) -> InvocationOutcome:
    """Wait until the run is to stop now."""
    await cancel.wait(CancelLevel.NOW)
    return InvocationOutcome.CANCELLED


async def result_of_process(invocation: Invocation, end: ProcessEnd, source: OutputSource, limit: timedelta) -> InvocationResult:
    """Turn the end of a process into a result; what did not succeed carries its last lines, masked."""
    outcome = outcome_of(end.return_code, end.ended_as)
    masked = invocation.request.journal.masked
    return InvocationResult(
        hook=invocation.hook.name,
        allocation_id=invocation.allocation.allocation_id,
        worker=invocation.allocation.worker,
        outcome=outcome,
        exit_code=shell_exit_code(end.return_code),
        duration=end.duration,
        message=sentence_of(outcome, end.return_code, limit) + sentence_of_survivor(end.left_running),
        last_lines=() if outcome is InvocationOutcome.SUCCEEDED else tail_lines(await masked(source.tail())),
        notices=tuple([await masked(notice) for notice in source.notices]),
    )


def result_without_process(
    invocation: Invocation, outcome: InvocationOutcome, *, message: str, exit_code: int = 0
) -> InvocationResult:
    """Make the result of an invocation of which no process ended by itself."""
    return InvocationResult(
        hook=invocation.hook.name,
        allocation_id=invocation.allocation.allocation_id,
        worker=invocation.allocation.worker,
        outcome=outcome,
        exit_code=exit_code,
        message=message,
    )


def invocation_facts(invocation: Invocation, hook_api: str) -> InvocationFacts:
    """Gather what the environment is made of."""
    request = invocation.request
    allowed = {name: request.hook_env[name] for name in request.config.hook_env if name in request.hook_env}
    return InvocationFacts(
        allocation=invocation.allocation,
        batch=invocation.batch,
        order=request.order,
        event=request.event,
        hook=invocation.hook.name,
        phase=request.phase,
        run_id=request.run.run_id,
        bucket_id=request.run.bucket_id,
        invocation_id=invocation.begun.invocation_id,
        job_path=job_directory(request.config, request.job.name),
        token=invocation.begun.token,
        hook_api=hook_api,
        traceparent=current_traceparent() or request.traceparent,
        lifecycle=request.lifecycle,
        hook_env=allowed,
    )


def live_invocation(invocation: Invocation) -> LiveInvocation:
    """Describe an invocation to the calls it will make."""
    request, allocation = invocation.request, invocation.allocation
    certificates = invocation.hook_run.content.certificates
    return LiveInvocation(
        invocation_id=invocation.begun.invocation_id,
        token=invocation.begun.token,
        bucket_id=request.run.bucket_id,
        run_id=request.run.run_id,
        job=request.job.name,
        allocation_id=allocation.allocation_id,
        worker=allocation.worker,
        hook=invocation.hook.name,
        event=request.event,
        workers=request.workers,
        remote=request.remote,
        config=request.config,
        certificates=Certificates(
            ca_certificate_pem=certificates.ca_certificate_pem, leaves=certificates.of(allocation.allocation_id)
        ),
    )
