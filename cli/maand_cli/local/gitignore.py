"""Keeping a bucket's keys and data out of git, whatever the repository's own rules say.

Two things do it: lines in the bucket's `.gitignore`, for people to see, and a `.gitignore` with `*` inside each directory, which
no rule of a directory above can take back. The second one also holds where the first cannot be written.
"""

import errno
import os
import re
import stat
import subprocess
from pathlib import Path
from typing import Literal

IGNORE_FILE = ".gitignore"
OWN_DIRECTORIES = ("secrets", "data", "run", "logs", "tmp")
"""Directories of a bucket that belong into no repository."""

EVERYTHING = b"# Nothing in here belongs into a repository.\n*\n"

PUBLIC = re.compile(r"secrets/(known_hosts|[^/]+\.(pub|crt)|\.gitignore)|[^/]+/\.gitignore")
"""What may be tracked without harm."""

GIT_SECONDS = 10


def complete_ignore_file(path: Path) -> Literal["made", "completed", "kept"]:
    """Add the lines that are missing, in the file's own line ends; the rest stays byte for byte. Raises OSError."""
    before = _content(path)
    present = {_directory(line) for line in before.splitlines()}
    missing = [f"/{name}/" for name in OWN_DIRECTORIES if name.encode() not in present]
    if not missing:
        return "kept"
    end = b"\r\n" if b"\r\n" in before else b"\n"
    gap = end if before and not before.endswith(b"\n") else b""
    with path.open("ab") as file:
        file.write(gap + b"".join(line.encode() + end for line in missing))
    return "completed" if before else "made"


def _content(path: Path) -> bytes:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return b""
    if not stat.S_ISREG(mode):
        what = "it is a symbolic link, which git does not read" if stat.S_ISLNK(mode) else "it is not a file"
        raise OSError(errno.EINVAL, what, str(path))
    return path.read_bytes()


def _directory(line: bytes) -> bytes:
    """Reduce a rule to the top-level name it ignores: `/secrets/`, `secrets/`, `/secrets` and `secrets` all do."""
    return line.rstrip(b"\r ").strip(b"/")


def ignore_all_inside(directory: Path) -> None:
    """Put `*` on top of a directory's own `.gitignore`; what a person excepted from it below stays excepted. Raises OSError."""
    path = directory / IGNORE_FILE
    before = _content(path)
    if b"*" not in (line.rstrip(b"\r ") for line in before.splitlines()):
        path.write_bytes(EVERYTHING + before)


def find_tracked_files(directory: Path) -> list[str]:
    """Name what git tracks already of what is private here; nothing without git or a repository."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        listing = subprocess.run(
            ["git", "-C", str(directory), "ls-files", "-z", "--", *OWN_DIRECTORIES],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=GIT_SECONDS,
            check=True,
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return [path for path in os.fsdecode(listing).split("\0") if path and not PUBLIC.fullmatch(path)]
