"""Pinned SSH host keys: `secrets/known_hosts`, OpenSSH's format, parsed once and again only when the file changed.

A path given to asyncssh would be read and parsed at every connect, on the event loop: 4 ms each with a few hundred workers.
"""

import os
import tempfile
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

import asyncssh

from maand_executor.ssh.errors import KnownHostsUnreadable, KnownHostsUnwritable

SSH_PORT = 22


@dataclass(frozen=True, kw_only=True)
class HostKey:
    """One public host key of a worker. `text` is algorithm and key as in known_hosts."""

    algorithm: str
    fingerprint: str
    text: str


class PinState(StrEnum):
    """How a key compares with what is pinned."""

    PINNED = "pinned"
    UNKNOWN = "unknown"
    CHANGED = "changed"


@dataclass(frozen=True, kw_only=True)
class Pin:
    """Keys to pin for a host, beside those pinned or, with `replace`, in their place."""

    host: str
    port: int
    keys: tuple[HostKey, ...]
    replace: bool = False


def describe_host_key(key: asyncssh.SSHKey) -> HostKey:
    """Describe a public key."""
    text = key.export_public_key("openssh").decode().split()
    return HostKey(algorithm=text[0], fingerprint=key.get_fingerprint(), text=f"{text[0]} {text[1]}")


def host_name(host: str, port: int) -> str:
    """Return the name under which known_hosts keeps a host."""
    return host if port == SSH_PORT else f"[{host}]:{port}"


class Stamp(NamedTuple):
    """What tells whether the file is still the one that was read."""

    size: int
    changed_ns: tuple[int, int]
    """Times of modification and of change."""
    inode: int


class HostKeys:
    """The pinned keys of one bucket."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp: Stamp | None = None
        self._parsed = asyncssh.import_known_hosts("")

    def current(self) -> asyncssh.SSHKnownHosts:
        """Return what is pinned now, as asyncssh takes it. Raises `KnownHostsUnreadable`."""
        stamp = self._file_stamp()
        if stamp != self._stamp:
            text = self._path.read_text(encoding="utf-8", errors="replace") if stamp else ""
            try:
                self._parsed = asyncssh.import_known_hosts(text)
            except ValueError as error:
                raise KnownHostsUnreadable(str(self._path), str(error)) from error
            self._stamp = stamp
        return self._parsed

    def pinned(self, host: str, port: int) -> tuple[HostKey, ...]:
        """Return the keys pinned for a host."""
        keys = self.current().match(host, "", None if port == SSH_PORT else port)[0]
        return tuple(describe_host_key(key) for key in keys)

    def states_of(self, host: str, port: int, shown: Sequence[HostKey]) -> tuple[PinState, ...]:
        """Compare the keys that a host shows with those pinned for it, each.

        A host that shows its pinned key is that host: a key of another type is one more of it, not pinned yet. A host that shows
        no pinned key, or another one of a pinned type, has changed.
        """
        pinned = self.pinned(host, port)
        texts, types = {key.text for key in pinned}, {key.algorithm for key in pinned}
        is_known = any(key.text in texts for key in shown)

        def compare(key: HostKey) -> PinState:
            if key.text in texts:
                return PinState.PINNED
            is_one_more = is_known and key.algorithm not in types
            return PinState.UNKNOWN if is_one_more or not pinned else PinState.CHANGED

        return tuple(compare(key) for key in shown)

    def pin(self, pins: Sequence[Pin]) -> None:
        """Pin keys of many hosts at once; the file is replaced as a whole, mode 0600. Blocks: it reads, writes and syncs a file.

        What somebody else wrote meanwhile is taken in. Raises `KnownHostsUnwritable`.
        """
        try:
            while True:
                before = self._file_stamp()
                lines = self._path.read_text(encoding="utf-8").splitlines() if before else []
                with written_beside(self._path, "".join(f"{line}\n" for line in with_pins(lines, pins))) as written:
                    if self._file_stamp() == before:
                        written.replace(self._path)
                        return
        except OSError as error:
            raise KnownHostsUnwritable(str(self._path), error.strerror or str(error)) from error

    def pin_at_first_sight(self, host: str, port: int, key: HostKey) -> None:
        """Pin the key of a host that has none, by one more line: what a login can afford also while 1,000 workers are new.

        Rewriting, syncing and reading the file again each time is quadratic: 12 s of the event loop for 1,000 workers. The line
        is not synced: after a power cut the worker is seen for the first time once more. Raises `KnownHostsUnwritable`.
        """
        known = self.current()
        before = self._stamp
        line = f"{host_name(host, port)} {key.text}\n"
        if before and before.size and not self._ends_with_newline():
            line = f"\n{line}"
        try:
            append_privately(self._path, line)
        except OSError as error:
            raise KnownHostsUnwritable(str(self._path), error.strerror or str(error)) from error
        self._stamp = self._file_stamp()
        if self._stamp is None or self._stamp.size != (before.size if before else 0) + len(line.encode()):
            self._stamp = None  # somebody else wrote too: `current` reads the file again
        else:
            known.load(line)

    def _ends_with_newline(self) -> bool:
        with self._path.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read(1) == b"\n"

    def _file_stamp(self) -> Stamp | None:
        try:
            status = self._path.stat()
        except FileNotFoundError:
            return None
        return Stamp(size=status.st_size, changed_ns=(status.st_mtime_ns, status.st_ctime_ns), inode=status.st_ino)


def with_pins(lines: Sequence[str], pins: Sequence[Pin]) -> list[str]:
    """Return the lines of known_hosts with keys pinned, beside those of their hosts or in their place."""
    replaced = frozenset(host_name(pin.host, pin.port) for pin in pins if pin.replace)
    kept = [line for line in lines if not pins_one_of(line, replaced)]
    present = frozenset(kept)
    added = [f"{host_name(pin.host, pin.port)} {key.text}" for pin in pins for key in pin.keys]
    return [*kept, *dict.fromkeys(line for line in added if line not in present)]


def pins_one_of(line: str, names: Collection[str]) -> bool:
    """Whether a line of known_hosts pins a key for one of these names, in clear or hashed; patterns and markers never do."""
    first = line.split(maxsplit=1)[0] if line.strip() else ""
    if names and first.startswith("|"):
        hashed = asyncssh.import_known_hosts(line)
        return any(hashed.match(name, "", None)[0] for name in names)
    return first in names


def append_privately(path: Path, text: str) -> None:
    """Add text to a file in one write; a new file is readable only by this user."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


@contextmanager
def written_beside(path: Path, text: str) -> Iterator[Path]:
    """Write a file that shall replace another one, readable only by this user; it is deleted unless the block moves it."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    written = Path(name)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        yield written
    finally:
        written.unlink(missing_ok=True)
