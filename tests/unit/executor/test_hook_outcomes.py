"""Outcomes: of a process, an invocation, an event."""

from datetime import timedelta

import pytest

from maand_contracts.catalog.v1 import run_event_pb2 as pb
from maand_executor.hooks.outcome_messages import failures_of
from maand_executor.rules.facts import InvocationOutcome
from maand_executor.rules.hook_outcomes import EventOutcome, InvocationResult, outcome_of, sentence_of, shell_exit_code

OK, FAILED, TIMED_OUT = InvocationOutcome.SUCCEEDED, InvocationOutcome.FAILED, InvocationOutcome.TIMED_OUT
CANCELLED, INTERRUPTED = InvocationOutcome.CANCELLED, InvocationOutcome.INTERRUPTED


def result(worker: str, *lines: str, outcome: InvocationOutcome = FAILED, exit_code: int = 1) -> InvocationResult:
    return InvocationResult(
        hook="hook_x",
        allocation_id=f"id of {worker}",
        worker=worker,
        outcome=outcome,
        exit_code=exit_code,
        message=f"exit code {exit_code}",
        last_lines=lines,
    )


@pytest.mark.parametrize(
    ("return_code", "ended_as", "outcome", "exit_code", "sentence"),
    [
        (0, None, OK, 0, ""),
        (3, None, FAILED, 3, "exit code 3"),
        (-11, None, FAILED, 139, "ended by SIGSEGV"),
        (-9, None, FAILED, 137, "ended by SIGKILL"),
        (-40, None, FAILED, 168, "ended by signal 40"),
        (-15, TIMED_OUT, TIMED_OUT, 143, "timed out after 2.5 s"),
        (0, TIMED_OUT, TIMED_OUT, 0, "timed out after 2.5 s"),
        (-15, CANCELLED, CANCELLED, 143, "ended because the run was cancelled"),
        (-9, INTERRUPTED, INTERRUPTED, 137, "ended because its executor stopped"),
    ],
)
def test_every_way_to_end_has_an_outcome_an_exit_code_and_a_sentence(
    return_code: int, ended_as: InvocationOutcome | None, outcome: InvocationOutcome, exit_code: int, sentence: str
) -> None:
    assert outcome_of(return_code, ended_as) is outcome
    assert shell_exit_code(return_code) == exit_code
    assert sentence_of(outcome, return_code, timedelta(seconds=2.5)) == sentence


def test_an_event_is_well_when_all_ran_and_none_failed() -> None:
    assert EventOutcome().ok
    assert EventOutcome(results=(result("a", outcome=OK),)).ok
    assert not EventOutcome(results=(result("a"),)).ok
    assert not EventOutcome(untouched=("a",)).ok
    assert not EventOutcome(stopped=True).ok


def test_failed_workers_are_named_once() -> None:
    assert EventOutcome(results=(result("a"), result("b", outcome=OK), result("a"))).failed_workers == ("a",)


def test_the_same_notice_of_many_hooks_is_said_once() -> None:
    results = tuple(
        InvocationResult(hook="h", allocation_id=worker, worker=worker, outcome=OK, notices=("leader moved",)) for worker in "abc"
    )
    assert EventOutcome(results=results).notices == ("leader moved",)


def test_failures_of_the_run_tell_kind_exit_code_and_last_lines_and_leave_out_what_a_cancel_ended() -> None:
    results = (
        result("a", "boom", exit_code=3),
        result("b", outcome=TIMED_OUT),
        result("c", outcome=CANCELLED),
        result("d", outcome=OK),
    )
    failures = failures_of("api", results)
    assert [(one.worker, one.kind) for one in failures] == [
        ("a", pb.FAILURE_KIND_COMMAND),
        ("b", pb.FAILURE_KIND_TIMED_OUT),
    ]
    assert (failures[0].job, failures[0].step, failures[0].exit_code, list(failures[0].last_lines)) == (
        "api",
        "hook_x",
        3,
        ["boom"],
    )
