"""File content on this executor's disk: stored by digest, fetched from the catalog once, linked wherever it is needed.

    blobs/ab/<digest>.<mode>     one inode per content and permission bits; hooks and copies get hard links to it
    blobs/incoming/              being written; renamed when the digest was verified

A hook could write through a hard link although the file is read-only to it (root may). Stored files carry one fixed modification
time: a file that no longer has it was written to, and is fetched anew.
"""

import asyncio
import hashlib
import os
import shutil
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from tempfile import NamedTemporaryFile, mkstemp
from typing import Protocol

from maand_executor.catalog_client import BlobPiece
from maand_executor.errors import ExecutorError

STORED_AT = 315_619_200
"""Modification time of stored files: 2 January 1980, long before anybody could write to one."""
MODE_BITS = 0o777
KEPT_UNUSED = timedelta(days=30)
"""How long a content stays that nobody links; what is wanted after all is fetched again."""


class ContentDamaged(ExecutorError):
    """Content arrived that does not match its digest. Run it again; when it happens again, the catalog's storage is damaged."""

    code = "content_damaged"


class BlobSource(Protocol):
    """Where content comes from: `CatalogClient`."""

    def read_blobs(self, bucket_id: str, digests: Sequence[bytes]) -> AsyncIterator[BlobPiece]:
        """Yield contents piece by piece."""
        ...


@dataclass(frozen=True, kw_only=True)
class TreeEntry:
    """One path of a tree: a stored content, some bytes of its own (never stored), or a symbolic link."""

    path: str
    mode: int = 0o644
    sha256: bytes = b""
    data: bytes | None = None
    link_target: str = ""


class ContentStore:
    """One per executor. Every method may be called from many tasks at once; each content is fetched by one of them."""

    def __init__(self, directory: Path, source: BlobSource) -> None:
        self._directory = directory
        self._source = source
        self._fetching: dict[bytes, asyncio.Event] = {}
        self._incoming.mkdir(parents=True, exist_ok=True, mode=0o700)
        for leftover in self._incoming.iterdir():
            leftover.unlink()
        self.prune(KEPT_UNUSED)

    async def ensure(self, bucket_id: str, digests: Iterable[bytes]) -> None:
        """Have these contents on disk. Raises `RemoteError` when the catalog does not give them, `ContentDamaged`.

        A content that another task fetches is waited for; should that task fail, this one fetches it.
        """
        wanted = tuple(dict.fromkeys(digests))
        while missing := [digest for digest in wanted if not is_intact(self.path(digest))]:
            mine = [digest for digest in missing if digest not in self._fetching]
            if mine:
                await self._fetch(bucket_id, mine)
            else:
                await self._fetching[missing[0]].wait()

    def path(self, digest: bytes, mode: int = 0o444) -> Path:
        """Return where a content with these permission bits is, or would be."""
        return Path(self._stored(digest, mode))

    def read(self, digest: bytes) -> bytes:
        """Return a content that is on disk."""
        return self.path(digest).read_bytes()

    def materialise(self, entries: Iterable[TreeEntry], directory: Path, *, read_only: bool = False) -> None:
        """Make a tree whose contents are on disk already, by hard links; run it in a thread when it is large.

        `read_only` clears the write bits, for trees that run things which must not write into shared content.
        """
        made: set[str] = set()
        for entry in entries:
            target = f"{directory}/{checked(entry.path)}"
            parent = target.rpartition("/")[0]
            if parent not in made:
                Path(parent).mkdir(parents=True, exist_ok=True)
                made.add(parent)
            self._place(entry, target, entry.mode & (0o555 if read_only else MODE_BITS))

    def prune(self, older_than: timedelta) -> int:
        """Delete contents that were not linked for so long and return how many. Linking and unlinking renew a file's ctime."""
        limit = time.time() - older_than.total_seconds()
        deleted = 0
        for path in self._directory.glob("??/*"):
            status = path.stat()
            if status.st_ctime < limit and status.st_nlink == 1:
                path.unlink()
                deleted += 1
        return deleted

    @property
    def _incoming(self) -> Path:
        return self._directory / "incoming"

    def _stored(self, digest: bytes, mode: int) -> str:
        name = digest.hex()
        return f"{self._directory}/{name[:2]}/{name[2:]}.{mode & MODE_BITS:03o}"

    def _place(self, entry: TreeEntry, target: str, mode: int) -> None:
        if entry.link_target:
            Path(target).symlink_to(entry.link_target)
        elif entry.data is not None:
            write_private(Path(target), entry.data, mode)
        else:
            self._link(entry.sha256, mode, target)

    def _link(self, digest: bytes, mode: int, target: str) -> None:
        stored = self._stored(digest, mode)
        if not is_intact(stored):
            self._make_variant(digest, Path(stored), mode)
        try:
            os.link(stored, target)
        except OSError:  # another file system, or as many links as an inode can have
            shutil.copyfile(stored, target)
            Path(target).chmod(mode)

    def _make_variant(self, digest: bytes, stored: Path, mode: int) -> None:
        descriptor, name = mkstemp(dir=self._incoming)
        os.close(descriptor)
        shutil.copyfile(self.path(digest), name)
        store(Path(name), stored, mode)

    async def _fetch(self, bucket_id: str, digests: Sequence[bytes]) -> None:
        ended = asyncio.Event()
        self._fetching |= dict.fromkeys(digests, ended)
        try:
            await self._receive(bucket_id, digests)
        finally:
            for digest in digests:
                del self._fetching[digest]
            ended.set()

    async def _receive(self, bucket_id: str, digests: Sequence[bytes]) -> None:
        receiver = Receiver(self._incoming)
        try:
            async for piece in self._source.read_blobs(bucket_id, digests):
                received = receiver.take(piece)
                if received:
                    store(received, self.path(piece.sha256), 0o444)
        finally:
            receiver.close()


