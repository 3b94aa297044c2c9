"""Where a followed run goes: a live view, plain lines, or JSON. One protocol, chosen once by flags and terminal.

| Screen  | When                         | Standard output      | Standard error                                   |
|---------|------------------------------|----------------------|--------------------------------------------------|
| live    | human, stderr is a terminal  | data lines           | live view; with a terminal everything scrolls    |
| plain   | human, no terminal           | data lines           | the same lines with time, a heartbeat every 30 s |
| quiet   | human, `-q`                  | data lines           | errors                                           |
| json    | `-o json`                    | one document         | nothing                                          |
| jsonl   | `-o jsonl`                   | header, event …, result | nothing                                       |
"""

import json
import sys
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Protocol, TextIO

from maand_cli.flags import Flags
from maand_cli.output.message_dicts import to_dict
from maand_cli.output.problems import SCHEMA_VERSION
from maand_cli.output.terminal import wants_color, write_line, write_output
from maand_cli.output.text import format_duration, format_time_of_day
from maand_cli.output.view import Importance, Line, RunView
from maand_contracts.catalog.v1 import run_event_pb2

HEARTBEAT_SECONDS = 30


class Screen(Protocol):
    """Something a run is followed on."""

    view: RunView

    def event(self, event: run_event_pb2.RunEvent) -> None:
        """Take in one event."""

    def say(self, text: str) -> None:
        """Tell a person something that is not in the run's events."""

    def tick(self, now: datetime) -> None:
        """Let time pass."""

    def close(self) -> None:
        """Give the terminal back; what follows is the summary."""

    def result(self, document: Mapping[str, Any]) -> None:
        """Print the result for programs; screens for people print none."""


def make_screen(flags: Flags, view: RunView) -> Screen:
    """Choose the screen."""
    if flags.output == "json":
        return JsonScreen(view)
    if flags.output == "jsonl":
        flags.header_printed = True
        return JsonLinesScreen(view)
    if sys.stderr.isatty() and not flags.quiet:
        from maand_cli.output.live import LiveScreen

        return LiveScreen(view, shows=make_line_filter(flags), color=wants_color(flags.color, sys.stderr))
    return PlainScreen(view, shows=make_line_filter(flags), color=flags.color, quiet=flags.quiet)


def make_line_filter(flags: Flags) -> Callable[[Line], bool]:
    """Return which lines are shown: details only with `-v`; with `-q` only data."""

    def shows(line: Line) -> bool:
        if line.importance is Importance.DATA:
            return True
        return not flags.quiet and (line.importance is not Importance.DETAIL or flags.verbose > 0)

    return shows


class PlainScreen:
    """Lines with the time of day, no cursor movement, a heartbeat when nothing else was said."""

    def __init__(
        self,
        view: RunView,
        *,
        shows: Callable[[Line], bool],
        color: str = "auto",
        quiet: bool = False,
        data: TextIO | None = None,
        progress: TextIO | None = None,
    ) -> None:
        self.view = view
        self._shows = shows
        self._color = color
        self._quiet = quiet
        self._data = data or sys.stdout
        self._progress = progress or sys.stderr
        self._started: datetime | None = None
        self._spoke: datetime | None = None

    def event(self, event: run_event_pb2.RunEvent) -> None:
        """Print what the event is worth."""
        for line in self.view.apply(event):
            if not self._shows(line):
                continue
            self._write(line)
            self._spoke = None

    def _write(self, line: Line) -> None:
        stream, time = (
            (self._data, "") if line.importance is Importance.DATA else (self._progress, f"{format_time_of_day(line.time)} ")
        )
        if line.own is None:
            write_line(time + line.text, stream, flush=True)
        else:
            write_output(time + line.text, stream, own=len(time) + line.own, color=self._color, flush=True)

    def say(self, text: str) -> None:
        """Print it, marked as this command's own words."""
        if not self._quiet:
            write_line(f"maand: {text}", self._progress, flush=True)

    def tick(self, now: datetime) -> None:
        """Print a heartbeat when nothing was printed for 30 s."""
        self._started = self._started or now
        if self._spoke is None:
            self._spoke = now
        if self._quiet or (now - self._spoke).total_seconds() < HEARTBEAT_SECONDS:
            return
        self._spoke = now
        heartbeat = format_heartbeat(self.view, (now - self._started).total_seconds())
        write_line(f"{format_time_of_day(now)} {heartbeat}", self._progress, flush=True)

    def close(self) -> None:
        """Nothing is to be given back."""

    def result(self, document: Mapping[str, Any]) -> None:
        """People get a summary instead."""


def format_heartbeat(view: RunView, elapsed_seconds: float) -> str:
    """Say that the run is alive: for how long, and what runs or is waited for."""
    running = view.still_running()
    what = view.waiting or (f"running: {', '.join(running[:3])}" if running else "running")
    return f"{view.header()}: still {what}, {format_duration(elapsed_seconds)} so far"


class JsonScreen:
    """Keeps quiet and prints one document at the end, with the output lines in it."""

    def __init__(self, view: RunView) -> None:
        self.view = view
        self._output: list[dict[str, Any]] = []

    def event(self, event: run_event_pb2.RunEvent) -> None:
        """Keep output; the view keeps the rest."""
        self.view.apply(event)
        if event.WhichOneof("event") == "output":
            self._output.append({"job": event.job, "worker": event.worker, **to_dict(event.output)})

    def say(self, text: str) -> None:
        """Nobody reads it."""

    def tick(self, now: datetime) -> None:
        """Nothing changes with time."""

    def close(self) -> None:
        """Nothing is to be given back."""

    def result(self, document: Mapping[str, Any]) -> None:
        """Print the one document."""
        print(json.dumps({**document, "output": self._output}))


class JsonLinesScreen:
    """A header, every event as it comes, the result last."""

    def __init__(self, view: RunView) -> None:
        self.view = view
        self._line({"type": "header", "schema_version": SCHEMA_VERSION, "kind": view.kind, "run_id": view.run_id})

    def event(self, event: run_event_pb2.RunEvent) -> None:
        """Print the event."""
        self.view.apply(event)
        self._line({"type": "event", **to_dict(event)})

    def say(self, text: str) -> None:
        """Nobody reads it."""

    def tick(self, now: datetime) -> None:
        """Nothing changes with time."""

    def close(self) -> None:
        """Nothing is to be given back."""

    def result(self, document: Mapping[str, Any]) -> None:
        """Print the last line."""
        self._line({"type": "result", **document})

    def _line(self, record: Mapping[str, Any]) -> None:
        print(json.dumps(record), flush=True)
