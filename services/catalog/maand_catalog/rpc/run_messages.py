"""Runs as the contract's messages, and their specs: the kind, whether it only looks, what it must name."""

from datetime import datetime

from google.protobuf.timestamp_pb2 import Timestamp

from maand_catalog.errors import InvalidArgument, LimitExceeded
from maand_catalog.rules.runs import CancelLevel, Run, RunKind, RunState, WorkerFence, holds_bucket
from maand_contracts.catalog.v1 import run_event_pb2, run_spec_pb2
from maand_contracts.catalog.v1 import run_pb2 as pb
from maand_wire.conversions import message_writer

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


def to_timestamp(moment: datetime | None) -> Timestamp | None:
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


describe_run = message_writer(
    pb.Run,
    Run,
    spec=lambda run: run_spec_pb2.RunSpec.FromString(run.spec),
    cancel=lambda run: CANCEL_LEVELS[run.cancel],
    result=lambda run: run_event_pb2.RunResult.FromString(run.result) if run.has_ended else None,
)


def run_message(run: Run, now: datetime) -> pb.Run:
    """Describe a run as readers see it at a moment."""
    message = describe_run(run)
    message.state = STATES[run.state_at(now)]
    return message


def fence_message(fence: WorkerFence | None) -> pb.WorkerFence | None:
    """Return what commands carry to workers; None stays unset."""
    return None if fence is None else pb.WorkerFence(epoch=fence.epoch, seq=fence.seq, fence=fence.fence)


LARGEST_SPEC = 1024 * 1024
"""Bytes of a spec: a list of 10,000 workers takes some 200 KiB."""

REQUIRED_TEXTS = {
    RunKind.BUILD: ("snapshot_id",),
    RunKind.HOOKS: ("hook",),
    RunKind.RUN_COMMAND: ("command",),
    RunKind.JOB_CONTROL: ("job",),
}
REQUIRED_CHOICES = {RunKind.JOB_CONTROL: "action", RunKind.WORKER_PROBE: "probe"}


def kind_of(spec: run_spec_pb2.RunSpec) -> RunKind:
    """Return the kind of a spec that names everything it must; InvalidArgument otherwise."""
    name = spec.WhichOneof("spec")
    if name is None:
        raise InvalidArgument("the spec names no operation", facts={"field": "spec"})
    if spec.ByteSize() > LARGEST_SPEC:
        raise LimitExceeded(f"the spec is larger than {LARGEST_SPEC // 1024} KiB", facts={"field": "spec"})
    kind = RunKind(name)
    asked = getattr(spec, name)
    for field in REQUIRED_TEXTS.get(kind, ()):
        if not getattr(asked, field):
            raise InvalidArgument(f"a {kind} run needs {field}", facts={"field": f"{name}.{field}"})
    choice = REQUIRED_CHOICES.get(kind)
    if choice and not getattr(asked, choice):
        raise InvalidArgument(f"a {kind} run needs {choice}", facts={"field": f"{name}.{choice}"})
    if kind is RunKind.JOB_CONTROL and spec.job_control.action == run_spec_pb2.JOB_ACTION_RUN:
        check_make_target(spec.job_control.target)
    return kind


def check_make_target(target: str) -> None:
    """Refuse what is no target: make takes `-n` for an option and `SHELL=…` for a variable. InvalidArgument."""
    facts = {"field": "job_control.target"}
    if not target:
        raise InvalidArgument("running a make target needs target", facts=facts)
    if target.startswith("-") or "=" in target or not target.isprintable():
        raise InvalidArgument(f"{target!r} is not a make target", help="name a rule of the job's Makefile", facts=facts)


def spec_holds_bucket(spec: run_spec_pb2.RunSpec) -> bool:
    """Whether a run of this spec keeps other exclusive runs out."""
    kind = kind_of(spec)
    only_looks = {
        RunKind.DEPLOY: spec.deploy.dry_run,
        RunKind.JOB_CONTROL: spec.job_control.action == run_spec_pb2.JOB_ACTION_STATUS,
        RunKind.WORKER_PROBE: not adopts_workers(spec),
    }
    return holds_bucket(kind, only_looks=only_looks.get(kind, False))


def adopts_workers(spec: run_spec_pb2.RunSpec) -> bool:
    """Whether a run makes workers the bucket's."""
    return spec.worker_probe.probe == run_spec_pb2.WORKER_PROBE_OWNER and spec.worker_probe.adopt


def spec_to_resume(run: Run, *, again: bool) -> bytes:
    """Return the spec under which an interrupted run goes on; InvalidArgument when `again` makes no sense for its kind."""
    if run.kind is not RunKind.RUN_COMMAND:
        if again:
            raise InvalidArgument(
                f"a {run.kind} run repeats nothing that ended; `again` is for run_command", facts={"field": "again"}
            )
        return run.spec
    spec = run_spec_pb2.RunSpec.FromString(run.spec)
    spec.run_command.again = again
    return spec.SerializeToString(deterministic=True)
