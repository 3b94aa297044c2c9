"""The runtime digest: one number for everything that goes to a worker for one allocation.

SHA-256 over the sorted (path, mode, content digest) of the files, certificates included. Hooks and the manifest never go to a
worker and are no part of it, so editing a hook restarts nothing.
"""

import hashlib
from collections.abc import Iterable

from maand_executor.rules.facts import PlannedFile


def runtime_digest(files: Iterable[PlannedFile]) -> bytes:
    """Return the digest of a set of files, whatever their order."""
    total = hashlib.sha256()
    for file in sorted(files, key=lambda file: file.path):
        total.update(f"{file.path}\0{file.mode & 0o777:o}\0".encode())
        total.update(file.sha256)
    return total.digest()


def content_digest(data: bytes) -> bytes:
    """Return the digest of one content."""
    return hashlib.sha256(data).digest()


def changed_paths(before: Iterable[PlannedFile], after: Iterable[PlannedFile]) -> tuple[str, ...]:
    """Return the paths that were added, removed, or differ in content or mode, sorted."""
    old = {file.path: (file.mode & 0o777, file.sha256) for file in before}
    new = {file.path: (file.mode & 0o777, file.sha256) for file in after}
    return tuple(sorted(path for path in old.keys() | new.keys() if old.get(path) != new.get(path)))
