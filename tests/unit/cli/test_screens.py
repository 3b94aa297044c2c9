import io
import re
from typing import Any

from maand_cli.flags import Flags
from maand_cli.output.screens import PlainScreen, make_line_filter
from maand_cli.output.view import RunView
from maand_contracts.catalog.v1 import run_event_pb2 as events
from tests.unit.cli.builders import at, event, finished, output, started


def screen(*, kind: str = "hooks", **flags: Any) -> tuple[PlainScreen, io.StringIO, io.StringIO]:
    data, progress = io.StringIO(), io.StringIO()
    given = Flags(**flags)
    view = RunView(kind=kind, run_id="0192")
    return PlainScreen(view, shows=make_line_filter(given), quiet=given.quiet, data=data, progress=progress), data, progress


def test_data_has_no_time_and_progress_has() -> None:
    shown, data, progress = screen()
    shown.event(output("hello"))
    shown.event(event(wave_started=events.WaveStarted(wave=0, waves=1, jobs=["api"])))
    assert data.getvalue() == "api@10.0.0.1 | hello\n"
    time, _, text = progress.getvalue().rstrip().partition(" ")
    assert text == "wave 1 of 1: api"
    assert re.fullmatch(r"\d\d:\d\d:\d\d[+-]\d\d:\d\d", time)


def test_there_is_a_heartbeat_only_after_half_a_minute_of_silence() -> None:
    shown, _, progress = screen()
    shown.event(started("hook_migrate"))
    shown.tick(at(0))
    shown.tick(at(29))
    assert progress.getvalue() == ""
    shown.tick(at(30))
    assert progress.getvalue().partition(" ")[2] == "hooks 0192: still running: api@10.0.0.1 hook_migrate, 30 s so far\n"
    shown.tick(at(45))
    shown.tick(at(61))
    assert progress.getvalue().count("still") == 2


def test_output_counts_as_a_sign_of_life() -> None:
    shown, _, progress = screen()
    shown.tick(at(0))
    shown.event(output("x"))
    shown.tick(at(29))
    shown.tick(at(40))
    assert "still" not in progress.getvalue()


def test_details_are_for_the_curious_and_nothing_but_data_for_the_quiet() -> None:
    cases: tuple[tuple[dict[str, Any], int], ...] = (({}, 0), ({"verbose": 1}, 1), ({"quiet": True, "verbose": 1}, 0))
    for flags, expected in cases:
        shown, data, progress = screen(**flags)
        shown.event(finished("copy"))
        shown.event(output("x"))
        assert progress.getvalue().count("copy succeeded") == expected
        assert data.getvalue() == "api@10.0.0.1 | x\n"
