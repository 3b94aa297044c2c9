import pytest

from maand_cli.exits import Exit, RunEnd, exit_of_error, exit_of_run


def end(state: str, *kinds: str, **fields: object) -> RunEnd:
    return RunEnd(state=state, failure_kinds=frozenset(kinds), **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("ended", "code"),
    [
        (end("succeeded"), Exit.DONE),
        (end("succeeded", changes=True), Exit.DONE),
        (end("succeeded", left_out=True), Exit.PARTIAL),
        (end("succeeded", "command"), Exit.PARTIAL),
        (end("failed", "command"), Exit.FAILED),
        (end("failed"), Exit.FAILED),
        (end("failed", "unhealthy"), Exit.FAILED),
        (end("failed", "internal"), Exit.FAILED),
        (end("failed", "command", "blocked"), Exit.FAILED),
        (end("failed", "invalid"), Exit.INVALID),
        (end("failed", "prerequisite"), Exit.INVALID),
        (end("failed", "local"), Exit.INVALID),
        (end("failed", "prerequisite", counts={"promoted": 1}), Exit.FAILED),
        (end("failed", "unreachable"), Exit.UNREACHABLE),
        (end("failed", "authentication", "unreachable", "blocked"), Exit.UNREACHABLE),
        (end("failed", "unreachable", counts={"succeeded": 2, "unreachable": 1}), Exit.FAILED),
        (end("failed", "unreachable", "command"), Exit.FAILED),
        (end("failed", "bucket_held"), Exit.BUCKET_HELD),
        (end("failed", "timed_out"), Exit.TIMED_OUT),
        (end("failed", "timed_out", "command"), Exit.FAILED),
        (end("cancelled", "command"), Exit.INTERRUPTED),
    ],
)
def test_a_runs_end_decides_the_exit_code(ended: RunEnd, code: Exit) -> None:
    assert exit_of_run(ended) is code


def test_changes_matter_only_when_asked_for() -> None:
    assert exit_of_run(end("succeeded", changes=True), changes_matter=True) is Exit.CHANGES
    assert exit_of_run(end("succeeded", changes=False), changes_matter=True) is Exit.DONE


@pytest.mark.parametrize(
    ("code", "status", "exit_code"),
    [
        ("bucket_held", "FAILED_PRECONDITION", Exit.BUCKET_HELD),
        ("invalid_workspace", "INVALID_ARGUMENT", Exit.INVALID),
        ("invalid_config", "INVALID_ARGUMENT", Exit.INVALID),
        ("not_built", "FAILED_PRECONDITION", Exit.INVALID),
        ("worker_unreachable", "UNAVAILABLE", Exit.UNREACHABLE),
        ("invalid_argument", "INVALID_ARGUMENT", Exit.USAGE),
        ("not_found", "NOT_FOUND", Exit.FAILED),
        ("kv_precondition_lost", "ABORTED", Exit.FAILED),
        ("unauthenticated", "UNAUTHENTICATED", Exit.UNREACHABLE),
        ("unavailable", "UNAVAILABLE", Exit.SERVICE),
        ("unimplemented", "UNIMPLEMENTED", Exit.SERVICE),
        ("semaphore_timeout", "DEADLINE_EXCEEDED", Exit.TIMED_OUT),
        ("internal", "INTERNAL", Exit.FAILED),
    ],
)
def test_a_refused_call_decides_the_exit_code(code: str, status: str, exit_code: Exit) -> None:
    assert exit_of_error(code, status) is exit_code


def test_the_numbers_are_those_of_the_specification() -> None:
    assert [int(code) for code in Exit] == [0, 1, 2, 3, 4, 5, 6, 7, 8, 124, 130]
