"""How a run ends: one table from what its work raised to the state that is recorded and the failures that are told."""

from collections.abc import Callable
from dataclasses import dataclass

import structlog

from maand_contracts.catalog.v1 import run_event_pb2 as pb
from maand_contracts.catalog.v1 import run_pb2
from maand_executor.errors import CLAIM_IS_OVER, ExecutorError, LeaseLost, OutcomeUnknown, RunCancelled, RunFailed, RunTimedOut
from maand_executor.rules.side_by_side import first_error
from maand_executor.ssh.errors import SshError
from maand_executor.steps.failures import failure_of_remote_error, failure_of_ssh_error
from maand_executor.steps.report import RunReport
from maand_wire.errors import RemoteError
from maand_wire.host_faults import HostFault, find_host_fault

log = structlog.get_logger("maand.executor")


@dataclass(frozen=True, kw_only=True)
class Ending:
    """What is recorded. `state` None: nothing, the run is another's."""

    state: "run_pb2.RunState.ValueType | None"

    @property
    def word(self) -> str:
        """The state in one word, for logs."""
        return "lost" if self.state is None else run_pb2.RunState.Name(self.state).removeprefix("RUN_STATE_").lower()


LOST = Ending(state=None)
FAILED = Ending(state=run_pb2.RUN_STATE_FAILED)
CANCELLED = Ending(state=run_pb2.RUN_STATE_CANCELLED)
SUCCEEDED = Ending(state=run_pb2.RUN_STATE_SUCCEEDED)
INTERRUPTED = Ending(state=run_pb2.RUN_STATE_INTERRUPTED)


def judge_ending(error: BaseException | None, report: RunReport) -> Ending:
    """Judge how the work ended, and complete the report. `error` None: it returned."""
    if error is None:
        return ending_by_report(report)
    if isinstance(error, BaseExceptionGroup):
        error = first_error(error)
    error = find_host_fault(error) or error
    for kind, judge in JUDGES:
        if isinstance(error, kind):
            return judge(error, report)
    return unexpected_failure(error, report)


def ending_by_report(report: RunReport) -> Ending:
    """Judge work that ended by itself."""
    if report.failures:
        return FAILED
    return CANCELLED if report.stopped_early else SUCCEEDED


def run_failed(error: RunFailed, report: RunReport) -> Ending:
    """Keep what the error carries."""
    report.message = str(error)
    report.fail(error.failures)
    report.problems.extend(error.problems)
    return FAILED


def run_cancelled(error: RunCancelled, report: RunReport) -> Ending:
    """Say that it was stopped; what had failed before stays in the report."""
    report.message = str(error)
    return CANCELLED


def outcome_unknown(error: OutcomeUnknown, report: RunReport) -> Ending:
    """Leave it to a person what to do with the rest."""
    report.message = str(error)
    return INTERRUPTED


def run_timed_out(error: RunTimedOut, report: RunReport) -> Ending:
    """Say that its own limit was over."""
    return end_as_failed(pb.FAILURE_KIND_TIMED_OUT, str(error), "", report)


def lease_lost(_: LeaseLost, __: RunReport) -> Ending:
    """Record nothing."""
    return LOST


def catalog_refused(error: RemoteError, report: RunReport) -> Ending:
    """Tell a lost run from a refused request and a catalog that is away."""
    if error.code in CLAIM_IS_OVER:
        return LOST
    failure = failure_of_remote_error(error)
    report.message = failure.message
    report.fail([failure])
    report.problems.extend(error.problems)
    return FAILED


def judge_refused_output(error: RemoteError, result: pb.RunResult) -> Ending:
    """Judge a run whose output or result the catalog refuses, whatever it did: another executor would meet the same.

    Raises the error when the run is lost, or the catalog is only away: then the next owner tells how it ended.
    """
    if error.code in CLAIM_IS_OVER or error.is_temporary:
        raise error
    failure = failure_of_remote_error(error)
    failure.message = f"the output of this run cannot be stored: {failure.message}"
    if failure not in result.failures:
        result.failures.append(failure)
    result.message = result.message or failure.message
    return FAILED


def ssh_failed(error: SshError, report: RunReport) -> Ending:
    """Say which worker, and why.

    This is also how a worker's refusal of an old fence ends a run. Where another executor did take the run over, the catalog
    refuses to record it, and nothing is said in that one's name.
    """
    report.message = str(error)
    report.fail([failure_of_ssh_error(error, worker=error.worker, step="")])
    return FAILED


def executor_failed(error: ExecutorError, report: RunReport) -> Ending:
    """Say what went wrong."""
    return end_as_failed(pb.FAILURE_KIND_COMMAND, str(error), error.help, report)


def host_failed(error: HostFault, report: RunReport) -> Ending:
    """Say what the machine of this executor refused."""
    return end_as_failed(pb.FAILURE_KIND_LOCAL, str(error), error.help, report)


def unexpected_failure(error: BaseException, report: RunReport) -> Ending:
    """Keep the traceback in the log; people are told where to look."""
    log.error("run failed unexpectedly", exc_info=error)
    help_ = "look at `maand services logs`, and tell the maintainers"
    return end_as_failed(pb.FAILURE_KIND_INTERNAL, accident_message(error), help_, report)


def accident_message(error: BaseException) -> str:
    """Say that maand itself failed."""
    return f"maand itself failed ({type(error).__name__}); the executor's log knows more"


def end_as_failed(
    kind: "pb.FailureKind.ValueType",
    message: str,
    help: str,  # noqa: A002 - the contract's word
    report: RunReport,
) -> Ending:
    """Add one failure that ended the run."""
    report.message = message
    report.fail([pb.Failure(kind=kind, message=message, help=help)])
    return FAILED


Judge = Callable[..., Ending]
JUDGES: tuple[tuple[type[BaseException], Judge], ...] = (
    (LeaseLost, lease_lost),
    (RunCancelled, run_cancelled),
    (RunTimedOut, run_timed_out),
    (OutcomeUnknown, outcome_unknown),
    (RunFailed, run_failed),
    (RemoteError, catalog_refused),
    (SshError, ssh_failed),
    (ExecutorError, executor_failed),
    (HostFault, host_failed),
)
"""The first class that fits."""
