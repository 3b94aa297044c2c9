"""One step of one allocation: announced, timed, its end told, and its failure turned into a fact instead of an exception.

work() -> CommandEnd  |  raises an SSH error  |  is cancelled
          --run_step--> StepResult (succeeded, failed, timed out, unreachable), events before and after
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Self

from maand_contracts.catalog.v1 import run_event_pb2 as pb
from maand_contracts.catalog.v1.task_pb2 import WorkerOutcome
from maand_executor.output import events
from maand_executor.rules.facts import Worker
from maand_executor.rules.output_lines import tail_lines
from maand_executor.rules.remote_commands import RemoteCommand, RemoteResult
from maand_executor.ssh.errors import SshError, StaleFence
from maand_executor.steps.context import RunContext
from maand_executor.steps.failures import kind_of_ssh_error, outcome_of_failure
from maand_wire.host_faults import find_host_fault
from maand_wire.tracing import child_span


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """How one step ended."""

    job: str
    worker: str
    step: str
    outcome: "pb.StepOutcome.ValueType" = pb.STEP_OUTCOME_SUCCEEDED
    kind: "pb.FailureKind.ValueType" = pb.FAILURE_KIND_UNSPECIFIED
    exit_code: int = 0
    message: str = ""
    help: str = ""
    last_lines: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether it did what it should."""
        return self.outcome == pb.STEP_OUTCOME_SUCCEEDED

    def ended_as(
        self,
        outcome: "pb.StepOutcome.ValueType",
        message: str,
        *,
        kind: "pb.FailureKind.ValueType" = pb.FAILURE_KIND_COMMAND,
        exit_code: int = 0,
        help: str = "",  # noqa: A002 - the contract's word
        said: tuple[str, ...] = (),
    ) -> Self:
        """Return the step with its end."""
        return replace(self, outcome=outcome, kind=kind, exit_code=exit_code, message=message, help=help, last_lines=said)

    def failure(self) -> pb.Failure:
        """Tell it as a failure of the run."""
        return pb.Failure(
            kind=self.kind,
            job=self.job,
            worker=self.worker,
            step=self.step,
            exit_code=self.exit_code,
            message=self.message,
            help=self.help,
            last_lines=self.last_lines,
        )

    def worker_outcome(self) -> WorkerOutcome:
        """Tell it as the outcome of a worker in wide work."""
        return WorkerOutcome(worker=self.worker, outcome=self.outcome, failure=None if self.ok else self.failure())


async def run_step(context: RunContext, subject: StepResult, work: Callable[[], Awaitable[StepResult]]) -> StepResult:
    """Carry out one step and tell its beginning and end. `subject` names it; `work` returns how it ended."""
    context.lease.check()
    context.journal.report(events.step_started(job=subject.job, worker=subject.worker, step=subject.step))
    with child_span(f"step {subject.step}", job=subject.job, worker=subject.worker) as span:
        result = await time_step(context, subject, work)
        span.set(outcome=word_of(result.outcome), exit_code=result.exit_code)
        if not result.ok:
            span.fail(word_of(result.outcome))
    return result


async def time_step(context: RunContext, subject: StepResult, work: Callable[[], Awaitable[StepResult]]) -> StepResult:
    """Do the work of a step and tell its end."""
    began = time.monotonic()
    try:
        result = await work()
    except StaleFence as error:
        report_step_end(context, refused_step(subject, error), began)
        raise  # whoever was there before, this claim must change nothing more, on no worker
    except SshError as error:
        result = refused_step(subject, error)
    except Exception as error:  # noqa: BLE001 - raised again unless it is this machine's
        result = step_without_room(subject, error)
    except asyncio.CancelledError:
        report_step_end(context, subject.ended_as(pb.STEP_OUTCOME_CANCELLED, "ended because the run was stopped"), began)
        raise
    report_step_end(context, result, began)
    return result


async def nothing_before() -> None:
    """Begin at once."""


async def remote_step(
    context: RunContext,
    *,
    job: str,
    worker: Worker,
    step: str,
    command: RemoteCommand,
    name: str = "",
    before: Callable[[], Awaitable[None]] = nothing_before,
) -> StepResult:
    """Run one command on a worker as a step, its output live. `name` is what a failure calls it; empty = the step.

    `before` is done as part of the step, right before the command is sent; an SSH error of it is the step's.
    """
    subject = StepResult(job=job, worker=worker.name, step=step)

    async def work() -> StepResult:
        output = context.journal.source(job=job, worker=worker.name, step=step)
        try:
            await before()
            result = await context.remote.run(worker, command, on_output=output.write)
        finally:
            output.close()
        said = () if result.exit_code == 0 else tail_lines(await context.journal.masked(output.tail()))
        return judge_command(subject, result, command.timeout, said=said, name=name or step)

    return await run_step(context, subject, work)


def judge_command(
    subject: StepResult, result: RemoteResult, limit: timedelta | None, *, said: tuple[str, ...], name: str
) -> StepResult:
    """Say how a command ended."""
    if result.timed_out:
        message = f"{name} timed out after {limit.total_seconds():g} s" if limit else f"{name} timed out"
        if not result.end_known:
            message += "; it was told to end and did not say that it has: look there before it is begun again"
        return subject.ended_as(
            pb.STEP_OUTCOME_TIMED_OUT, message, kind=pb.FAILURE_KIND_TIMED_OUT, exit_code=result.exit_code, said=said
        )
    if result.exit_code:
        message = f"{name} ended with exit code {result.exit_code}"
        return subject.ended_as(
            pb.STEP_OUTCOME_FAILED, message, kind=pb.FAILURE_KIND_COMMAND, exit_code=result.exit_code, said=said
        )
    return subject


def refused_step(subject: StepResult, error: SshError) -> StepResult:
    """Say that the worker could not be reached, or did not let maand do it."""
    kind = kind_of_ssh_error(error)
    return subject.ended_as(outcome_of_failure(kind), error.reason_on(subject.worker), kind=kind, help=error.help)


def step_without_room(subject: StepResult, error: Exception) -> StepResult:
    """Say what the machine of this executor refused: one step's failure, and no worker's fault. Raises any other error."""
    fault = find_host_fault(error)
    if fault is None:
        raise error
    return subject.ended_as(pb.STEP_OUTCOME_FAILED, str(fault), kind=pb.FAILURE_KIND_LOCAL, help=fault.help)


def report_step_end(context: RunContext, result: StepResult, began: float) -> None:
    """Report the end of a step."""
    seconds = time.monotonic() - began
    context.meter.step_ended(context.kind, result.step, word_of(result.outcome), seconds)
    context.journal.report(
        events.step_finished(
            job=result.job,
            worker=result.worker,
            step=result.step,
            outcome=result.outcome,
            exit_code=result.exit_code,
            duration=timedelta(seconds=seconds),
            message=result.message,
        )
    )


def word_of(outcome: "pb.StepOutcome.ValueType") -> str:
    """Return an outcome as one word, for metrics and traces."""
    return pb.StepOutcome.Name(outcome).removeprefix("STEP_OUTCOME_").lower()
