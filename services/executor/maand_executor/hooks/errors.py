"""What keeps hooks from being started at all.

RunFailed
  HookPrerequisiteMissing      kind PREREQUISITE: nothing of the event was started
    InterpreterMissing           no `python3` or `bun` for a script
    DependenciesNotInstalled     `requirements.txt` or `package.json` could not be installed
"""

from collections.abc import Sequence

from maand_contracts.catalog.v1 import run_event_pb2 as events_pb
from maand_executor.errors import RunFailed


class HookPrerequisiteMissing(RunFailed):
    """A hook cannot be started on this executor. Nothing of its event was started; the message says what is missing."""

    code = "hook_prerequisite_missing"
    kind = events_pb.FAILURE_KIND_PREREQUISITE


class InterpreterMissing(HookPrerequisiteMissing):
    """There is nothing to run a script with. Install it on the executor's host, or make it a dependency of the job's hooks."""

    code = "interpreter_missing"

    def __init__(self, program: str, *, job: str, hook: str) -> None:
        super().__init__(
            f"{program} is needed to run {hook} of {job}, and was found neither in _hooks/node_modules/.bin nor on PATH",
            help=f"install {program} on the executor's host, or add it to the dependencies in _hooks/package.json",
        )
        self.facts = {"program": program, "job": job, "hook": hook}


class DependenciesNotInstalled(HookPrerequisiteMissing):
    """The dependencies of a job's hooks could not be installed. The failure carries the installer's last words."""

    code = "dependencies_not_installed"

    def __init__(self, *, job: str, path: str, reason: str, last_lines: Sequence[str]) -> None:
        message = f"the dependencies of {job}'s hooks ({path}) could not be installed: {reason}"
        help_ = f"correct workspace/jobs/{job}/{path}, or see that the executor's host reaches the package index"
        failure = events_pb.Failure(kind=self.kind, job=job, message=message, help=help_, last_lines=last_lines)
        super().__init__(message, failures=[failure], help=help_)
        self.facts = {"job": job, "path": path}
