"""What of `workspace/` is sent to the catalog, with content digests; a file that did not change is not read again.

Sent are `workers.json`, `disabled.json`, `bucket.conf`, `bucket.jobs*.conf` and everything under `jobs/`, but the
interpreters' own directories directly under a job's `_hooks` (`.venv`, `venv`, `node_modules`, `__pycache__`).

Digests are kept in `run/workspace-digests.json` by path, size, modification time and inode. A file modified within the last
two seconds is not kept: it could change again without its time showing it.
"""

import hashlib
import json
import os
import re
import stat
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from maand_cli.errors import InvalidFile, MissingPrerequisite, Problem

TOP_LEVEL = re.compile(r"workers\.json|disabled\.json|bucket\.conf|bucket\.jobs(\..+)?\.conf")
INTERPRETERS_OWN = frozenset({".venv", "venv", "node_modules", "__pycache__"})
SETTLED_NS = 2_000_000_000


@dataclass(frozen=True, kw_only=True)
class ScannedFile:
    """One file or symbolic link of the workspace. `sha256` is empty for a link, `link_target` for a file."""

    path: str
    mode: int
    size: int
    sha256: bytes = b""
    link_target: str = ""


def scan_workspace(workspace: Path, cache: Path) -> list[ScannedFile]:
    """Return what is to be sent, sorted by path.

    Raises MissingPrerequisite without a workspace, InvalidFile for what cannot be stored (sockets, names that are not UTF-8).
    """
    if not workspace.is_dir():
        raise MissingPrerequisite(f"{workspace} does not exist", help="maand init makes one")
    known = _read_cache(cache)
    digests = Digests(workspace, known)
    problems: list[Problem] = []
    files = [file for path, entry in _walk(workspace) if (file := _scan(path, entry, digests, problems))]
    if problems:
        raise InvalidFile(*problems)
    if digests.kept != known:
        _write_cache(cache, digests.kept)
    return sorted(files, key=lambda file: file.path)


class Digests:
    """SHA-256 of files, from the cache where size, time and inode agree."""

    def __init__(self, workspace: Path, known: Mapping[str, list[Any]]) -> None:
        self._workspace = workspace
        self._known = known
        self.kept: dict[str, list[Any]] = {}
        self._now_ns = time.time_ns()

    def of(self, path: str, status: os.stat_result) -> bytes:
        """Return the digest of one file."""
        mark = [status.st_size, status.st_mtime_ns, status.st_ino]
        entry = self._known.get(path)
        if entry is not None and entry[:3] == mark:
            self.kept[path] = entry
            return bytes.fromhex(entry[3])
        digest = file_sha256(self._workspace / path)
        if self._now_ns - status.st_mtime_ns > SETTLED_NS:
            self.kept[path] = [*mark, digest.hex()]
        return digest


def file_sha256(path: Path) -> bytes:
    """Hash one file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def _walk(workspace: Path) -> Iterator[tuple[str, os.DirEntry[str]]]:
    for entry in os.scandir(workspace):
        if entry.name == "jobs" and entry.is_dir(follow_symlinks=False):
            yield from _walk_jobs("jobs", entry.path)
        elif TOP_LEVEL.fullmatch(entry.name):
            yield entry.name, entry


def _walk_jobs(path: str, directory: str) -> Iterator[tuple[str, os.DirEntry[str]]]:
    for entry in os.scandir(directory):
        below = f"{path}/{entry.name}"
        if not entry.is_dir(follow_symlinks=False):
            yield below, entry
        elif not _is_interpreters_own(below):
            yield from _walk_jobs(below, entry.path)


def _is_interpreters_own(path: str) -> bool:
    parts = path.split("/")
    return len(parts) == 4 and parts[2] == "_hooks" and parts[3] in INTERPRETERS_OWN


def _scan(path: str, entry: os.DirEntry[str], digests: Digests, problems: list[Problem]) -> ScannedFile | None:
    status = entry.stat(follow_symlinks=False)
    mode = stat.S_IMODE(status.st_mode) & 0o777
    where = f"workspace/{path}"
    try:
        path.encode()
    except UnicodeEncodeError:
        shown = where.encode(errors="surrogateescape").decode(errors="replace")
        problems.append(Problem(code="not_utf8", message="the file's name is not UTF-8", file=shown))
        return None
    if stat.S_ISLNK(status.st_mode):
        return ScannedFile(path=path, mode=mode, size=0, link_target=str(Path(entry.path).readlink()))
    if not stat.S_ISREG(status.st_mode):
        problems.append(
            Problem(
                code="not_a_file",
                message="this is neither a file nor a symbolic link",
                file=where,
                help="remove it from the workspace",
            )
        )
        return None
    return ScannedFile(path=path, mode=mode, size=status.st_size, sha256=digests.of(path, status))


def _read_cache(cache: Path) -> dict[str, list[Any]]:
    try:
        values = json.loads(cache.read_text())
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


def _write_cache(cache: Path, digests: Mapping[str, list[Any]]) -> None:
    cache.parent.mkdir(exist_ok=True)
    fresh = cache.with_name(f"{cache.name}.{os.getpid()}")
    fresh.write_text(json.dumps(digests))
    fresh.replace(cache)
