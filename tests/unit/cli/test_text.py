import time
from datetime import UTC, datetime

import pytest

from maand_cli.errors import Problem
from maand_cli.output.problems import problem_lines, problems_document
from maand_cli.output.text import (
    format_count,
    format_duration,
    format_iso_time,
    format_list,
    format_moment,
    format_tally,
    format_time_of_day,
    table_lines,
)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0.0 s"), (9.94, "9.9 s"), (12.4, "12 s"), (60, "1 min"), (200, "3 min 20 s"), (7500, "2 h 5 min")],
)
def test_durations_read_well(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


def test_counts_and_lists_read_well() -> None:
    assert format_count(1, "worker") == "1 worker"
    assert format_count(3, "worker") == "3 workers"
    assert format_list(["a", "b", "c"], 2) == "a, b and 1 more"
    assert format_tally({"failed": 0, "promoted": 2}) == "2 promoted"


def test_a_table_is_as_wide_as_its_cells_and_a_line_break_stays_on_its_line() -> None:
    rows = [("a", None, True), ("long name", ["x", "y"], "two\nlines")]
    assert list(table_lines(("name", "list", "flag"), rows)) == [
        "NAME       LIST  FLAG",
        "a          -     yes",
        "long name  x,y   two\\nlines",
    ]


PROBLEM = Problem(
    code="unknown_key",
    message='unknown key "max_concurent_upgrades"',
    file="workspace/jobs/api/manifest.json",
    line=4,
    column=3,
    help='did you mean "max_concurrent_upgrades"?',
)


def test_an_error_has_the_form_of_the_specification() -> None:
    assert "\n".join(problem_lines([PROBLEM])) == (
        'error: unknown key "max_concurent_upgrades"\n'
        "  workspace/jobs/api/manifest.json:4:3\n"
        '  help: did you mean "max_concurrent_upgrades"?'
    )


def test_an_error_about_a_whole_file_or_none_has_no_numbers() -> None:
    assert list(problem_lines([Problem(code="x", message="is missing", file="maand.conf")])) == [
        "error: is missing",
        "  maand.conf",
    ]
    assert list(problem_lines([Problem(code="x", message="no")])) == ["error: no"]


@pytest.mark.parametrize(
    ("zone", "day", "moment"),
    [
        ("UTC", "22:09:52+00:00", "2026-11-27 22:09:52+00:00"),
        ("Pacific/Apia", "11:09:52+13:00", "2026-11-28 11:09:52+13:00"),
        ("America/St_Johns", "18:39:52-03:30", "2026-11-27 18:39:52-03:30"),
    ],
)
def test_people_see_one_zone_their_own_and_which_it_is(monkeypatch: pytest.MonkeyPatch, zone: str, day: str, moment: str) -> None:
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    at = datetime(2026, 11, 27, 22, 9, 52, tzinfo=UTC)
    assert (format_time_of_day(at), format_moment(at), format_iso_time("2026-11-27T22:09:52.123Z")) == (day, moment, moment)
    monkeypatch.undo()
    time.tzset()


def test_the_json_form_carries_every_field() -> None:
    assert problems_document([PROBLEM]) == (
        '{"errors": [{"code": "unknown_key", "message": "unknown key \\"max_concurent_upgrades\\"",'
        ' "file": "workspace/jobs/api/manifest.json", "line": 4, "column": 3,'
        ' "help": "did you mean \\"max_concurrent_upgrades\\"?"}]}'
    )
