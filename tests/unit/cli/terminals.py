"""The command line as a process on a pseudo-terminal, and what an emulated terminal shows of what it writes."""

import os
import pty
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pyte

COLUMNS, ROWS = 100, 60


@dataclass(frozen=True, kw_only=True)
class Seen:
    """How a command on a terminal ended, and what was seen of it."""

    code: int
    terminal: str
    """What the terminal was sent."""
    elsewhere: str
    """What went to standard output where that is a pipe."""

    def screen(self, columns: int = COLUMNS) -> pyte.HistoryScreen:
        """Return what a terminal shows in the end."""
        return screen_showing(self.terminal, columns)


def run_on_a_terminal(bucket: Path, *args: str, stdout_too: bool = True, columns: int = COLUMNS) -> Seen:
    """Run a command with standard error on a terminal, standard output too or in a pipe."""
    terminal, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "maand_cli", *args],
        cwd=bucket,
        env={**os.environ, "TERM": "xterm", "COLUMNS": str(columns)},
        stdin=subprocess.DEVNULL,
        stdout=theirs if stdout_too else subprocess.PIPE,
        stderr=theirs,
    )
    os.close(theirs)
    seen = b""
    while True:
        try:
            piece = os.read(terminal, 65536)
        except OSError:
            break
        seen += piece
    os.close(terminal)
    elsewhere = process.stdout.read() if process.stdout else b""
    if process.stdout:
        process.stdout.close()
    return Seen(code=process.wait(20), terminal=seen.decode(), elsewhere=elsewhere.decode())


def screen_showing(written: str, columns: int = COLUMNS) -> pyte.HistoryScreen:
    """Return a terminal to which this was written."""
    screen = pyte.HistoryScreen(columns, ROWS, history=100_000)
    pyte.Stream(screen).feed(written)
    return screen


def rows_of(screen: pyte.HistoryScreen) -> list[str]:
    """Return the rows that were written, from the first that scrolled away to the last that is seen."""
    gone = ["".join(row[column].data for column in range(screen.columns)).rstrip() for row in screen.history.top]
    return [*gone, *(row.rstrip() for row in screen.display)]
