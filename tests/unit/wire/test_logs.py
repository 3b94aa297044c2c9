"""Logging never raises, whatever became of the file: it happens where errors are handled."""

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

from maand_wire.logs import LogFile

PROGRAM = """
import structlog
from maand_wire.logs import configure_logs
configure_logs(format="{format}")
log = structlog.get_logger()
for number in range(2000):
    log.warning("a line", number=number)
try:
    1 / 0
except ZeroDivisionError:
    log.exception("with a traceback")
print("went on", flush=True)
"""


class Disk(io.StringIO):
    """A file on a disk that may be full."""

    full = False

    def write(self, text: str) -> int:
        if self.full:
            raise OSError(28, "No space left on device")
        return super().write(text)


@pytest.mark.parametrize("format", ["kv", "json"])
def test_a_process_whose_log_is_on_a_full_disk_goes_on(format: str) -> None:  # noqa: A002 - the setting's word
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            [sys.executable, "-c", PROGRAM.format(format=format)], stdout=subprocess.PIPE, stderr=full, text=True, check=False
        )
    assert ended.stdout == "went on\n"


def test_a_process_whose_log_was_closed_goes_on() -> None:
    closing = PROGRAM.replace("log = ", "import sys; sys.stderr.close(); log = ").format(format="kv")
    ended = subprocess.run([sys.executable, "-c", closing], stdout=subprocess.PIPE, text=True, check=False)
    assert ended.stdout == "went on\n"


def test_the_first_line_after_a_gap_says_how_many_are_lost() -> None:
    disk = Disk()
    file = LogFile(disk)

    def log(event: str) -> None:
        file.write(json.dumps(file.tell_lost(None, "info", {"event": event})) + "\n")
        file.flush()

    log("before")
    disk.full = True
    log("lost")
    log("lost too")
    disk.full = False
    log("after")
    log("as ever")
    lines = [json.loads(line) for line in disk.getvalue().splitlines()]
    assert lines == [{"event": "before"}, {"event": "after", "log_lines_lost": 2}, {"event": "as ever"}]
