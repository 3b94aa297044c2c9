"""As whom we log in: with the bucket's private key, or the agent's keys, and those that `ssh_config` names for a host.

    bucket's    secrets/<ssh_key>; where `ssh_key` is "" or that file is missing, the agent of SSH_AUTH_SOCK
    configured  IdentityAgent (restricted by IdentitiesOnly), IdentityFile, CertificateFile of `ssh_config`

A worker is offered the bucket's first, a jump host the configured ones: a bastion often has a key of its own.
"""

import os
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TypeVar, cast

import asyncssh

from maand_executor.ssh.agent import Agent
from maand_executor.ssh.client_config import Hop, expand_path
from maand_executor.ssh.errors import AgentUnusable, KeyUnusable, SshError

Parsed = TypeVar("Parsed")


@dataclass(kw_only=True)
class Identity:
    """What one login brings along to prove who we are."""

    keys: list[asyncssh.SSHKey | asyncssh.SSHKeyPair] = field(default_factory=list)
    certificates: list[asyncssh.SSHCertificate] = field(default_factory=list)
    """asyncssh offers those that fit a key before the bare key."""
    names: list[str] = field(default_factory=list)
    """What is offered, for people: files and agents."""
    problems: list[str] = field(default_factory=list)
    """Why something is not offered."""
    agents: list[Agent] = field(default_factory=list)

    @property
    def signing_problem(self) -> str:
        """Why an agent did not sign; empty where none was asked, or all did."""
        return next((agent.signing_problem for agent in self.agents if agent.signing_problem), "")

    def describe(self) -> str:
        """Say what was offered, and what could not be."""
        return "; ".join([f"offered: {', '.join(self.names)}", *self.problems])


@dataclass(frozen=True, kw_only=True)
class KeyFile:
    """A key file as parsed. Without a private half it only chooses among an agent's keys."""

    public: bytes
    private: asyncssh.SSHKey | None = None
    problem: str = ""
    """Why a private key that is there cannot be used."""


