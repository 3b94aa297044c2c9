"""Events and results with good defaults."""

from datetime import UTC, datetime, timedelta
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from maand_contracts.catalog.v1 import run_event_pb2 as events

BEGAN = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


def at(seconds: float) -> datetime:
    """Return the moment that many seconds after the beginning."""
    return BEGAN + timedelta(seconds=seconds)


def event(*, job: str = "", worker: str = "", seconds: float = 0, sequence: int = 0, **what: Any) -> events.RunEvent:
    """Make an event; `what` is the one thing that happened."""
    time = Timestamp()
    time.FromDatetime(at(seconds))
    return events.RunEvent(sequence=sequence, time=time, job=job, worker=worker, **what)


def output(text: str, *, job: str = "api", worker: str = "10.0.0.1", **fields: Any) -> events.RunEvent:
    """Make an output event of these lines."""
    return event(job=job, worker=worker, output=events.Output(lines=text.split("\n")), **fields)


def started(step: str, *, job: str = "api", worker: str = "10.0.0.1", **fields: Any) -> events.RunEvent:
    """Make a step-started event."""
    return event(job=job, worker=worker, step_started=events.StepStarted(step=step), **fields)


def finished(
    step: str, outcome: str = "succeeded", *, job: str = "api", worker: str = "10.0.0.1", seconds: float = 0, **details: Any
) -> events.RunEvent:
    """Make a step-finished event."""
    value = events.StepOutcome.Value(f"STEP_OUTCOME_{outcome.upper()}")
    return event(job=job, worker=worker, seconds=seconds, step_finished=events.StepFinished(step=step, outcome=value, **details))


def planned(job: str, may_change: bool = False, **actions: str) -> events.RunEvent:
    """Make a plan: `w1="restart"` is 10.0.0.1."""
    allocations = [
        events.PlannedAllocation(
            worker=f"10.0.0.{name[1:]}",
            action=events.AllocationAction.Value(f"ALLOCATION_ACTION_{action.upper()}"),
            reason="files changed" if action != "skip" else "nothing changed",
            changed_paths=["app.conf"] if action != "skip" else [],
            diff="-old\n+new\n" if action != "skip" else "",
        )
        for name, action in actions.items()
    ]
    return event(job=job, job_planned=events.JobPlanned(allocations=allocations, may_change=may_change))


def failure(kind: str, **fields: Any) -> events.Failure:
    """Make a failure."""
    return events.Failure(kind=events.FailureKind.Value(f"FAILURE_KIND_{kind.upper()}"), **fields)
