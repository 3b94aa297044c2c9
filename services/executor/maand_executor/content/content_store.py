"""File content on this executor's disk: stored by digest, fetched from the catalog once, copied wherever it is needed.

    blobs/ab/<digest>            one file per content, which nobody else has a link to
    blobs/incoming/              being written; renamed when the digest was verified

Nothing leaves the store that was not hashed: a hook, which runs as the executor's user, may have found its way here, and a host
that lost its power may have kept a name without the bytes. What this process hashed itself is trusted for as long as the file
has the same inode, size, mtime and ctime: every write sets the ctime to now, and no ordinary process can set it back. A process
that just started has hashed nothing yet, so files need no fsync.

Trees have thousands of files, where pathlib is 5 × slower: `os` and strings are used for what is done to each.
"""

import asyncio
import errno
import hashlib
import os
import shutil
import time
import uuid
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import BinaryIO, Protocol

import structlog

from maand_executor.catalog_client import BlobPiece
from maand_executor.errors import ExecutorError
from maand_wire.host_faults import host_faults_at

log = structlog.get_logger("maand.executor")

Mark = tuple[int, int, int, int]
"""Inode, size, mtime and ctime of a file when it was hashed."""

DIRECTORY_MODE = 0o755
"""Mode of the directories that a tree only implies, whatever the umask: trees become directories on workers."""
STORED_MODE = 0o400
MODE_BITS = 0o777
SETTLED = timedelta(milliseconds=100)
"""Age of a change at which it is remembered that a content was right. The kernel's clock for ctimes ticks every 1 to 10 ms: a
second write within the same tick would not show."""
MARKED_AS_USED = timedelta(days=1)
"""How often the mtime of a content that is used is renewed, for `prune`."""
KEPT_UNUSED = timedelta(days=30)
"""How long a content stays that nobody uses; what is wanted after all is fetched again."""
UNUSABLE = frozenset({errno.ENOENT, errno.EACCES, errno.ELOOP, errno.EISDIR, errno.EIO})
"""What says that a stored file is not there, is no file any more, or cannot be read: fetch it anew."""
LONGEST_COPY = 1 << 30


class ContentDamaged(ExecutorError):
    """A content does not match its digest. Run it again; when it happens again, this host's disk or the catalog's is damaged."""

    code = "content_damaged"


class BlobSource(Protocol):
    """Where content comes from: `CatalogClient`."""

    def read_blobs(self, bucket_id: str, digests: Sequence[bytes]) -> AsyncIterator[BlobPiece]:
        """Yield contents piece by piece."""
        ...


@dataclass(frozen=True, kw_only=True)
class TreeEntry:
    """One path of a tree: a stored content, some bytes of its own (never stored), a symbolic link, or a directory."""

    path: str
    mode: int = 0o644
    sha256: bytes = b""
    data: bytes | None = None
    link_target: str = ""
    directory: bool = False


