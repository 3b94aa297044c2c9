"""What is recorded for each way a run's work may end."""

import grpc
import pytest

from maand_contracts.catalog.v1 import run_event_pb2 as pb
from maand_contracts.common.v1 import error_pb2
from maand_executor.claims.run_endings import FAILED, INTERRUPTED, judge_ending
from maand_executor.errors import (
    InvalidRequest,
    LeaseLost,
    NotBuilt,
    OutcomeUnknown,
    RunCancelled,
    RunFailed,
    RunTimedOut,
    TemplateError,
)
from maand_executor.ssh.errors import AuthenticationRefused, StaleFence, WorkerUnreachable
from maand_executor.steps.report import RunReport
from maand_wire.errors import RemoteError

STATUS = grpc.StatusCode


@pytest.mark.parametrize(
    ("error", "word", "kind"),
    [
        (RunFailed("no"), "failed", pb.FAILURE_KIND_COMMAND),
        (InvalidRequest("no"), "failed", pb.FAILURE_KIND_INVALID),
        (NotBuilt("no"), "failed", pb.FAILURE_KIND_INVALID),
        (RunTimedOut("slow"), "failed", pb.FAILURE_KIND_TIMED_OUT),
        (WorkerUnreachable("w", "gone"), "failed", pb.FAILURE_KIND_UNREACHABLE),
        (AuthenticationRefused("w", "no"), "failed", pb.FAILURE_KIND_AUTHENTICATION),
        (RemoteError(STATUS.INVALID_ARGUMENT, "wrong"), "failed", pb.FAILURE_KIND_INVALID),
        (RemoteError(STATUS.UNAVAILABLE, "away"), "failed", pb.FAILURE_KIND_INTERNAL),
        (TemplateError("x", job="api", path="a.j2", line=1, worker="w"), "failed", pb.FAILURE_KIND_COMMAND),
        (ZeroDivisionError("x"), "failed", pb.FAILURE_KIND_INTERNAL),
        (ExceptionGroup("several", [InvalidRequest("no"), ValueError()]), "failed", pb.FAILURE_KIND_INVALID),
    ],
)
def test_an_error_becomes_a_failed_run_of_its_kind(
    error: Exception, word: str, kind: int, capsys: pytest.CaptureFixture[str]
) -> None:
    report = RunReport()
    assert judge_ending(error, report).word == word
    assert [failure.kind for failure in report.result().failures] == [kind]
    assert report.result().message


@pytest.mark.parametrize(
    "error",
    [
        LeaseLost("gone"),
        RemoteError(STATUS.FAILED_PRECONDITION, "x", code="stale_fence"),
        RemoteError(STATUS.FAILED_PRECONDITION, "x", code="run_ended"),
    ],
)
def test_a_run_that_is_another_s_is_let_go_without_a_word(error: Exception) -> None:
    assert judge_ending(error, RunReport()).state is None


def test_a_worker_that_refuses_an_old_fence_ends_the_run_as_failed_with_the_remedy() -> None:
    report = RunReport()
    assert judge_ending(StaleFence("w", "refused: run 6 was here"), report) == FAILED
    (failure,) = report.result().failures
    assert (failure.worker, failure.message) == ("w", "refused: run 6 was here")
    assert "maand-catalog new-epoch" in failure.help


def test_a_command_whose_end_is_unknown_leaves_the_run_interrupted() -> None:
    report = RunReport()
    assert judge_ending(OutcomeUnknown("unknown on w"), report) == INTERRUPTED
    assert report.result().message == "unknown on w"


def test_an_unexpected_error_is_not_shown_to_people(capsys: pytest.CaptureFixture[str]) -> None:
    report = RunReport()
    judge_ending(KeyError("hunter2"), report)
    assert "hunter2" not in str(report.result())


def test_work_that_returns_succeeds_unless_it_reported_failures_or_a_stop() -> None:
    good, bad, stopped = RunReport(), RunReport(), RunReport()
    bad.fail([pb.Failure(message="x")])
    stopped.stopped_early = True
    assert [judge_ending(None, report).word for report in (good, bad, stopped)] == ["succeeded", "failed", "cancelled"]


def test_a_cancelled_run_keeps_what_failed_before() -> None:
    report = RunReport()
    report.fail([pb.Failure(message="earlier")])
    assert judge_ending(RunCancelled("stopped"), report).word == "cancelled"
    assert [failure.message for failure in report.result().failures] == ["earlier"]


def test_problems_of_a_wrong_workspace_reach_the_result() -> None:
    report = RunReport()
    problem = error_pb2.Problem(code="unknown_key", message="x", file="workspace/jobs/api/manifest.json", line=4)
    judge_ending(RunFailed("2 problems", problems=[problem]), report)
    assert list(report.result().problems) == [problem]


def test_a_report_tells_each_notice_once_and_no_empty_counts() -> None:
    report = RunReport()
    report.note("twice")
    report.note("twice")
    report.count("promoted", 2)
    report.count("failed", 0)
    assert list(report.result().notices) == ["twice"]
    assert dict(report.result().counts) == {"promoted": 2}
