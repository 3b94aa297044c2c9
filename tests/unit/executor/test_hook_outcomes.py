"""Outcomes: of a process, an invocation, an event."""

from dataclasses import replace
from datetime import timedelta

import pytest

from maand_contracts.catalog.v1 import run_event_pb2 as pb
from maand_executor.hooks.outcome_messages import failures_of
from maand_executor.rules.facts import Allocation, Hook, HookScope, InvocationOutcome, Job
from maand_executor.rules.hook_outcomes import (
    EventOutcome,
    InvocationResult,
    outcome_of,
    sentence_of,
    sentence_of_survivor,
    shell_exit_code,
)
from maand_executor.steps.event_hooks import failures_of_unrun_hooks

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


TWO_HOOKS = Job(
    name="api",
    hooks=tuple(
        Hook(name=name, job="api", path=f"_hooks/{name}.py", runtime="python", executed_on=("health_check",))
        for name in ("hook_x", "hook_y")
    ),
)
PAIR = tuple(Allocation(allocation_id=f"id of {worker}", job="api", worker=worker) for worker in ("w1", "w2"))


@pytest.mark.parametrize("how", [FAILED, TIMED_OUT, INTERRUPTED])
def test_who_got_through_the_last_hook_passed_and_everybody_else_is_named(how: InvocationOutcome) -> None:
    first = (result("w1", outcome=OK), result("w2", outcome=OK))
    last = tuple(replace(one, hook="hook_y") for one in (result("w1", outcome=OK), result("w2", outcome=how)))
    assert not_passed(EventOutcome(results=first + last)) == {"w2"}
    assert not_passed(EventOutcome(results=(result("w1", outcome=OK), result("w2", outcome=how)))) == {"w1", "w2"}
    assert not_passed(EventOutcome(results=first)) == set()


def not_passed(outcome: EventOutcome) -> set[str]:
    failures = failures_of("api", outcome.failed) + failures_of_unrun_hooks(TWO_HOOKS, "health_check", outcome, PAIR)
    assert len({failure.worker for failure in failures}) == len(failures)
    return {failure.worker for failure in failures}


def test_a_hook_that_runs_once_for_all_fails_for_all() -> None:
    once = replace(TWO_HOOKS, hooks=(replace(TWO_HOOKS.hooks[0], scope=HookScope.ROLLOUT),))
    outcome = EventOutcome(results=(result("w1"),))
    (other,) = failures_of_unrun_hooks(once, "health_check", outcome, PAIR)
    assert other.worker == "w2"
    assert other.message == "not all of its health_check hooks ran: hook_x did not end well for w1"


def test_a_process_that_goes_on_all_the_same_is_named() -> None:
    assert sentence_of_survivor(0) == ""
    assert "process 4321 on the executor's host cannot be ended" in sentence_of_survivor(4321)
