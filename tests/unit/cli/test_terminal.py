"""Hostile text on a terminal: nothing but its own line changes. In a pipe: as it was written."""

import io
import re
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import maand_cli
from maand_cli.output.live import LiveScreen
from maand_cli.output.terminal import PLAIN, format_output, write_line, write_output, write_text
from maand_cli.output.view import RunView
from maand_contracts.catalog.v1 import kv_pb2, run_pb2
from tests.unit.cli.builders import event, failure, finished, output
from tests.unit.cli.conftest import Maand
from tests.unit.cli.fake_catalog import FakeCatalog, ended
from tests.unit.cli.terminals import COLUMNS, rows_of, run_on_a_terminal, screen_showing

OWN = "api@10.0.0.1 | "
HONEST = "api@10.0.0.2 | all is well"

HOSTILE = {
    "title": "\x1b]0;pwn\x07",
    "title, ended by ST": "\x1b]2;pwn\x1b\\",
    "clipboard": "\x1b]52;c;cHduCg==\x07",
    "link": "\x1b]8;;http://evil\x07click\x1b]8;;\x07",
    "screen cleared": "\x1b[2J\x1b[H" + HONEST.replace("well", "lost"),
    "cursor up": "\x1b[1A\r" + HONEST.replace("well", "lost"),
    "cursor to a place": "\x1b[1;1Hforged",
    "line above erased": "\x1b[1F\x1b[2K",
    "lines deleted": "\x1b[5M\x1b[5L",
    "scrolled": "\x1b[5S\x1b[5T\x1b[2;3r",
    "reset": "\x1bc",
    "index and reverse index": "\x1bM\x1bD\x1bE",
    "other screen": "\x1b[?1049h",
    "cursor hidden": "\x1b[?25l",
    "character set": "\x1b(0\x0e",
    "device asked": "\x1b[c\x1b[6n\x1b[5n",
    "device control": "\x1bP$q\x1b\\",
    "private message and application": "\x1b^x\x1b\\\x1b_x\x1b\\\x1bXx\x1b\\",
    "keyboard modes": "\x1b[>4;1m\x1b[?1m\x1b=",
    "C1 sequences": "\x9b2J\x9b1;1H\x9d0;pwn\x9c\x90q\x9c\x85\x84\x8d",
    "C0": "\x00\x01\x05\x07\x08\x08\x08\x08\x08\x08\x08\x08\x08\x0b\x0c\x0e\x0f\x11\x13\x18\x1a\x1c\x7f",
    "carriage return": "\rapi@10.0.0.2 | forged",
    "line feed": "x\napi@10.0.0.2 | forged",
    "turned direction": "\u202elive\u2066\u200f\u061c",
    "line and paragraph separator": "\u2028api@10.0.0.2 | forged\u2029",
    "an open colour": "\x1b[1;5;7;41m",
    "an unfinished sequence": "\x1b[",
    "an unfinished string": "\x1b]0;",
    "a colour of 100 parameters": "\x1b[" + "1;" * 100 + "m",
}
ALL_AT_ONCE = "".join(HOSTILE.values())
WIDE = 2_000
"""Columns in which no row of this is wrapped, so that each row begins what maand wrote."""


class Terminal(io.StringIO):
    """A stream that says it is a terminal, and turns line ends as one does."""

    def isatty(self) -> bool:
        return True

    def written(self) -> str:
        """Return what the terminal got."""
        return self.getvalue().replace("\n", "\r\n")


def assert_only_its_own_line_changed(written: str, *, before: str = HONEST, after: str = HONEST) -> None:
    screen = screen_showing(written)
    rows = [row for row in rows_of(screen) if row]
    assert rows[0] == before
    assert rows[1].startswith(OWN.rstrip())
    assert rows[-1] == after
    assert not any("forged" in row and row.startswith("api@10.0.0.2") for row in rows)
    assert (screen.title, screen.icon_name) == ("", "")
    last = screen.buffer[screen.cursor.y - 1][0]
    assert (last.fg, last.bg, last.bold, last.reverse) == ("default", "default", False, False), "no colour goes on"


