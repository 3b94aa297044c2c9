import pytest

from maand_cli.output.screens import format_heartbeat
from maand_cli.output.view import HANDLERS, Importance, RunView
from maand_contracts.catalog.v1 import run_event_pb2 as events
from tests.unit.cli.builders import at, event, finished, output, planned, started


def view(kind: str = "deploy") -> RunView:
    return RunView(kind=kind, run_id="0192")


def texts(seen: RunView, *happened: events.RunEvent) -> list[str]:
    return [line.text for one in happened for line in seen.apply(one)]


def test_every_event_of_the_contract_has_a_handler() -> None:
    assert set(HANDLERS) == {field.name for field in events.RunEvent.DESCRIPTOR.oneofs_by_name["event"].fields}


def test_output_is_prefixed_with_job_and_worker() -> None:
    assert texts(view(), output("one\ntwo")) == ["api@10.0.0.1 | one", "api@10.0.0.1 | two"]


@pytest.mark.parametrize(("kind", "importance"), [("run_command", Importance.DATA), ("deploy", Importance.OUTPUT)])
def test_output_is_data_where_it_was_asked_for(kind: str, importance: Importance) -> None:
    assert [line.importance for line in view(kind).apply(output("x"))] == [importance]


def test_an_event_seen_before_is_not_shown_again() -> None:
    seen = view()
    assert texts(seen, output("x", sequence=1), output("x", sequence=1)) == ["api@10.0.0.1 | x"]


def test_a_batch_says_which_of_how_many_and_where() -> None:
    batch = events.BatchStarted(phase="update", index=0, count=2, workers=["10.0.0.1", "10.0.0.2"])
    assert texts(view(), event(job="api", batch_started=batch)) == ["api update: batch 1/2: 10.0.0.1, 10.0.0.2"]


def test_a_plan_counts_actions_and_keeps_reasons_for_the_curious() -> None:
    lines = view().apply(planned("api", w1="restart", w2="restart", w3="skip"))
    assert lines[0].text == "api: 2 restart, 1 skip"
    assert lines[1].text == "  api@10.0.0.1: restart, files changed"
    assert {line.importance for line in lines[1:]} == {Importance.DETAIL}


def test_a_plan_without_work_says_so() -> None:
    assert texts(view(), planned("api", w1="skip"))[0] == "api: nothing to do"


def test_a_failed_step_is_shown_with_its_exit_code_and_a_good_one_is_a_detail() -> None:
    seen = view()
    bad = seen.apply(finished("restart", "failed", exit_code=2, duration_seconds=1.2, message="make: *** [restart] Error 2"))
    assert bad[0].text == "api@10.0.0.1: restart failed after 1.2 s, exit code 2: make: *** [restart] Error 2"
    [said_once] = seen.apply(finished("start", "failed", exit_code=2, message="make start ended with exit code 2"))
    assert said_once.text.endswith("failed after 0.0 s: make start ended with exit code 2")
    assert bad[0].importance is Importance.WARNING
    assert seen.apply(finished("copy"))[0].importance is Importance.DETAIL


def test_the_live_rows_show_wave_batch_waiting_and_the_longest_running_steps() -> None:
    seen = view()
    for number in range(12):
        seen.apply(started("restart", worker=f"10.0.0.{number}", seconds=number))
    seen.apply(event(wave_started=events.WaveStarted(wave=1, waves=2, jobs=["api"])))
    seen.apply(event(job="api", batch_started=events.BatchStarted(phase="update", index=0, count=3, workers=["10.0.0.0"])))
    seen.apply(event(waiting=events.Waiting(reason="health of api")))
    rows = seen.rows(at(20))
    assert rows[0] == "deploy 0192 · wave 2 of 2 · 20 s"
    assert rows[1] == "api update: batch 1/3: 10.0.0.0"
    assert rows[2] == "waiting for health of api"
    assert rows[3] == "  api@10.0.0.0  restart  20 s"
    assert len(rows) == 3 + 10 + 1
    assert rows[-1] == "  and 2 more"


def test_the_header_says_how_many_are_done_for_how_long_and_how_long_it_took_last_time() -> None:
    seen = view()
    seen.expected_seconds = 75
    seen.apply(planned("api", w1="restart", w2="start", w3="skip"))
    seen.apply(event(job="api", promoted=events.Promoted(workers=["10.0.0.1"])))
    seen.apply(event(wave_started=events.WaveStarted(wave=0, waves=1, jobs=["api"])))
    assert seen.rows(at(12), 100)[0] == "deploy 0192 · wave 1 of 1 · 1 of 2 promoted · 12 s, last time 1 min 15 s"
    other = view("run_command")
    other.apply(event(run_started=events.RunStarted(targets=3)))
    other.apply(finished("command", job=""))
    assert other.header() == "run_command 0192 · 1 of 3 done"


LONG = {
    100: "deploy 00000001 · wave 2 of 2 · 1 of 22 promoted · 12 s, last time 1 min 15 s",
    80: "deploy 00000001 · wave 2 of 2 · 1 of 22 promoted · 12 s, last time 1 min 15 s",
    60: "deploy 00000001 · wave 2 of 2 · 1 of 22 promoted · 12 s",
    44: "deploy 00000001 · 1 of 22 promoted · 12 s",
    40: "deploy · 1 of 22 promoted · 12 s",
    20: "1 of 22 promoted · 12 s",
}