class Credentials:
    """The keys of one bucket. Files are parsed once, and again only when they changed."""

    def __init__(
        self,
        secrets: Path,
        ssh_key: str,
        *,
        environment: Mapping[str, str] = os.environ,
        agent_timeout: timedelta = timedelta(seconds=5),
    ) -> None:
        self._agent_timeout = agent_timeout
        self._path = secrets / ssh_key if ssh_key else None
        self._environment = environment
        self._parsed: dict[tuple[Path, object], tuple[tuple[int, ...], object]] = {}

    @asynccontextmanager
    async def identify(self, hop: Hop) -> AsyncIterator[Identity]:
        """Give the keys to offer a host, in order, for as long as the login takes. Raises `KeyUnusable`, `AgentUnusable`."""
        identity = Identity()
        try:
            for offer in (self._offer_configured, self._offer_own) if hop.is_jump else (self._offer_own, self._offer_configured):
                await offer(identity, hop)
            if not identity.keys:
                raise nothing_to_offer(identity, hop)
            yield identity
        finally:
            for agent in identity.agents:
                agent.close()

    async def _offer_own(self, identity: Identity, hop: Hop) -> None:
        """Add the bucket's key, or the agent's where there is none; another agent of `ssh_config` takes its place."""
        agent = self._find_own_agent()
        if self._path is not None and not agent:
            self._offer_file(identity, self._path, "the private key ")
        elif hop.identity_agent is None and agent:
            await self._offer_agent(identity, hop, agent)
        elif hop.identity_agent is None:
            identity.problems.append("maand.conf names no ssh_key, and no SSH agent is known (SSH_AUTH_SOCK is not set)")

    def _find_own_agent(self) -> str:
        """Return the socket of the agent to ask; empty where the key is used, or no agent is known."""
        socket = self._environment.get("SSH_AUTH_SOCK", "")
        if self._path is None:
            return socket
        return socket if os.path.lexists(socket) and not self._path.exists() else ""

    async def _offer_configured(self, identity: Identity, hop: Hop) -> None:
        """Add what `ssh_config` names."""
        socket = self._find_configured_agent(hop)
        if socket:
            await self._offer_agent(identity, hop, socket)
        for written in hop.identity_files:
            self._offer_file(identity, expand_path(written), "IdentityFile ")
        identity.certificates += self._read_certificates(map(expand_path, hop.certificate_files))

    def _find_configured_agent(self, hop: Hop) -> str:
        written = hop.identity_agent or "none"
        if written == "none":
            return ""
        if written == "SSH_AUTH_SOCK" or written.startswith("$"):
            return self._environment.get(written.removeprefix("$"), "")
        return str(expand_path(written))

    async def _offer_agent(self, identity: Identity, hop: Hop, socket: str) -> None:
        """Add an agent's keys, those first that an IdentityFile names; only those with IdentitiesOnly."""
        agent = Agent(socket, limit=self._agent_timeout)
        identity.agents.append(agent)
        keys = await agent.list_keys()
        if agent.problem:
            identity.problems.append(agent.problem)
            return
        named = self._find_named(hop)
        first = [key for key in keys if key.public_data in named]
        others = [key for key in keys if key.public_data not in named]
        chosen = first if hop.identities_only else [*first, *others]
        if chosen:
            identity.keys += chosen
            identity.names.append(f"{len(chosen)} keys of {agent.name}" if len(chosen) > 1 else f"the key of {agent.name}")
        else:
            identity.problems.append(f"{agent.name} holds no key that IdentityFile names, and IdentitiesOnly allows no other")

    def _offer_file(self, identity: Identity, path: Path, what: str) -> None:
        """Add a private key, and the certificate beside it. A public key adds nothing: it chooses among an agent's keys."""
        try:
            key = self._parse(path, read_key_file)
        except OSError as error:
            identity.problems.append(f"cannot read {what}{path}: {error.strerror}")
        except ValueError as error:
            identity.problems.append(f"cannot use {what}{path}: {error}")
        else:
            if key.private is not None:
                identity.keys.append(key.private)
                identity.certificates += self._read_certificates([certificate_beside(path)])
                identity.names.append(str(path))
            elif key.problem:
                identity.problems.append(f"cannot use {what}{path}: {key.problem}")

    def _find_named(self, hop: Hop) -> set[bytes]:
        """Return the public keys and certificates that `ssh_config` names, for choosing among an agent's."""
        named = {certificate.public_data for certificate in self._read_certificates(map(expand_path, hop.certificate_files))}
        for path in map(expand_path, hop.identity_files):
            with suppress(OSError, ValueError):
                named.add(self._parse(path, read_key_file).public)
            named |= {certificate.public_data for certificate in self._read_certificates([certificate_beside(path)])}
        return named

    def _read_certificates(self, paths: Iterable[Path]) -> list[asyncssh.SSHCertificate]:
        found = []
        for path in paths:
            with suppress(OSError, ValueError):
                found.append(self._parse(path, asyncssh.read_certificate))
        return found

    def _parse(self, path: Path, read: Callable[[Path], Parsed]) -> Parsed:
        """Read a file, or return what it was when it has not changed. Raises OSError, ValueError."""
        status = path.stat()
        stamp = (status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
        known = self._parsed.get((path, read))
        if known is not None and known[0] == stamp:
            return cast("Parsed", known[1])
        parsed = read(path)
        self._parsed[path, read] = stamp, parsed
        return parsed


def nothing_to_offer(identity: Identity, hop: Hop) -> SshError:
    """Say why there is no key at all for a host."""
    if any(agent.problem for agent in identity.agents):
        return AgentUnusable(hop.name, "; ".join(identity.problems))
    return KeyUnusable(hop.name, "; ".join(identity.problems) or "ssh_config names public keys only, and no agent")


def read_key_file(path: Path) -> KeyFile:
    """Read a private key, or the public half of one that a passphrase closes. Raises OSError, ValueError."""
    try:
        private = asyncssh.read_private_key(path)
    except asyncssh.KeyImportError as error:
        for place in (path, Path(f"{path}.pub")):
            with suppress(OSError, ValueError):
                public = asyncssh.read_public_key(place)
                return KeyFile(public=public.public_data, problem="" if place == path else str(error))
        raise
    return KeyFile(public=private.public_data, private=private)


def certificate_beside(key: Path) -> Path:
    """Return where OpenSSH looks for a key's certificate."""
    return Path(f"{key}-cert.pub")
