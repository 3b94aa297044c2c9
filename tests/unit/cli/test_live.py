"""The live view on a terminal, as a process on a pseudo-terminal."""

import re
from pathlib import Path

import pytest

from maand_contracts.catalog.v1 import run_event_pb2 as events
from tests.unit.cli.builders import event, output, started
from tests.unit.cli.fake_catalog import FakeCatalog
from tests.unit.cli.terminals import run_on_a_terminal

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@pytest.fixture(autouse=True)
def script(fake: FakeCatalog) -> None:
    batch = events.BatchStarted(phase="command", index=0, count=1, workers=["10.0.0.1"])
    fake.play(event(batch_started=batch), started("command", job=""), output("hello", job=""))


@pytest.mark.usefixtures("fake")
def test_on_a_terminal_lines_scroll_and_the_view_is_taken_away_at_the_end(bucket: Path) -> None:
    seen = run_on_a_terminal(bucket, "run_command", "x", "--color", "never").terminal
    lines = [line.strip() for line in ESCAPES.sub("", seen).replace("\r", "\n").split("\n")]
    assert "10.0.0.1 | hello" in lines
    assert "command: batch 1/1: 10.0.0.1" in lines
    assert lines.index("10.0.0.1 | hello") < lines.index("run_command succeeded")
    assert seen.count("\x1b[?25l") == seen.count("\x1b[?25h"), "the cursor is given back"


@pytest.mark.usefixtures("fake")
def test_data_in_a_pipe_is_nothing_but_data_while_the_view_is_on_the_terminal(bucket: Path) -> None:
    seen = run_on_a_terminal(bucket, "run_command", "x", stdout_too=False)
    assert seen.elsewhere == "10.0.0.1 | hello\n"
    assert "batch 1/1" in seen.terminal


@pytest.mark.usefixtures("fake")
def test_no_color_is_honoured(bucket: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    coloured = run_on_a_terminal(bucket, "run_command", "x").terminal
    monkeypatch.setenv("NO_COLOR", "1")
    plain = run_on_a_terminal(bucket, "run_command", "x").terminal
    assert "\x1b[36m" in coloured
    assert "\x1b[36m" not in plain
