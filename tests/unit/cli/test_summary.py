from maand_cli.output.causes import Failure, group_failures
from maand_cli.output.summary import Ending, SlowStep, summary_lines


def failed(worker: str, **fields: object) -> Failure:
    return Failure(kind="command", job="api", worker=worker, step="restart", message="exit code 2", **fields)  # type: ignore[arg-type]


def test_failures_of_one_cause_are_told_once() -> None:
    groups = group_failures([failed("10.0.0.1"), failed("10.0.0.2"), failed("10.0.0.3", last_lines=("boom",))])
    assert [(group.workers, group.size) for group in groups] == [(("10.0.0.1", "10.0.0.2"), 2), (("10.0.0.3",), 1)]


def test_the_summary_ends_with_the_command_to_type_next() -> None:
    ending = Ending(
        kind="deploy",
        run_id="0192",
        state="failed",
        seconds=75,
        message="1 job failed",
        counts={"failed": 2, "promoted": 1, "skipped": 0},
        failures=(
            failed("10.0.0.1", last_lines=("boom",), help="look at it"),
            failed("10.0.0.2", last_lines=("boom",), help="look at it"),
        ),
        unreached=("10.0.0.3",),
        notices=("leader is 10.0.0.1",),
        slowest=(SlowStep(subject="api@10.0.0.1", step="restart", seconds=12),),
        next_command="maand deploy",
    )
    assert list(summary_lines(ending)) == [
        "deploy failed after 1 min 15 s: 1 job failed (2 failed, 1 promoted)",
        "  note: leader is 10.0.0.1",
        "  failed: api restart on 10.0.0.1, 10.0.0.2: exit code 2",
        "      boom",
        "    help: look at it",
        "  not reached: 10.0.0.3",
        "  slowest: api@10.0.0.1 restart 12 s",
        "  next: maand deploy",
    ]


def test_a_failure_without_a_worker_says_how_often() -> None:
    ending = Ending(kind="build", run_id="1", state="failed", failures=(Failure(kind="internal", message="no"),) * 2)
    assert list(summary_lines(ending))[1:] == ["  failed: internal (2 times): no"]