class ContentStore:
    """One per executor. Every method may be called from many tasks at once; each content is fetched by one of them."""

    def __init__(self, directory: Path, source: BlobSource) -> None:
        self._directory = directory
        self._source = source
        self._busy: dict[bytes, asyncio.Event] = {}
        self._hashed: dict[bytes, Mark] = {}
        self._incoming.mkdir(parents=True, exist_ok=True, mode=0o700)
        for leftover in self._incoming.iterdir():
            leftover.unlink()
        self.prune(KEPT_UNUSED)

    async def ensure(self, bucket_id: str, digests: Iterable[bytes]) -> None:
        """Have these contents on disk; what is not as it was stored is fetched anew.

        A content that another task looks after is waited for, then looked at again: that task may have failed.
        Raises `RemoteError` when the catalog does not give them, `ContentDamaged` when it gives something else, `HostFault`.
        """
        unsure = self._unknown(digests)
        while unsure:
            free = [digest for digest in unsure if digest not in self._busy]
            if free:
                await self._look_after(bucket_id, free)
                unsure = [digest for digest in unsure if digest not in free]
            else:
                await self._busy[unsure[0]].wait()
                unsure = self._unknown(unsure)

    def path(self, digest: bytes) -> Path:
        """Return where a content is, or would be."""
        return Path(self._stored(digest))

    def read(self, digest: bytes) -> bytes:
        """Return a content that is on disk. Raises FileNotFoundError, `ContentDamaged`."""
        data = self.path(digest).read_bytes()
        if hashlib.sha256(data).digest() != digest:
            raise self._damaged(digest)
        return data

    def keep(self, data: bytes) -> None:
        """Store a content that was made here."""
        digest = hashlib.sha256(data).digest()
        if self._is_intact(digest):
            return
        receiver = Receiver(self._incoming)
        try:
            received = receiver.take(BlobPiece(sha256=digest, offset=0, data=data, last=True))
            assert received
            move_into_store(received, self.path(digest))
        finally:
            receiver.close()

    def materialise(self, entries: Iterable[TreeEntry], directory: Path, *, shared: Path | None = None) -> None:
        """Make a tree of copies, whose contents `ensure` had on disk; run it in a thread when it is large.

        Whoever gets the tree may do with it what they like. With `shared`, a directory that belongs to trees which nobody writes
        to, each content is copied there once, and trees get hard links to that. Raises `HostFault`, OSError, `ContentDamaged`.
        """
        with host_faults_at(directory):
            self._materialise(entries, directory, shared)

    def _materialise(self, entries: Iterable[TreeEntry], directory: Path, shared: Path | None) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        made = {""}
        modes: dict[str, int] = {}
        for entry in entries:
            path = path_inside_tree(entry.path)
            make_directories(directory, path if entry.directory else path.rpartition("/")[0], made)
            if entry.directory:
                modes[path] = entry.mode & MODE_BITS
            else:
                self._place(entry, f"{directory}/{path}", shared)
        for path, mode in modes.items():  # last, because what may not be written to still has to be filled
            Path(directory, path).chmod(mode)

    def prune(self, older_than: timedelta) -> int:
        """Delete contents that were not used for so long and return how many."""
        limit = time.time() - older_than.total_seconds()
        deleted = 0
        for path in self._directory.glob("??/*"):
            if path.lstat().st_mtime < limit:
                path.unlink()
                deleted += 1
        return deleted

    @property
    def _incoming(self) -> Path:
        return self._directory / "incoming"

    def _stored(self, digest: bytes) -> str:
        name = digest.hex()
        return f"{self._directory}/{name[:2]}/{name[2:]}"

    def _unknown(self, digests: Iterable[bytes]) -> list[bytes]:
        return [digest for digest in dict.fromkeys(digests) if not self._is_known(digest)]

    def _is_known(self, digest: bytes) -> bool:
        """Whether a content is on disk as this process hashed it, which is asked of every file of every hook's directory."""
        mark = self._hashed.get(digest)
        if mark is None:
            return False
        try:
            status = os.lstat(self._stored(digest))
        except FileNotFoundError:
            return False
        return mark_of(status) == mark and was_used_lately(status)

    def _is_intact(self, digest: bytes) -> bool:
        return self._is_known(digest) or self._verify(digest)

    def _verify(self, digest: bytes) -> bool:
        """Hash a content, and remember how its file looked before that: whoever writes to it meanwhile will be noticed."""
        try:
            descriptor = os.open(self._stored(digest), os.O_RDONLY | os.O_NOFOLLOW)
            with os.fdopen(descriptor, "rb") as file:
                if not was_used_lately(os.fstat(descriptor)):
                    with suppress(OSError):  # a file system that became read-only
                        os.utime(descriptor)
                status = os.fstat(descriptor)
                settled = time.time() - status.st_ctime > SETTLED.total_seconds()
                found = hashlib.file_digest(file, "sha256").digest()
        except OSError as error:
            if error.errno in UNUSABLE:
                return False
            raise
        if found != digest:
            log.warning("stored content was changed on this host's disk", path=self._stored(digest))
            return False
        if settled:
            self._hashed[digest] = mark_of(status)
        return True

    def _place(self, entry: TreeEntry, target: str, shared: Path | None) -> None:
        mode = entry.mode & MODE_BITS
        if entry.link_target:
            os.symlink(entry.link_target, target)  # noqa: PTH211 - for each file
        elif entry.data is not None:
            write_private(target, entry.data, mode)
        elif shared is not None:
            self._link(entry.sha256, target, mode, shared)
        else:
            self._copy(entry.sha256, target, mode)

    def _copy(self, digest: bytes, target: str, mode: int) -> None:
        if not self._is_intact(digest):
            raise self._damaged(digest)
        with open(self._stored(digest), "rb") as source, create_file(target, mode) as copy:  # noqa: PTH123 - for each file
            copy_bytes(source, copy)

    def _link(self, digest: bytes, target: str, mode: int, shared: Path) -> None:
        common = f"{shared}/{digest.hex()}.{mode:03o}"
        if not os.access(common, os.F_OK):
            making = Path(f"{common}.{uuid.uuid4().hex}")  # another thread may make the same; the last one stays, either is right
            self._copy(digest, str(making), mode)
            making.replace(common)
        try:
            os.link(common, target)
        except OSError:  # as many links as an inode can have, or a file system without links
            self._copy(digest, target, mode)

    def _damaged(self, digest: bytes) -> ContentDamaged:
        return ContentDamaged(
            f"{self._stored(digest)} does not hold the content it is named after: something on this host wrote to it, "
            "or the disk is damaged; run it again, the content is fetched anew"
        )

    async def _look_after(self, bucket_id: str, digests: Sequence[bytes]) -> None:
        ended = asyncio.Event()
        self._busy |= dict.fromkeys(digests, ended)
        try:
            with host_faults_at(self._directory):
                missing = await asyncio.to_thread(lambda: [digest for digest in digests if not self._is_intact(digest)])
                if missing:
                    await self._receive(bucket_id, missing)
        finally:
            for digest in digests:
                del self._busy[digest]
            ended.set()

    async def _receive(self, bucket_id: str, digests: Sequence[bytes]) -> None:
        receiver = Receiver(self._incoming)
        try:
            async for piece in self._source.read_blobs(bucket_id, digests):
                received = receiver.take(piece)
                if received:
                    move_into_store(received, self.path(piece.sha256))
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
        with suppress(OSError):  # a full disk: what is not written yet never will be
            self._file.close()
        with suppress(FileNotFoundError):
            Path(self._file.name).unlink()

    def _begin(self) -> None:
        self._file = NamedTemporaryFile(dir=self._directory, delete=False)  # noqa: SIM115 - closed by `take` and `close`
        self._hash = hashlib.sha256()


