"""What of `workspace/` is sent to the catalog, with content digests; a file that did not change is not read again.

Sent are `workers.json`, `disabled.json`, `bucket.conf`, `bucket.jobs*.conf` and everything under `jobs/`, but the
interpreters' own directories directly under a job's `_hooks` (`.venv`, `venv`, `node_modules`, `__pycache__`). Nothing is left
out because of what it is: a link or a file in place of `jobs/` or of a job is sent as such, and the compiler refuses it by name.
Directories below a job that hold nothing, or have a mode that no usual umask makes, are sent too; the others are implied.

Digests are kept in `run/workspace-digests.json` by path, size, times of modification and of change, and inode. Size and time of
modification alone can be given to another content (`cp -p`, `touch -d`, `rsync -a`); the time of change is the kernel's own. A
file that changed within the last two seconds is not kept: it could change again without its times showing it.
"""

import hashlib
import json
import os
import re
import stat
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from maand_cli.errors import InvalidFile, MissingPrerequisite, Problem

TOP_LEVEL = re.compile(r"workers\.json|disabled\.json|bucket\.conf|bucket\.jobs(\..+)?\.conf")
INTERPRETERS_OWN = frozenset({".venv", "venv", "node_modules", "__pycache__"})
SETTLED_NS = 2_000_000_000
USUAL_DIRECTORY_MODES = frozenset({0o755, 0o775, 0o777})
"""What umasks of 022, 002 and 000, and file systems without modes, make of a directory: nobody chose it, it counts as 0755."""
USUAL_DIRECTORY_MODE = 0o755
LARGEST_FILE_BYTES = 64 * 1024 * 1024
"""The catalog's limit: a file that it would refuse is told here, before anything is sent."""
JOBS = "jobs"
MARKS = 4
"""Numbers that tell whether a file is still the one that was hashed."""

NO_FILES = "the directory holds none of the job's files"
TOO_LARGE_HELP = "let the job's Makefile fetch large files on the worker"
NO_FILES_HELP = "check out or mount what belongs there (a git submodule?); to remove the job, remove its directory"


@dataclass(frozen=True, kw_only=True)
class ScannedFile:
    """One file, symbolic link or directory of the workspace. `sha256` is only a file's, `link_target` only a link's."""

    path: str
    mode: int
    size: int
    sha256: bytes = b""
    link_target: str = ""
    directory: bool = False
    warning: str = field(default="", compare=False)
    """What of it will not reach a worker, for people."""


def scan_workspace(workspace: Path, cache: Path) -> list[ScannedFile]:
    """Return what is to be sent, sorted by path.

    Raises MissingPrerequisite without a workspace, InvalidFile with everything that cannot be read or stored (directories that
    may not be entered, sockets, names that are not UTF-8, jobs without a file, files that are too large).
    """
    if not workspace.is_dir():
        what = "is not a directory" if workspace.exists() else "does not exist"
        raise MissingPrerequisite(f"{workspace} {what}", help="maand init makes one")
    known = _read_cache(cache)
    scan = Scan(workspace, Digests(workspace, known))
    files = scan.run()
    if scan.problems:
        raise InvalidFile(*sorted(scan.problems, key=lambda problem: problem.file))
    if scan.digests.kept != known:
        _write_cache(cache, scan.digests.kept)
    return sorted(files, key=lambda file: file.path)


def compute_snapshot_id(files: Iterable[ScannedFile]) -> str:
    """Return the id that the catalog gives this tree (see CreateSnapshotResponse): equal ids are equal workspaces."""
    lines = sorted(
        f"{file.path}{'/' * file.directory}\t{file.sha256.hex()}\t{file.mode:o}\t{file.size}\t{file.link_target}"
        for file in files
    )
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


class Digests:
    """SHA-256 of files, from the cache where size, times and inode agree."""

    def __init__(self, workspace: Path, known: Mapping[str, list[Any]]) -> None:
        self._workspace = workspace
        self._known = known
        self.kept: dict[str, list[Any]] = {}
        self._now_ns = time.time_ns()

    def of(self, path: str, status: os.stat_result) -> bytes:
        """Return the digest of one file."""
        mark = [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]
        entry = self._known.get(path)
        if entry is not None and entry[:-1] == mark:
            self.kept[path] = entry
            return bytes.fromhex(entry[-1])
        digest = hash_file(self._workspace / path)
        if self._now_ns - max(status.st_mtime_ns, status.st_ctime_ns) > SETTLED_NS:
            self.kept[path] = [*mark, digest.hex()]
        return digest


