"""Where the local host keeps what: paths of one bucket, and socket addresses short enough for the kernel."""

import hashlib
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

LONGEST_SOCKET_PATH = 100
"""Bytes. The kernel takes 107; the rest is for a temporary name some libraries append."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Paths of one bucket as its services use them. `state` is `tmp/`: caches and the private directories of hooks."""

    bucket: Path

    @property
    def conf(self) -> Path:
        """The settings file; without it the directory is no bucket."""
        return self.bucket / "maand.conf"

    @property
    def database(self) -> Path:
        """The SQLite file."""
        return self.bucket / "data" / "maand.db"

    @property
    def secrets(self) -> Path:
        """Keys, certificates, known hosts."""
        return self.bucket / "secrets"

    @property
    def workspace(self) -> Path:
        """What people edit; hooks find their own `.venv` there."""
        return self.bucket / "workspace"

    @property
    def state(self) -> Path:
        """What the executor may lose."""
        return self.bucket / "tmp"

    @property
    def run(self) -> Path:
        """Sockets, lock, address file."""
        return self.bucket / "run"

    @property
    def lock(self) -> Path:
        """Held while a host lives."""
        return self.run / "services.lock"

    @property
    def services_file(self) -> Path:
        """Where clients read how the services are reached."""
        return self.run / "services.json"

    @property
    def agent_link(self) -> Path:
        """Link to the socket of an SSH agent; commands keep it at that of the login in which they are typed."""
        return self.run / "agent.sock"

    @property
    def log(self) -> Path:
        """What the host logs."""
        return self.bucket / "logs" / "services.log"

    def own_directories(self) -> tuple[Path, ...]:
        """Return the directories that the host cannot do without; it makes them when they are missing."""
        return (self.run, self.state, self.database.parent)


@dataclass(frozen=True, kw_only=True)
class Place:
    """Which directory a bucket is, whatever it is called: a copy is another one, and so is what stands where a moved one was."""

    device: int
    inode: int


def place_of(bucket: Path) -> Place | None:
    """Return which directory is there now, None when there is none."""
    try:
        status = bucket.stat()
    except OSError:
        return None
    return Place(device=status.st_dev, inode=status.st_ino)


def socket_directory(layout: Layout, *, temporary: Path, uid: int) -> Path:
    """Return where sockets go: `run/`, or a directory named after the bucket when their path would be too long."""
    if len(os.fsencode(layout.run / "executor.sock")) <= LONGEST_SOCKET_PATH:
        return layout.run
    digest = hashlib.sha256(os.fsencode(layout.bucket)).hexdigest()[:16]
    return temporary / f"maand-{uid}-{digest}"


def make_socket_directory(directory: Path) -> Path:
    """Make a directory that only this user may enter; refuse one that belongs to somebody else."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    if directory.is_symlink() or directory.stat().st_uid != os.getuid():
        raise PermissionError(f"{directory} belongs to somebody else; remove it")
    directory.chmod(0o700)
    return directory


def remove_if_empty(directory: Path) -> None:
    """Remove a directory outside of the bucket when nothing is left in it: a host leaves nothing behind."""
    with suppress(OSError):
        directory.rmdir()
