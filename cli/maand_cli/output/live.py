"""The live view on a terminal: the run's rows stay at the bottom, the rest scrolls by above. Only this module draws."""

import sys
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.text import Text

from maand_cli.output.terminal import format_output, spell_controls, write_output
from maand_cli.output.view import Importance, Line, RunView
from maand_contracts.catalog.v1 import run_event_pb2

STYLES = {
    Importance.DATA: "",
    Importance.OUTPUT: "",
    Importance.PROGRESS: "cyan",
    Importance.DETAIL: "dim",
    Importance.WARNING: "yellow",
}


class LiveScreen:
    """Scrolling lines above the rows of `RunView.rows`."""

    def __init__(self, view: RunView, *, shows: Callable[[Line], bool], color: bool) -> None:
        self.view = view
        self._shows = shows
        self._color = color
        self._console = Console(stderr=True, no_color=not color, highlight=False)
        self._live = Live(console=self._console, auto_refresh=False, transient=True, redirect_stdout=False, redirect_stderr=False)
        self._live.start()
        self._data_scrolls = sys.stdout.isatty()
        self._scrolling: list[Text] = []

    def event(self, event: run_event_pb2.RunEvent) -> None:
        """Let the lines of an event scroll by, at the next tick: drawing costs a millisecond, a hook may print thousands."""
        for line in self.view.apply(event):
            if not self._shows(line):
                continue
            if line.importance is Importance.DATA and not self._data_scrolls:
                write_output(line.text, own=line.own or 0, color="auto", flush=True)
            else:
                self._scrolling.append(self._styled(line))

    def say(self, text: str) -> None:
        """Let this command's own words scroll by."""
        self._scrolling.append(Text(spell_controls(text), style="bold"))

    def tick(self, now: datetime) -> None:
        """Let lines scroll by and draw the rows anew."""
        self._scroll()
        rows = [spell_controls(row) for row in self.view.rows(now, self._console.width)]
        text = Text("\n".join(rows), no_wrap=True, overflow="ellipsis")
        text.stylize("bold", 0, len(rows[0]))
        self._live.update(text, refresh=True)

    def close(self) -> None:
        """Take the rows away."""
        self._scroll()
        self._live.stop()

    def _styled(self, line: Line) -> Text:
        style = STYLES[line.importance]
        if line.own is None:
            return Text(spell_controls(line.text), style=style)
        return Text.from_ansi(format_output(line.text, own=line.own, color=self._color), style=style)

    def _scroll(self) -> None:
        if self._scrolling:
            self._console.print(Text("\n").join(self._scrolling), soft_wrap=True)
            self._scrolling.clear()

    def result(self, document: Mapping[str, Any]) -> None:
        """People get a summary instead."""
