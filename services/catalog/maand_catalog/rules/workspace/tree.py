"""The file list of a workspace: its entries, its id, and the compact form in which it is kept."""

import hashlib
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from maand_catalog.rules.workspace.problems import Finding

NOT_STORED = frozenset({".venv", "venv", "node_modules", "__pycache__"})
"""Directories directly under a job's `_hooks` that a machine makes again by itself."""

LONGEST_PATH = 1024
LARGEST_FILE_BYTES = 64 * 1024 * 1024
HELP_LARGE = "let the job's Makefile fetch large files on the worker"


@dataclass(frozen=True, kw_only=True, slots=True)
class TreeEntry:
    """One file (with the digest of its content), symbolic link (with its target), or directory.

    Directories are implied by paths; those that hold nothing or have a mode of their own are entries.
    """

    path: str
    sha256: bytes = b""
    mode: int = 0o644
    size: int = 0
    link_target: str = ""
    directory: bool = False

    def line(self) -> str:
        """Return the entry as one line of the compact form, where the path of a directory ends in a slash.

        Paths and targets have no control characters.
        """
        return f"{self.path}{'/' * self.directory}\t{self.sha256.hex()}\t{self.mode:o}\t{self.size}\t{self.link_target}"


def pack_tree(entries: Iterable[TreeEntry]) -> bytes:
    """Return the compact form."""
    return zlib.compress("\n".join(entry.line() for entry in entries).encode(), 1)


def unpack_tree(packed: bytes) -> tuple[TreeEntry, ...]:
    """Read the compact form."""
    lines = zlib.decompress(packed).decode()
    return tuple(entry_from_line(line) for line in lines.split("\n")) if lines else ()


def entry_from_line(line: str) -> TreeEntry:
    """Read one line of the compact form."""
    path, sha256, mode, size, link_target = line.split("\t")
    return TreeEntry(
        path=path.removesuffix("/"),
        sha256=bytes.fromhex(sha256),
        mode=int(mode, 8),
        size=int(size),
        link_target=link_target,
        directory=path.endswith("/"),
    )


def snapshot_id_of(entries: Iterable[TreeEntry]) -> str:
    """Return the id of a tree: equal trees have equal ids, whatever the order they were listed in."""
    lines = sorted(entry.line() for entry in entries)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def is_stored(path: str) -> bool:
    """Whether a path belongs into a snapshot; environments that hooks install are not kept."""
    parts = path.split("/")
    return not (len(parts) > 3 and parts[0] == "jobs" and parts[2] == "_hooks" and parts[3] in NOT_STORED)


def accept_tree(entries: Iterable[TreeEntry]) -> tuple[TreeEntry, ...]:
    """Return what of a listed tree is kept, by path. What is wrong with the list, `listing_findings` says."""
    return tuple(sorted((entry for entry in entries if is_stored(entry.path)), key=lambda entry: entry.path))


def listing_findings(entries: Iterable[TreeEntry]) -> Iterator[Finding]:
    """Find entries that could not be files of a workspace, and paths that are listed twice or as two things."""
    paths: set[str] = set()
    files: set[str] = set()
    directories: set[str] = set()
    for entry in entries:
        yield from entry_findings(entry)
        if entry.path in paths:
            yield entry_finding(entry, "duplicate_path", "is listed twice")
        paths.add(entry.path)
        if not entry.directory:
            files.add(entry.path)
        parts = entry.path.split("/")
        directories.update("/".join(parts[:count]) for count in range(1, len(parts)))
    for path in sorted(files & directories):
        yield entry_finding(TreeEntry(path=path), "bad_path", "is listed as a file and as a directory")


def entry_findings(entry: TreeEntry) -> Iterator[Finding]:
    """Find what is wrong with one entry."""
    if not is_path(entry.path) or any(part in ("", ".", "..") for part in entry.path.split("/")):
        yield entry_finding(entry, "bad_path", "is not a path inside the workspace")
    if entry.size > LARGEST_FILE_BYTES:
        yield entry_finding(entry, "file_too_large", "is larger than 64 MiB", help_text=HELP_LARGE)
    if entry.mode & ~0o777:
        yield entry_finding(entry, "bad_mode", "has a mode beyond permission bits")
    kinds = (bool(entry.sha256), bool(entry.link_target), entry.directory)
    if sum(kinds) != 1 or (entry.sha256 and len(entry.sha256) != 32):
        yield entry_finding(entry, "bad_entry", "needs a SHA-256, or a link target, or to be a directory")
    if entry.directory and (entry.path.count("/") < 2 or not entry.path.startswith("jobs/")):
        yield entry_finding(entry, "bad_entry", "is a directory outside of a job")
    if not is_path(entry.link_target):
        yield entry_finding(entry, "bad_link", "is a link whose target is not a path")


def entry_finding(entry: TreeEntry, code: str, what: str, *, help_text: str = "") -> Finding:
    """Say something about one entry as a whole."""
    path = escape_path(entry.path[:LONGEST_PATH])
    return Finding(code=code, message=f'"{path[:200]}" {what}', file=f"workspace/{path}", help=help_text)


def escape_path(path: str) -> str:
    """Return a path as a terminal may see it: control characters escaped."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in path)


def is_path(path: str) -> bool:
    """Whether a path can be kept and shown: not too long, no control characters."""
    return len(path) <= LONGEST_PATH and not any(ord(letter) < 32 or ord(letter) == 127 for letter in path)


def group_by_job(entries: Iterable[TreeEntry]) -> dict[str, tuple[TreeEntry, ...]]:
    """Return the files of each directory under `jobs/`, paths relative to it."""
    jobs: dict[str, list[TreeEntry]] = {}
    for entry in entries:
        parts = entry.path.split("/", 2)
        if parts[0] == "jobs" and len(parts) == 3:
            jobs.setdefault(parts[1], []).append(replace(entry, path=parts[2]))
    return {job: tuple(files) for job, files in sorted(jobs.items())}
