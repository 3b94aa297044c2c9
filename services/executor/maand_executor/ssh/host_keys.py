"""Pinned SSH host keys: `secrets/known_hosts`, OpenSSH's format, parsed once and again only when the file changed.

A path given to asyncssh would be read and parsed at every connect, on the event loop: 4 ms each with a few hundred workers.
"""

import os
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import asyncssh

from maand_executor.ssh.errors import KnownHostsUnreadable

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


def describe(key: asyncssh.SSHKey) -> HostKey:
    """Describe a public key."""
    text = key.export_public_key("openssh").decode().split()
    return HostKey(algorithm=text[0], fingerprint=key.get_fingerprint(), text=f"{text[0]} {text[1]}")


def host_name(host: str, port: int) -> str:
    """Return the name under which known_hosts keeps a host."""
    return host if port == SSH_PORT else f"[{host}]:{port}"


class HostKeys:
    """The pinned keys of one bucket."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp: tuple[int, ...] | None = None
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
        return tuple(describe(key) for key in keys)

    def state_of(self, host: str, port: int, key: HostKey) -> PinState:
        """Compare a key with those pinned for its host; a kind of key that is not pinned yet is unknown only while none is."""
        pinned = self.pinned(host, port)
        if any(key.text == other.text for other in pinned):
            return PinState.PINNED
        return PinState.CHANGED if pinned else PinState.UNKNOWN

    def pin(self, host: str, port: int, keys: Iterable[HostKey], *, replace: bool = False) -> None:
        """Pin keys of a host, beside those pinned or in their place; the file is replaced as a whole, mode 0600."""
        name = host_name(host, port)
        lines = self._path.read_text(encoding="utf-8").splitlines() if self._path.exists() else []
        kept = [line for line in lines if not (replace and names(line, name))]
        added = [f"{name} {key.text}" for key in keys]
        write_atomically(self._path, "".join(f"{line}\n" for line in [*kept, *(line for line in added if line not in kept)]))

    def _file_stamp(self) -> tuple[int, ...] | None:
        try:
            status = self._path.stat()
        except FileNotFoundError:
            return None
        return (status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino)


def names(line: str, name: str) -> bool:
    """Whether a line of known_hosts pins a key for exactly this name, in clear or hashed; patterns and markers are left alone."""
    first = line.split(maxsplit=1)[0] if line.strip() else ""
    if first.startswith("|"):
        return bool(asyncssh.import_known_hosts(line).match(name, "", None)[0])
    return first == name


def write_atomically(path: Path, text: str) -> None:
    """Replace a file as a whole, readable only by this user."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
