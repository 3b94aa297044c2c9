"""Runs as the contract's messages."""

from datetime import datetime

from google.protobuf.timestamp_pb2 import Timestamp

from maand_catalog.errors import InvalidArgument
from maand_catalog.rules.runs import CancelLevel, Run, RunState, WorkerFence
from maand_contracts.catalog.v1 import run_event_pb2, run_spec_pb2
from maand_contracts.catalog.v1 import run_pb2 as pb

STATES: dict[RunState, pb.RunState.ValueType] = {
    RunState.PENDING: pb.RUN_STATE_PENDING,
    RunState.RUNNING: pb.RUN_STATE_RUNNING,
    RunState.SUCCEEDED: pb.RUN_STATE_SUCCEEDED,
    RunState.FAILED: pb.RUN_STATE_FAILED,
    RunState.CANCELLED: pb.RUN_STATE_CANCELLED,
    RunState.INTERRUPTED: pb.RUN_STATE_INTERRUPTED,
}
STATE_BY_NUMBER: dict[int, RunState] = {number: state for state, number in STATES.items()}

CANCEL_LEVELS: dict[CancelLevel, pb.CancelLevel.ValueType] = {
    CancelLevel.NONE: pb.CANCEL_LEVEL_UNSPECIFIED,
    CancelLevel.AFTER_BATCH: pb.CANCEL_LEVEL_AFTER_BATCH,
    CancelLevel.NOW: pb.CANCEL_LEVEL_NOW,
}


def timestamp(moment: datetime | None) -> Timestamp | None:
    """Return the contract's time; None stays unset."""
    if moment is None:
        return None
    stamp = Timestamp()
    stamp.FromDatetime(moment)
    return stamp


def state_from(number: int, field: str) -> RunState:
    """Read a state; InvalidArgument for none or an unknown one."""
    state = STATE_BY_NUMBER.get(number)
    if state is None:
        raise InvalidArgument(f"{field} names no state", facts={"field": field})
    return state


def to_message(run: Run, now: datetime) -> pb.Run:
    """Describe a run as readers see it at a moment."""
    return pb.Run(
        run_id=run.run_id,
        bucket_id=run.bucket_id,
        seq=run.seq,
        kind=run.kind,
        spec=run_spec_pb2.RunSpec.FromString(run.spec),
        state=STATES[run.state_at(now)],
        message=run.message,
        requested_by=run.requested_by,
        created_at=timestamp(run.created_at),
        started_at=timestamp(run.started_at),
        finished_at=timestamp(run.finished_at),
        executor_id=run.executor_id,
        fence=run.fence,
        cancel=CANCEL_LEVELS[run.cancel],
        last_sequence=run.last_sequence,
        result=run_event_pb2.RunResult.FromString(run.result) if run.has_ended else None,
        parent_run_id=run.parent_run_id,
        traceparent=run.traceparent,
    )


def fence_message(fence: WorkerFence | None) -> pb.WorkerFence | None:
    """Return what commands carry to workers; None stays unset."""
    return None if fence is None else pb.WorkerFence(epoch=fence.epoch, seq=fence.seq, fence=fence.fence)