@pytest.mark.parametrize("columns", LONG)
def test_the_header_says_what_matters_most_in_any_width(columns: int) -> None:
    seen = RunView(kind="deploy", run_id="01920000-0000-7000-8000-000000000001", expected_seconds=75)
    seen.apply(event(wave_started=events.WaveStarted(wave=1, waves=2, jobs=["api"])))
    seen.apply(planned("api", False, **{f"w{number}": "restart" for number in range(1, 23)}))
    seen.apply(event(job="api", promoted=events.Promoted(workers=["10.0.0.1"])))
    assert seen.rows(at(12), columns)[0] == LONG[columns]


def test_a_total_that_may_still_grow_says_so() -> None:
    seen = view()
    seen.apply(event(wave_started=events.WaveStarted(wave=0, waves=2, jobs=["db"])))
    seen.apply(planned("db", w1="start"))
    assert seen.progress() == "0 of 1+ promoted"
    seen.apply(event(wave_started=events.WaveStarted(wave=1, waves=2, jobs=["api", "web"])))
    seen.apply(planned("api", w1="start", w2="start"))
    assert seen.progress() == "0 of 3+ promoted"
    seen.apply(event(job="web", job_finished=events.JobFinished(outcome=events.JOB_OUTCOME_BLOCKED)))
    assert seen.progress() == "0 of 3 promoted"


def test_a_hook_that_waits_for_a_semaphore_looks_like_it() -> None:
    seen = view()
    seen.apply(started("hook_migrate"))
    seen.apply(started("make start", job="web"))
    wait = "waits for ddl, held by 10.0.0.2"
    seen.semaphore_waits = {("api", "10.0.0.1"): wait, ("web", "10.0.0.1"): wait}
    assert seen.rows(at(9))[1:] == [f"  api@10.0.0.1  hook_migrate  9.0 s, {wait}", "  web@10.0.0.1  make start  9.0 s"]
    assert f"api@10.0.0.1 hook_migrate ({wait})" in format_heartbeat(seen, 9)


def test_a_finished_step_leaves_the_rows_and_is_remembered_when_slow() -> None:
    seen = view()
    seen.apply(started("restart"))
    seen.apply(finished("restart", duration_seconds=9))
    assert seen.still_running() == []
    assert [(slow.subject, slow.step, slow.seconds) for slow in seen.slow] == [("api@10.0.0.1", "restart", 9.0)]


def test_waiting_is_said_once_and_over_with_the_next_event() -> None:
    seen = view()
    waiting = event(waiting=events.Waiting(reason="the bucket"))
    assert texts(seen, waiting, waiting) == ["waiting for the bucket"]
    seen.apply(output("x"))
    assert seen.waiting == ""


def test_a_takeover_forgets_what_the_dead_executor_had_begun() -> None:
    seen = view()
    seen.apply(started("restart"))
    assert "not repeated" in texts(seen, event(run_started=events.RunStarted(fence=2)))[0]
    assert seen.still_running() == []


def test_the_rest_of_a_runs_life_is_one_line_each() -> None:
    outcome = events.JobFinished(outcome=events.JOB_OUTCOME_BLOCKED, message="database failed")
    assert texts(
        view(),
        event(run_started=events.RunStarted(fence=1, targets=3)),
        event(wave_started=events.WaveStarted(wave=0, waves=2, jobs=["database"])),
        event(job="api", promoted=events.Promoted(workers=["10.0.0.1"], version="2.0.0")),
        event(job="api", job_finished=outcome),
        event(job="api", notice=events.Notice(level=events.NOTICE_LEVEL_WARNING, text="clock is off")),
        event(notice=events.Notice(text="seen")),
        event(worker="10.0.0.1", worker_report=events.WorkerReport(reachable=True)),
        event(run_finished=events.RunFinished()),
    ) == [
        "started on 3 targets",
        "wave 1 of 2: database",
        "api 2.0.0 promoted on 10.0.0.1",
        "api blocked: database failed",
        "warning: api: clock is off",
        "note: seen",
    ]


def test_why_a_run_lost_its_executors_is_kept_for_who_asks_later() -> None:
    view = RunView(kind="deploy", run_id="r")
    view.apply(event(notice=events.Notice(text="disk nearly full")))
    view.apply(event(notice=events.Notice(text="its executor e1 died", claim_end=events.CLAIM_END_EXECUTOR_DIED)))
    assert view.interruptions == ["its executor e1 died"]


def test_a_plan_after_a_takeover_keeps_what_was_promoted_before_it() -> None:
    view = RunView(kind="deploy", run_id="r")
    view.apply(planned("api", w1="restart", w2="restart"))
    view.apply(event(job="api", promoted=events.Promoted(workers=["10.0.0.1"])))
    view.apply(planned("api", w2="restart"))
    assert view.progress() == "1 of 2+ promoted"
    assert {one.worker for one in view.plans["api"].allocations} == {"10.0.0.1", "10.0.0.2"}