def hash_file(path: Path) -> bytes:
    """Hash one file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


class Scan:
    """One walk through a workspace; what is wrong with it is gathered, not raised, so that all of it is told at once."""

    def __init__(self, workspace: Path, digests: Digests) -> None:
        self._workspace = workspace
        self.digests = digests
        self.problems: list[Problem] = []

    def run(self) -> list[ScannedFile]:
        """Return every file that is sent."""
        return [file for path, entry in self._top_level() if (file := self._file(path, entry))]

    def _top_level(self) -> Iterator[tuple[str, os.DirEntry[str]]]:
        for entry in self._entries("", str(self._workspace)):
            if entry.name == JOBS and entry.is_dir(follow_symlinks=False):
                yield from self._jobs(entry.path)
            elif entry.name == JOBS or TOP_LEVEL.fullmatch(entry.name):
                yield entry.name, entry

    def _jobs(self, directory: str) -> Iterator[tuple[str, os.DirEntry[str]]]:
        for entry in self._entries(JOBS, directory):
            path = f"{JOBS}/{entry.name}"
            if not entry.is_dir(follow_symlinks=False):
                yield path, entry
                continue
            before = len(self.problems)
            files = list(self._below(path, entry.path))
            without_files = all(below.is_dir(follow_symlinks=False) for _, below in files)
            if without_files and len(self.problems) == before and not entry.name.startswith("."):
                self._problem("missing_file", f"{path}/manifest.json", NO_FILES, help_text=NO_FILES_HELP)
            yield from files

    def _below(self, path: str, directory: str) -> Iterator[tuple[str, os.DirEntry[str]]]:
        for entry in self._entries(path, directory):
            below = f"{path}/{entry.name}"
            if _is_interpreters_own(below):
                continue
            if entry.is_dir(follow_symlinks=False):
                yield from self._directory(below, entry)
            else:
                yield below, entry

    def _directory(self, path: str, entry: os.DirEntry[str]) -> Iterator[tuple[str, os.DirEntry[str]]]:
        """Yield what is in a directory, and itself where that does not imply it. Nobody but hooks sees those of hooks."""
        inside = list(self._below(path, entry.path))
        usual = stat.S_IMODE(entry.stat(follow_symlinks=False).st_mode) & 0o777 in USUAL_DIRECTORY_MODES
        if not (inside and usual) and path.split("/")[2] != "_hooks":
            yield path, entry
        yield from inside

    def _entries(self, path: str, directory: str) -> list[os.DirEntry[str]]:
        try:
            with os.scandir(directory) as entries:
                return list(entries)
        except OSError as error:
            self._problem("unreadable_file", path, f"the directory cannot be read: {error.strerror}")
            return []

    def _file(self, path: str, entry: os.DirEntry[str]) -> ScannedFile | None:
        try:
            path.encode()
        except UnicodeEncodeError:
            self._problem("not_utf8", path, "the file's name is not UTF-8")
            return None
        try:
            return self._read(path, entry)
        except OSError as error:
            self._problem("unreadable_file", path, f"cannot be read: {error.strerror}")
            return None

    def _read(self, path: str, entry: os.DirEntry[str]) -> ScannedFile | None:
        status = entry.stat(follow_symlinks=False)
        mode = stat.S_IMODE(status.st_mode) & 0o777
        if stat.S_ISLNK(status.st_mode):
            return ScannedFile(path=path, mode=mode, size=0, link_target=str(Path(entry.path).readlink()))
        if stat.S_ISDIR(status.st_mode):
            usual = mode in USUAL_DIRECTORY_MODES
            return ScannedFile(path=path, mode=USUAL_DIRECTORY_MODE if usual else mode, size=0, directory=True)
        if stat.S_ISREG(status.st_mode) and status.st_size > LARGEST_FILE_BYTES:
            size = f"{status.st_size / 1024 / 1024:.1f} MiB"
            self._problem("file_too_large", path, f"the file has {size}, the limit is 64 MiB", help_text=TOO_LARGE_HELP)
            return None
        if stat.S_ISREG(status.st_mode):
            lost = status.st_mode & (stat.S_ISUID | stat.S_ISGID)
            warning = f"{self._workspace.name}/{path}: its setuid and setgid bits are not copied to workers" if lost else ""
            digest = self.digests.of(path, status)
            return ScannedFile(path=path, mode=mode, size=status.st_size, sha256=digest, warning=warning)
        self._problem("not_a_file", path, "this is neither a file nor a symbolic link", help_text="remove it from the workspace")
        return None

    def _problem(self, code: str, path: str, message: str, *, help_text: str = "") -> None:
        where = f"{self._workspace.name}/{path}".rstrip("/").encode(errors="surrogateescape").decode(errors="replace")
        self.problems.append(Problem(code=code, message=message, file=where, help=help_text))


def _is_interpreters_own(path: str) -> bool:
    parts = path.split("/")
    return len(parts) == 4 and parts[2] == "_hooks" and parts[3] in INTERPRETERS_OWN


def _read_cache(cache: Path) -> dict[str, list[Any]]:
    try:
        values = json.loads(cache.read_text())
    except (OSError, ValueError):
        return {}
    entries = values.items() if isinstance(values, dict) else ()
    return {path: entry for path, entry in entries if isinstance(entry, list) and len(entry) == MARKS + 1}


def _write_cache(cache: Path, digests: Mapping[str, list[Any]]) -> None:
    cache.parent.mkdir(exist_ok=True)
    fresh = cache.with_name(f"{cache.name}.{os.getpid()}")
    fresh.write_text(json.dumps(digests))
    fresh.replace(cache)
