"""Reading a RunSpec: its kind, whether it only looks, and what it must name."""

from maand_catalog.errors import InvalidArgument, LimitExceeded
from maand_catalog.rules.run_kinds import RunKind, holds_bucket
from maand_catalog.rules.runs import Run
from maand_contracts.catalog.v1 import run_spec_pb2 as pb

LARGEST_SPEC = 1024 * 1024
"""Bytes of a spec: a list of 10,000 workers takes some 200 KiB."""

REQUIRED_TEXTS = {
    RunKind.BUILD: ("snapshot_id",),
    RunKind.HOOKS: ("hook",),
    RunKind.RUN_COMMAND: ("command",),
    RunKind.JOB_CONTROL: ("job",),
}
REQUIRED_CHOICES = {RunKind.JOB_CONTROL: "action", RunKind.WORKER_PROBE: "probe"}


def kind_of(spec: pb.RunSpec) -> RunKind:
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
    if kind is RunKind.JOB_CONTROL and spec.job_control.action == pb.JOB_ACTION_RUN and not spec.job_control.target:
        raise InvalidArgument("running a make target needs target", facts={"field": "job_control.target"})
    return kind


def spec_holds_bucket(spec: pb.RunSpec) -> bool:
    """Whether a run of this spec keeps other exclusive runs out."""
    only_looks = spec.deploy.dry_run or spec.job_control.action == pb.JOB_ACTION_STATUS
    return holds_bucket(kind_of(spec), only_looks=only_looks)


def spec_to_resume(run: Run, *, again: bool) -> bytes:
    """Return the spec under which an interrupted run goes on; InvalidArgument when `again` makes no sense for its kind."""
    if run.kind is not RunKind.RUN_COMMAND:
        if again:
            raise InvalidArgument(
                f"a {run.kind} run repeats nothing that ended; `again` is for run_command", facts={"field": "again"}
            )
        return run.spec
    spec = pb.RunSpec.FromString(run.spec)
    spec.run_command.again = again
    return spec.SerializeToString(deterministic=True)
