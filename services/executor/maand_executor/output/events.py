"""Building run events: one function a kind, so that the work itself reads as sentences."""

from collections.abc import Iterable, Sequence
from datetime import timedelta

from maand_contracts.catalog.v1 import run_event_pb2 as pb
from maand_executor.rules.decisions import Action, PlannedAllocation

ACTIONS: dict[Action, "pb.AllocationAction.ValueType"] = {
    Action.SKIP: pb.ALLOCATION_ACTION_SKIP,
    Action.START: pb.ALLOCATION_ACTION_START,
    Action.RESTART: pb.ALLOCATION_ACTION_RESTART,
    Action.RELOAD: pb.ALLOCATION_ACTION_RELOAD,
    Action.SYNC: pb.ALLOCATION_ACTION_SYNC,
    Action.STOP: pb.ALLOCATION_ACTION_STOP,
    Action.RECORD: pb.ALLOCATION_ACTION_RECORD,
    Action.REMOVE: pb.ALLOCATION_ACTION_REMOVE,
    Action.REFUSE: pb.ALLOCATION_ACTION_SKIP,
    Action.UNDECIDED: pb.ALLOCATION_ACTION_UNDECIDED,
}


def new_event(*, job: str = "", worker: str = "") -> pb.RunEvent:
    """Begin an event that happens now."""
    made = pb.RunEvent(job=job, worker=worker)
    made.time.GetCurrentTime()
    return made


def run_started(*, executor_id: str, fence: int) -> pb.RunEvent:
    """Say that an executor began, or took over, the run."""
    made = new_event()
    made.run_started.CopyFrom(pb.RunStarted(executor_id=executor_id, fence=fence))
    return made


def wave_started(*, wave: int, waves: int, jobs: Sequence[str]) -> pb.RunEvent:
    """Say that a wave of jobs began."""
    made = new_event()
    made.wave_started.CopyFrom(pb.WaveStarted(wave=wave, waves=waves, jobs=jobs))
    return made


def job_planned(job: str, plans: Iterable[PlannedAllocation], *, may_change: bool = False, diffs: dict[str, str]) -> pb.RunEvent:
    """Say what a deploy will do; `diffs` by allocation id, in a dry run only."""
    made = new_event(job=job)
    made.job_planned.CopyFrom(
        pb.JobPlanned(
            allocations=[
                pb.PlannedAllocation(
                    worker=plan.allocation.worker,
                    action=ACTIONS[plan.action],
                    reason=plan.reason,
                    changed_paths=plan.changed_paths,
                    diff=diffs.get(plan.allocation.allocation_id, ""),
                )
                for plan in plans
            ],
            may_change=may_change,
        )
    )
    return made


def batch_started(*, job: str, phase: str, index: int, count: int, workers: Sequence[str], hook: str = "") -> pb.RunEvent:
    """Say that a batch began: of a lifecycle phase, of a command, or of one hook on the event `phase`."""
    made = new_event(job=job)
    made.batch_started.CopyFrom(pb.BatchStarted(phase=phase, hook=hook, index=index, count=count, workers=workers))
    return made


def step_started(*, job: str, worker: str, step: str) -> pb.RunEvent:
    """Say that a step began."""
    made = new_event(job=job, worker=worker)
    made.step_started.CopyFrom(pb.StepStarted(step=step))
    return made


def step_finished(
    *,
    job: str,
    worker: str,
    step: str,
    outcome: "pb.StepOutcome.ValueType",
    exit_code: int,
    duration: timedelta,
    message: str,
) -> pb.RunEvent:
    """Say that a step ended."""
    made = new_event(job=job, worker=worker)
    made.step_finished.CopyFrom(
        pb.StepFinished(
            step=step,
            outcome=outcome,
            exit_code=exit_code,
            duration_seconds=duration.total_seconds(),
            message=message,
        )
    )
    return made


def step_interrupted(*, worker: str, step: str, message: str, job: str = "") -> pb.RunEvent:
    """Say that nobody knows how a step ended: whoever carried it out died."""
    made = new_event(job=job, worker=worker)
    made.step_finished.CopyFrom(pb.StepFinished(step=step, outcome=pb.STEP_OUTCOME_INTERRUPTED, message=message))
    return made


def waiting_event(*, job: str, reason: str, limit: timedelta) -> pb.RunEvent:
    """Say that the run waits for something, at most that long."""
    made = new_event(job=job)
    made.waiting.reason = reason
    made.waiting.until.FromNanoseconds(made.time.ToNanoseconds() + int(limit.total_seconds() * 1_000_000_000))
    return made


def promoted_event(*, job: str, workers: Sequence[str], version: str) -> pb.RunEvent:
    """Say that a batch is done for good."""
    made = new_event(job=job)
    made.promoted.CopyFrom(pb.Promoted(workers=workers, version=version))
    return made


def job_finished(*, job: str, outcome: "pb.JobOutcome.ValueType", message: str) -> pb.RunEvent:
    """Say that a job ended."""
    made = new_event(job=job)
    made.job_finished.CopyFrom(pb.JobFinished(outcome=outcome, message=message))
    return made


def notice_event(text: str, *, job: str = "", worker: str = "", warning: bool = False) -> pb.RunEvent:
    """Tell something worth knowing."""
    made = new_event(job=job, worker=worker)
    level = pb.NOTICE_LEVEL_WARNING if warning else pb.NOTICE_LEVEL_INFO
    made.notice.CopyFrom(pb.Notice(level=level, text=text))
    return made


def worker_reported(worker: str, report: pb.WorkerReport) -> pb.RunEvent:
    """Say what a probe found on one worker."""
    made = new_event(worker=worker)
    made.worker_report.CopyFrom(report)
    return made