def move_into_store(received: Path, stored: Path) -> None:
    """Put a complete file in place at once."""
    received.chmod(STORED_MODE)
    stored.parent.mkdir(exist_ok=True, mode=0o700)
    received.replace(stored)


def mark_of(status: os.stat_result) -> Mark:
    """Return what changes when somebody writes to a file."""
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def was_used_lately(status: os.stat_result) -> bool:
    """Whether the mtime of a content needs no renewal."""
    return time.time() - status.st_mtime < MARKED_AS_USED.total_seconds()


def make_directories(top: Path, path: str, made: set[str]) -> None:
    """Make a directory below `top` and those above it; `made` says which are there, and is added to."""
    if path in made:
        return
    make_directories(top, path.rpartition("/")[0], made)
    directory = f"{top}/{path}"
    with suppress(FileExistsError):
        Path(directory).mkdir()
        Path(directory).chmod(DIRECTORY_MODE)
    made.add(path)


def create_file(target: str, mode: int) -> BinaryIO:
    """Open a new file that never is accessible to more than `mode` allows, whatever the umask."""
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    os.fchmod(descriptor, mode)
    return os.fdopen(descriptor, "wb")


def copy_bytes(source: BinaryIO, target: BinaryIO) -> None:
    """Copy one open file to another: the blocks are shared where the file system can do that (XFS, Btrfs)."""
    with suppress(OSError):  # not on this file system or kernel; what it is really about, the plain copy meets again
        while os.copy_file_range(source.fileno(), target.fileno(), LONGEST_COPY):
            pass
    shutil.copyfileobj(source, target)  # what is left


def write_private(target: str, data: bytes, mode: int) -> None:
    """Write a file that never was readable to more than `mode` allows."""
    with create_file(target, mode) as file:
        file.write(data)


def path_inside_tree(path: str) -> str:
    """Return the path when it stays inside the tree. The catalog checked it; a directory of this host is worth a second look."""
    if path.startswith("/") or ".." in path.split("/"):
        raise ContentDamaged(f"{path} does not stay inside its tree")
    return path


def make_private_directory(directory: Path) -> None:
    """Make a directory that only this user may look into."""
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    directory.chmod(0o700)
