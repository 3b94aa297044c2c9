"""As whom we log in: the bucket's private key, parsed once and again only when its file changed, or the user's agent."""

import os
from collections.abc import Mapping
from pathlib import Path

import asyncssh

from maand_executor.ssh.errors import KeyUnusable


class Credentials:
    """The key of one bucket. No `ssh_key`, or none in `secrets/` while an agent runs: the agent's keys."""

    def __init__(self, secrets: Path, ssh_key: str, *, environment: Mapping[str, str] = os.environ) -> None:
        self._path = secrets / ssh_key if ssh_key else None
        self._agent = environment.get("SSH_AUTH_SOCK", "")
        self._stamp: tuple[int, ...] | None = None
        self._key: asyncssh.SSHKey | None = None

    @property
    def agent_path(self) -> str | None:
        """Socket of the agent to ask, or None when the key is used."""
        return self._agent if self._agent and not self._has_key() else None

    def keys(self, worker: str) -> list[asyncssh.SSHKey]:
        """Return the keys to offer; none when the agent offers its own. Raises `KeyUnusable`."""
        if self.agent_path:
            return []
        if self._path is None:
            raise KeyUnusable(worker, "maand.conf names no ssh_key, and no agent runs (SSH_AUTH_SOCK is not set)")
        return [self._read(worker, self._path)]

    def _has_key(self) -> bool:
        return self._path is not None and self._path.exists()

    def _read(self, worker: str, path: Path) -> asyncssh.SSHKey:
        try:
            status = path.stat()
            stamp = (status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
            if self._key is None or stamp != self._stamp:
                self._key, self._stamp = asyncssh.read_private_key(path), stamp
        except OSError as error:
            raise KeyUnusable(worker, f"cannot read the private key {path}: {error.strerror}") from error
        except asyncssh.KeyImportError as error:
            raise KeyUnusable(worker, f"cannot use the private key {path}: {error}") from error
        return self._key
