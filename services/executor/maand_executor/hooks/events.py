"""What hooks add to the run's events."""

from maand_contracts.catalog.v1 import run_event_pb2 as pb
from maand_executor.rules.facts import InvocationOutcome
from maand_executor.rules.hook_outcomes import InvocationResult
from maand_executor.rules.waves import Batch

STEP_OUTCOMES: dict[InvocationOutcome, "pb.StepOutcome.ValueType"] = {
    InvocationOutcome.SUCCEEDED: pb.STEP_OUTCOME_SUCCEEDED,
    InvocationOutcome.FAILED: pb.STEP_OUTCOME_FAILED,
    InvocationOutcome.TIMED_OUT: pb.STEP_OUTCOME_TIMED_OUT,
    InvocationOutcome.CANCELLED: pb.STEP_OUTCOME_CANCELLED,
    InvocationOutcome.INTERRUPTED: pb.STEP_OUTCOME_CANCELLED,
}

FAILURE_KINDS: dict[InvocationOutcome, "pb.FailureKind.ValueType"] = {
    InvocationOutcome.FAILED: pb.FAILURE_KIND_COMMAND,
    InvocationOutcome.TIMED_OUT: pb.FAILURE_KIND_TIMED_OUT,
}


def batch_started(job: str, event: str, hook: str, batch: Batch) -> pb.RunEvent:
    """Say that a batch of one hook begins."""
    started = pb.BatchStarted(phase=event, hook=hook, index=batch.index, count=batch.count, workers=batch.workers)
    return pb.RunEvent(job=job, batch_started=started)


def step_started(job: str, worker: str, hook: str) -> pb.RunEvent:
    """Say that a hook process is about to start."""
    return pb.RunEvent(job=job, worker=worker, step_started=pb.StepStarted(step=hook))


def step_finished(job: str, result: InvocationResult) -> pb.RunEvent:
    """Say how a hook process ended."""
    finished = pb.StepFinished(
        step=result.hook,
        outcome=STEP_OUTCOMES[result.outcome],
        exit_code=result.exit_code,
        duration_seconds=result.duration.total_seconds(),
        message=result.message,
    )
    return pb.RunEvent(job=job, worker=result.worker, step_finished=finished)


def notice(job: str, worker: str, text: str) -> pb.RunEvent:
    """Tell something worth knowing."""
    return pb.RunEvent(job=job, worker=worker, notice=pb.Notice(level=pb.NOTICE_LEVEL_INFO, text=text))


def failures_of(job: str, results: tuple[InvocationResult, ...]) -> list[pb.Failure]:
    """Return the run's failures for these results: one per failed allocation; what maand itself ended for a cancel is none."""
    return [
        pb.Failure(
            kind=FAILURE_KINDS[result.outcome],
            job=job,
            worker=result.worker,
            step=result.hook,
            exit_code=result.exit_code,
            message=result.message,
            last_lines=result.last_lines,
        )
        for result in results
        if result.outcome in FAILURE_KINDS
    ]