class Receiver:
    """Writes one content after the other into a temporary file and verifies it."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._begin()

    def take(self, piece: BlobPiece) -> Path | None:
        """Write one piece. Return the file when it was the last one and the digest is right. Raises `ContentDamaged`."""
        if piece.offset == 0:
            self._file.truncate(0)
            self._file.seek(0)
            self._hash = hashlib.sha256()
        self._file.write(piece.data)
        self._hash.update(piece.data)
        if not piece.last:
            return None
        if self._hash.digest() != piece.sha256:
            raise ContentDamaged(f"the catalog sent content that is not {piece.sha256.hex()}")
        self._file.close()
        finished = Path(self._file.name)
        self._begin()
        return finished

    def close(self) -> None:
        """Delete what was begun."""
        self._file.close()
        with suppress(FileNotFoundError):
            Path(self._file.name).unlink()

    def _begin(self) -> None:
        self._file = NamedTemporaryFile(dir=self._directory, delete=False)  # noqa: SIM115 - closed by `take` and `close`
        self._hash = hashlib.sha256()


def store(received: Path, stored: Path, mode: int) -> None:
    """Give a complete file its permission bits and time, and put it in place at once."""
    received.chmod(mode)
    os.utime(received, (STORED_AT, STORED_AT))
    stored.parent.mkdir(exist_ok=True, mode=0o700)
    received.replace(stored)


def is_intact(stored: str | Path) -> bool:
    """Whether a content is on disk and nobody wrote to it."""
    try:
        return os.stat(stored).st_mtime == STORED_AT  # noqa: PTH116 - asked of every file of every invocation; pathlib is 5 × slower
    except FileNotFoundError:
        return False


def write_private(target: Path, data: bytes, mode: int) -> None:
    """Write a file that never was readable to more than `mode` allows."""
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(descriptor, mode)
        file.write(data)


def checked(path: str) -> str:
    """Return the path when it stays inside the tree. The catalog checked it; a directory of this host is worth a second look."""
    if path.startswith("/") or ".." in path.split("/"):
        raise ContentDamaged(f"{path} does not stay inside its tree")
    return path
