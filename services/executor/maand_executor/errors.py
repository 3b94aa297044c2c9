"""Errors of the executor's own work; what happens on a worker or in a hook is a `Failure` of the run, not an exception.

ExecutorError
  RunFailed            the run cannot go on: ends it as failed, with the failures it carries
    InvalidRequest       what was asked makes no sense
    NotBuilt             nothing was ever built
  CannotRender         what goes to a worker cannot be made: ends the job
    TemplateError        a template cannot be rendered
    PathClash            two sources make the same file
  LeaseLost            another executor may own the run now: stop everything, record nothing
  OutcomeUnknown       a resumed run knows not how all of it ended: it stays interrupted
  RunCancelled         asked to stop, and stopped
    JobCancelled         the same, one job of a run: the run may have others to finish
  RunTimedOut          took longer than its own limit
"""

from collections.abc import Mapping, Sequence

from maand_contracts.catalog.v1 import run_event_pb2 as events_pb
from maand_contracts.common.v1 import error_pb2


class ExecutorError(Exception):
    """Something the executor was doing went wrong. The message says what."""

    code = "executor_error"
    help = ""
    facts: Mapping[str, str] = {}


class RunFailed(ExecutorError):
    """The run ends as failed. What had succeeded stays; the failures say what to mend."""

    code = "run_failed"
    kind = events_pb.FAILURE_KIND_COMMAND

    def __init__(
        self,
        message: str,
        *,
        failures: Sequence[events_pb.Failure] = (),
        problems: Sequence[error_pb2.Problem] = (),
        help: str = "",  # noqa: A002 - the contract's word
    ) -> None:
        super().__init__(message)
        self.help = help or self.help
        self.failures = tuple(failures) or (events_pb.Failure(kind=self.kind, message=message, help=self.help),)
        self.problems = tuple(problems)


class InvalidRequest(RunFailed):
    """What was asked makes no sense for this bucket. Correct the name or the flag; nothing was done."""

    code = "invalid_request"
    kind = events_pb.FAILURE_KIND_INVALID


class NotBuilt(RunFailed):
    """Nothing was ever built in this bucket. Run `maand build` first."""

    code = "not_built"
    kind = events_pb.FAILURE_KIND_INVALID
    help = "run `maand build` first"


class CannotRender(ExecutorError):
    """What goes to a worker cannot be put together. The message says which file is wrong; nothing of the job was copied."""

    code = "cannot_render"


class TemplateError(CannotRender):
    """A template cannot be rendered. The message names file and, where it is known, line; nothing of the job was copied."""

    code = "template_error"

    def __init__(self, message: str, *, job: str, path: str, line: int, worker: str) -> None:
        place = f"workspace/jobs/{job}/{path}" + (f":{line}" if line else "")
        super().__init__(f"{place}: {message} (rendering for {worker})")
        self.reason = message
        self.facts = {"job": job, "path": path, "line": str(line), "worker": worker}


CLAIM_IS_OVER = frozenset({"stale_fence", "run_ended"})
"""Codes with which the catalog refuses a claim that is over: the run has another owner, or has ended."""


class LeaseLost(ExecutorError):
    """The lease of a run could not be kept. Another executor continues it; this one records nothing more."""

    code = "lease_lost"


class RunCancelled(ExecutorError):
    """The run was asked to stop, and stopped. What had succeeded stays."""

    code = "run_cancelled"


class JobCancelled(RunCancelled):
    """The work on one job stopped because the run was asked to stop. What had succeeded stays."""

    code = "job_cancelled"


class RunTimedOut(ExecutorError):
    """The run took longer than the limit it was given. What had succeeded stays; ask for more time, or for less work."""

    code = "run_timed_out"


class OutcomeUnknown(ExecutorError):
    """A command began on a worker before its run was interrupted, and its end is not known. Look there, then say what to do."""

    code = "outcome_unknown"
