"""What the bucket's OpenSSH client configuration (`ssh_config` in maand.conf) says of a host: where it is, how one gets there.

docs/bucket.md lists the keywords that count. The file is read again for every login, on a thread: `Match exec` runs programs.
"""

import asyncio
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import asyncssh

from maand_executor.ssh.algorithms import ALGORITHMS_FILE
from maand_executor.ssh.errors import CannotConnect


@dataclass(frozen=True, kw_only=True)
class Hop:
    """One host that is logged in to: a worker, or a jump host on the way to one."""

    name: str
    """As `workers.json` or `ssh_config` writes it; what `Host` patterns are compared with."""
    host: str
    """The address or DNS name that is connected to: `HostName`, else the name."""
    port: int
    user: str
    is_jump: bool = False
    proxy_command: tuple[str, ...] = ()
    """Program and arguments that connect in place of TCP; empty where a jump host does."""
    identity_files: tuple[str, ...] = ()
    certificate_files: tuple[str, ...] = ()
    identities_only: bool = False
    identity_agent: str | None = None
    """As written, `none` included; None when nothing is."""

    @property
    def address(self) -> str:
        """`host:port`, an IPv6 address in brackets."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def as_jump_for(self, worker: str) -> str:
        """Name a jump host for people, with where it is and what for."""
        return f"jump host {self.name} ({self.address}), on the way to {worker}"


@dataclass(frozen=True, kw_only=True)
class Route:
    """How one gets to a worker: through which jump hosts, in order."""

    target: Hop
    jumps: tuple[Hop, ...] = ()


class ClientConfig:
    """An OpenSSH client configuration, or none."""

    def __init__(self, path: Path | None, *, limit: timedelta = timedelta(seconds=10)) -> None:
        self.path = path
        self._limit = limit

    @property
    def asyncssh_option(self) -> list[str] | None:
        """The file as asyncssh takes it, before the order of algorithms; None keeps it from reading the user's own."""
        return [str(self.path), str(ALGORITHMS_FILE)] if self.path else None

    async def find_route(self, name: str, *, port: int, user: str) -> Route:
        """Return the way to a worker. Raises `CannotConnect` naming file and line of what cannot be understood."""
        if self.path is None:
            return Route(target=Hop(name=name, host=name, port=port, user=user))
        try:
            async with asyncio.timeout(self._limit.total_seconds()):
                target, chain = await self._look_up(name, port, user)
                return Route(target=target, jumps=await self._find_jumps(chain, seen=()))
        except TimeoutError as error:
            words = f"{self._said} took longer than {self._limit.total_seconds():g} s to read"
            raise CannotConnect(name, words) from error
        except OSError as error:
            raise CannotConnect(name, f"{self._said} cannot be read: {error.strerror or error}") from error
        except ValueError as error:
            raise CannotConnect(name, f"{self._said} cannot be used: {place_of(error)}") from error

    @property
    def _said(self) -> str:
        return f"the ssh_config of maand.conf, {self.path},"

    async def _find_jumps(self, chain: str, *, seen: tuple[str, ...]) -> tuple[Hop, ...]:
        """Resolve `[user@]host[:port],…`. Only the first may have a `ProxyJump` of its own: the others are reached through it.

        A jump host that would be reached through itself (`Host *`) is reached directly.
        """
        hops: list[Hop] = []
        for written in filter(None, chain.split(",")):
            name, port, user = parse_hop(written)
            hop, before = await self._look_up(name, port, user, is_jump=True)
            if not hops and name not in seen and not names_host(before, (*seen, name)):
                hops += await self._find_jumps(before, seen=(*seen, name))
            hops.append(hop)
        return tuple(hops)

    async def _look_up(self, name: str, port: int | None, user: str | None, *, is_jump: bool = False) -> tuple[Hop, str]:
        """Return what the file says of a host, and its `ProxyJump` as written."""
        given: dict[str, Any] = {}
        if port is not None:
            given["port"] = port
        if user is not None:
            given["username"] = user
        # No keys here: asyncssh would read every file that is named, and the user's own.
        options = await asyncssh.SSHClientConnectionOptions.construct(
            host=name, config=self.asyncssh_option, client_keys=None, client_certs=[], x509_trusted_certs=None, **given
        )
        jumps = options.tunnel if isinstance(options.tunnel, str) else ""
        proxy_command = options.proxy_command
        hop = Hop(
            name=name,
            host=options.host,
            port=options.port,
            user=options.username,
            is_jump=is_jump,
            proxy_command=tuple(map(str, proxy_command)) if proxy_command and not jumps else (),
            identity_files=words_of(options.config.get("IdentityFile")),
            certificate_files=words_of(options.config.get("CertificateFile")),
            identities_only=bool(options.config.get("IdentitiesOnly")),
            identity_agent=agent_of(options.config.get("IdentityAgent", "")),
        )
        return hop, jumps


def parse_hop(hop: str) -> tuple[str, int | None, str | None]:
    """Split `[user@]host[:port]`; an IPv6 address with a port is in brackets."""
    user, _, address = hop.strip().rpartition("@")
    host, colon, port = address.rpartition(":")
    if colon and port.isdigit() and (host.startswith("[") or ":" not in host):
        return host.strip("[]"), int(port), user or None
    return address.strip("[]"), None, user or None


def names_host(chain: str, names: Sequence[str]) -> bool:
    """Whether a chain of jumps names one of these hosts."""
    return any(parse_hop(written)[0] in names for written in filter(None, chain.split(",")))


def words_of(value: object) -> tuple[str, ...]:
    """Return a keyword's values; none when it is not given, or `none`."""
    return tuple(map(str, value)) if isinstance(value, list | tuple) else ()


def agent_of(value: object) -> str | None:
    """Return `IdentityAgent` as written; asyncssh gives None for `none`."""
    return "none" if value is None else str(value) or None


def place_of(error: ValueError) -> str:
    """Say where and what in the configuration is wrong, as `file:line: reason`."""
    text = str(error)
    file, middle, rest = text.partition(" line ")
    number, colon, reason = rest.partition(": ")
    return f"{file}:{number}: {reason}" if middle and colon and number.isdigit() else text


def expand_path(written: str) -> Path:
    """Return the path that `~` stands for; a relative one counts from the services' directory, in a bucket the bucket's own."""
    return Path(os.path.expanduser(written)).absolute()  # noqa: PTH111 - Path.expanduser raises where there is no home
