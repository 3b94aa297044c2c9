"""How hooks ended, as the contract says it: to the run's failures, and between executors that share a batch."""

from collections.abc import Iterable, Mapping

from maand_contracts.catalog.v1 import run_event_pb2 as pb
from maand_contracts.catalog.v1.task_pb2 import WorkerOutcome
from maand_executor.rules.facts import Allocation, Hook, InvocationOutcome
from maand_executor.rules.hook_outcomes import InvocationResult

STEP_OUTCOMES: Mapping[InvocationOutcome, "pb.StepOutcome.ValueType"] = {
    InvocationOutcome.SUCCEEDED: pb.STEP_OUTCOME_SUCCEEDED,
    InvocationOutcome.FAILED: pb.STEP_OUTCOME_FAILED,
    InvocationOutcome.TIMED_OUT: pb.STEP_OUTCOME_TIMED_OUT,
    InvocationOutcome.CANCELLED: pb.STEP_OUTCOME_CANCELLED,
    InvocationOutcome.INTERRUPTED: pb.STEP_OUTCOME_CANCELLED,
}
OUTCOMES: Mapping[int, InvocationOutcome] = {
    pb.STEP_OUTCOME_SUCCEEDED: InvocationOutcome.SUCCEEDED,
    pb.STEP_OUTCOME_FAILED: InvocationOutcome.FAILED,
    pb.STEP_OUTCOME_TIMED_OUT: InvocationOutcome.TIMED_OUT,
    pb.STEP_OUTCOME_CANCELLED: InvocationOutcome.CANCELLED,
}
"""What is not here was interrupted."""
FAILURE_KINDS: Mapping[InvocationOutcome, "pb.FailureKind.ValueType"] = {
    InvocationOutcome.FAILED: pb.FAILURE_KIND_COMMAND,
    InvocationOutcome.TIMED_OUT: pb.FAILURE_KIND_TIMED_OUT,
    InvocationOutcome.INTERRUPTED: pb.FAILURE_KIND_COMMAND,
}
"""A cancel is no failure, but nothing well either: `EventOutcome.cancelled` tells."""


def failures_of(job: str, results: Iterable[InvocationResult]) -> list[pb.Failure]:
    """Return the run's failures for these results: one for each invocation that did not succeed and was not cancelled."""
    return [failure_of_hook(job, result) for result in results if result.outcome in FAILURE_KINDS]


def failure_of_hook(job: str, result: InvocationResult) -> pb.Failure:
    """Tell as a failure that an invocation did not succeed."""
    return pb.Failure(
        kind=FAILURE_KINDS.get(result.outcome, pb.FAILURE_KIND_UNSPECIFIED),
        job=job,
        worker=result.worker,
        step=result.hook,
        exit_code=result.exit_code,
        message=result.message,
        last_lines=result.last_lines,
    )


def outcome_from_result(job: str, result: InvocationResult) -> WorkerOutcome:
    """Tell the owner of the run how an invocation ended."""
    return WorkerOutcome(
        worker=result.worker,
        outcome=STEP_OUTCOMES[result.outcome],
        failure=None if result.ok else failure_of_hook(job, result),
        notices=result.notices,
    )


def result_from_outcome(hook: Hook, allocation: Allocation, outcome: WorkerOutcome) -> InvocationResult:
    """Read how an invocation ended."""
    failure = outcome.failure
    return InvocationResult(
        hook=hook.name,
        allocation_id=allocation.allocation_id,
        worker=allocation.worker,
        outcome=OUTCOMES.get(outcome.outcome, InvocationOutcome.INTERRUPTED),
        exit_code=failure.exit_code,
        message=failure.message,
        last_lines=tuple(failure.last_lines),
        notices=tuple(outcome.notices),
    )