@pytest.mark.parametrize("case", [*HOSTILE, "all at once"])
@pytest.mark.parametrize("color", [True, False])
def test_a_line_of_output_changes_nothing_but_itself(case: str, color: bool) -> None:
    shown = format_output(OWN + HOSTILE.get(case, ALL_AT_ONCE), own=len(OWN), color=color)
    assert_only_its_own_line_changed(f"{HONEST}\r\n{shown}\r\n{HONEST}\r\n")


@pytest.mark.parametrize("writer", ["line", "text", "output"])
@pytest.mark.parametrize("case", HOSTILE)
def test_whatever_is_written_to_a_terminal_by_maand_is_harmless(writer: str, case: str) -> None:
    terminal, text = Terminal(), OWN + HOSTILE[case].replace("\n", "" if writer == "text" else "\n")
    write_line(HONEST, terminal)
    if writer == "output":
        write_output(text, terminal, own=len(OWN), color="always")
    else:
        (write_line if writer == "line" else write_text)(text, terminal)
    write_line(HONEST, terminal)
    assert_only_its_own_line_changed(terminal.written())


@pytest.mark.parametrize("case", [*HOSTILE, "all at once"])
def test_in_a_pipe_everything_stays_as_it_was_written(case: str) -> None:
    pipe, text = io.StringIO(newline=""), HOSTILE.get(case, ALL_AT_ONCE)
    write_output(text, pipe, own=0, color="auto")
    write_line(text, pipe)
    write_text(text, pipe)
    assert pipe.getvalue() == f"{text}\n" * 3


SEQUENCES = st.sampled_from(list(HOSTILE.values()))
ANYTHING = st.one_of(
    st.binary(max_size=200).map(lambda data: data.decode(errors="replace")),
    st.binary(max_size=200).map(lambda data: data.decode("latin-1")),
    st.lists(st.one_of(SEQUENCES, st.text(max_size=10)), max_size=10).map("".join),
)


@given(ANYTHING, st.booleans())
@settings(max_examples=500)
def test_any_bytes_change_only_their_own_line(said: str, color: bool) -> None:
    shown = format_output(OWN + said, own=len(OWN), color=color)
    assert_only_its_own_line_changed(f"{HONEST}\r\n{shown}\r\n{HONEST}\r\n")


def test_colours_are_kept_and_end_with_their_line() -> None:
    assert format_output(f"{OWN}a \x1b[31mred\x1b[0m b", own=len(OWN), color=True) == f"{OWN}a \x1b[31mred\x1b[0m b{PLAIN}"
    assert format_output(f"{OWN}\x1b[38;2;1;2;3mred", own=len(OWN), color=True).endswith(f"red{PLAIN}")
    assert format_output(f"{OWN}\x1b[31mred", own=len(OWN), color=False) == f"{OWN}red"


PROGRESS = {
    "10%\r50%\r100%": "100%",
    "100%\r    \r": "100%",
    "\x1b[32m10%\r100%": "\x1b[32m100%" + PLAIN,
    "\r\rdone": "done",
    "\r": "",
    "no return": "no return",
}


@pytest.mark.parametrize("said", PROGRESS)
def test_progress_by_carriage_return_is_kept_within_its_line(said: str) -> None:
    assert format_output(OWN + said, own=len(OWN), color=True) == OWN + PROGRESS[said]


