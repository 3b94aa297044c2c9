"""What tests of the command line share, whether it runs inside the test or as a process."""

import subprocess
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Said:
    """What one command printed, and its exit code."""

    code: int
    out: str
    err: str


def read_until(process: subprocess.Popen[str], words: str) -> str:
    """Return everything on standard error up to the first line with these words."""
    assert process.stderr
    seen = ""
    for line in process.stderr:
        seen += line
        if words in line:
            return seen
    raise AssertionError(f"{words!r} was never said:\n{seen}")
