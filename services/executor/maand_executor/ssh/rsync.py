"""rsync's arguments and account, as values. Pure.

Content decides (`--checksum`), not time: the source is made by each run, so its times say nothing. Updated files appear
together at the end (`--delay-updates`), deletions come after that; an interrupted copy leaves what was there before, or a mix
that the next copy repairs.

Owner and times are the worker's; modes are kept. What is excluded at the top is neither written nor deleted.
"""

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class CopyResult:
    """What a copy changed on the worker."""

    files_transferred: int = 0
    files_deleted: int = 0
    bytes_sent: int = 0

    @property
    def changed(self) -> bool:
        """Whether anything was written or deleted."""
        return bool(self.files_transferred or self.files_deleted)


RELAY = 'printf "%s\\0" "$@" "" >/dev/fd/$OUT; exec 3<&0; cat <&3 >/dev/fd/$OUT & exec cat </dev/fd/$IN'
"""rsync's remote shell: tells the words rsync wants run, then lets bytes pass to and from two pipes of the executor.

It ends when the executor closes IN, which is when the rsync on the worker ended: rsync waits for that. Two `cat` start in a
fifth of the time of a Python, which at fifty copies is what one sees.
"""


SILENT = 30
"""rsync's exit code when not a byte came or went for its `--timeout` (rsync(1), EXIT VALUES)."""


def local_arguments(*, source: Path, target: str, excludes: Sequence[str], silence: timedelta) -> list[str]:
    """Return the command line of the local rsync: the content of `source` becomes the content of `target`.

    Both rsyncs end when not a byte came or went for the time of `silence`: nothing of an older owner's copy goes on for longer.
    Every file of a job fits into memory, so neither rsync thinks for that long.
    Its remote shell is `RELAY`; IN and OUT in its environment are the descriptors of the executor's pipes.
    """
    return [
        "rsync",
        *("--recursive", "--links", "--perms", "--omit-dir-times", "--checksum"),
        *("--delete-after", "--delay-updates"),
        *("--protect-args", "--stats", "--no-human-readable", f"--timeout={max(1, round(silence.total_seconds()))}"),
        *(f"--exclude=/{name}" for name in excludes),
        f"--rsh=sh -c {rsh_word(RELAY)} relay",
        "--",
        f"{source}/",
        f"worker:{target}/",
    ]


def rsh_word(word: str) -> str:
    """Quote a word of `--rsh`, which rsync splits at spaces and unquotes by rules of its own: a quote is doubled."""
    return '"' + word.replace('"', '""') + '"'


def serve_script(arguments: Sequence[str], *, target: str) -> str:
    """Return the script of the rsync server on the worker; the target and its parents are made first."""
    directory = shlex.quote(target)
    return f"umask 022; [ -d {directory} ] || mkdir -p -- {directory}; {shlex.join(arguments)}"


COUNTS = {
    "files_transferred": re.compile(r"^Number of regular files transferred: ([\d,.]+)", re.MULTILINE),
    "files_deleted": re.compile(r"^Number of deleted files: ([\d,.]+)", re.MULTILINE),
    "bytes_sent": re.compile(r"^Total transferred file size: ([\d,.]+)", re.MULTILINE),
}


def parse_stats(text: str) -> CopyResult:
    """Read rsync's `--stats`."""
    found = {name: pattern.search(text) for name, pattern in COUNTS.items()}
    return CopyResult(**{name: int(re.sub(r"\D", "", match[1])) for name, match in found.items() if match})


def main_message(stderr: str) -> str:
    """Return what went wrong in rsync's words: its first complaint, else its last line."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    complaints = [line for line in lines if not line.startswith("rsync error:")]
    return (complaints or lines or ["rsync said nothing"])[0]