@given(st.lists(ANYTHING, min_size=1, max_size=4))
@settings(max_examples=100, deadline=None)
def test_any_bytes_change_only_their_own_line_in_the_live_view(said: list[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        terminal = Terminal()
        patch.setattr(sys, "stderr", terminal)
        patch.setenv("COLUMNS", str(COLUMNS))
        screen = LiveScreen(RunView(kind="deploy", run_id="x"), shows=lambda _: True, color=True)
        now = datetime.now(tz=UTC)
        screen.event(output("all is well", worker="10.0.0.2"))
        for text in said:
            screen.event(output(text.replace("\n", " ")))
            screen.event(event(job="api", waiting={"reason": text}))
            screen.tick(now)
        screen.event(output("all is well", worker="10.0.0.2"))
        screen.tick(now)
        screen.close()
    rows = [row for row in rows_of(screen_showing(terminal.written())) if row]
    assert (rows[0], rows[-1]) == (HONEST, HONEST)
    assert sum(row.startswith(OWN.rstrip()) for row in rows) >= len(said)


@pytest.fixture
def hostile_run(fake: FakeCatalog) -> FakeCatalog:
    """A run whose output, messages and failures hold everything that is hostile."""
    line = ALL_AT_ONCE.replace("\n", "")
    fake.play(
        output("all is well", worker="10.0.0.2"),
        *(output(hostile.replace("\n", "")) for hostile in HOSTILE.values()),
        output("x" * 64 * 1024),
        finished("make start", "failed", message=line),
        event(job="api", waiting={"reason": line}),
        event(job="api", worker="10.0.0.1", notice={"text": line}),
        output("all is well", worker="10.0.0.2"),
        end=ended(
            "failed",
            kind="deploy",
            message=line,
            failures=[
                failure("command", job="api", worker="10.0.0.1", step="make start", message=line, help=line, last_lines=[line])
            ],
            notices=[line],
        ),
    )
    return fake


@pytest.mark.parametrize(
    "args", [("deploy",), ("runs", "watch"), ("logs", "--all"), ("runs", "show"), ("runs", "list")], ids=" ".join
)
def test_hostile_runs_are_shown_harmlessly_by_every_command(
    hostile_run: FakeCatalog, bucket: Path, args: tuple[str, ...]
) -> None:
    hostile_run.answers["ListRuns"] = lambda _: listed_run(hostile_run)
    seen = run_on_a_terminal(bucket, *args, "-v", columns=WIDE)
    screen = seen.screen(WIDE)
    rows = rows_of(screen)
    assert (screen.title, screen.icon_name) == ("", "")
    assert [row for row in rows if row.startswith("api@10.0.0.2") and row != HONEST] == []
    if args[0] != "runs" or args[1] == "watch":
        assert sum(row == HONEST for row in rows) == 2
    assert not re.search(r"\x1b[^\[]|\x1b\[[^A-Za-z]*[^A-Za-z0-9;?]|[\x00-\x08\x0b\x0c\x0e-\x1a\x7f-\x9f]", seen.terminal)


def listed_run(fake: FakeCatalog) -> run_pb2.ListRunsResponse:
    run = run_pb2.Run()
    run.CopyFrom(fake.end)
    run.message = ALL_AT_ONCE
    run.requested_by = ALL_AT_ONCE
    return run_pb2.ListRunsResponse(runs=[run])


def test_hostile_output_in_a_pipe_is_byte_for_byte_what_was_said(hostile_run: FakeCatalog, maand: Maand) -> None:
    said = [line for one in hostile_run.script if one.WhichOneof("event") == "output" for line in one.output.lines]
    hostile_run.answers["ListRuns"] = lambda _: listed_run(hostile_run)
    shown = maand("logs").out
    assert [line.partition(" | ")[2] for line in shown.split("\n")[:-1]] == said


def test_a_value_is_shown_harmlessly_on_a_terminal_and_as_it_is_in_a_pipe(fake: FakeCatalog, bucket: Path) -> None:
    value = ALL_AT_ONCE.replace("\n", "") + "\nsecond line"
    fake.answers["Get"] = kv_pb2.GetResponse(entry=kv_pb2.Entry(namespace="vars/job/api", key="k", value=value, version=1))
    fake.answers["ListEntries"] = kv_pb2.ListEntriesResponse(
        entries=[kv_pb2.Entry(namespace="vars/job/api", key=ALL_AT_ONCE, value=value, version=1)]
    )
    piped = run_on_a_terminal(bucket, "kv", "get", "vars/job/api", "k", stdout_too=False).elsewhere
    assert piped == value + "\n"
    for args in (("kv", "get", "vars/job/api", "k"), ("kv", "list")):
        assert not re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]", run_on_a_terminal(bucket, *args).terminal)
    assert run_on_a_terminal(bucket, "kv", "get", "vars/job/api", "k").terminal.endswith("\r\nsecond line\r\n")


PRINTS = re.compile(r"(?<![\w.])print\((?!json\.dumps|error_header|problems_document|__version__|mend_comma)")
"""What is not JSON, a version or a completion script."""


def test_only_one_module_prints_texts_for_people() -> None:
    root = Path(maand_cli.__file__).parent
    others = [path for path in root.rglob("*.py") if path.name != "terminal.py" and "demo" not in path.parts]
    assert [path.name for path in others if PRINTS.search(path.read_text())] == []
