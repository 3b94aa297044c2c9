"""Jump hosts (`ProxyJump` in the bucket's OpenSSH configuration): each is logged in to once and shared by everybody behind it.

asyncssh by itself would log in to the jump host again for every worker behind it, with the user's own known_hosts and keys.
"""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import asyncssh

from maand_executor.ssh.client_config import Hop
from maand_executor.ssh.errors import SshError

OpenJump = Callable[[Hop, asyncssh.SSHClientConnection | None], Coroutine[Any, Any, asyncssh.SSHClientConnection]]
"""Logs in to a jump host, directly or through the one before it."""


@dataclass(frozen=True, kw_only=True)
class Way:
    """One host to log in to, and the open connection to the jump host in front of it, if there is one."""

    hop: Hop
    jump: Hop | None = None
    tunnel: asyncssh.SSHClientConnection | None = None


class Jumps:
    """Connections to jump hosts, by the way to each. Whoever waits for one waits for no other."""

    def __init__(self, log_in: OpenJump) -> None:
        self._log_in = log_in
        self._logins: dict[tuple[Hop, ...], asyncio.Task[asyncssh.SSHClientConnection]] = {}

    async def open(self, hops: tuple[Hop, ...], *, worker: str) -> asyncssh.SSHClientConnection | None:
        """Return a connection to the last of these jump hosts, opening what is not open; None for a worker behind none.

        Raises what logging in raises, as an error of the worker that names the jump host.
        """
        tunnel: asyncssh.SSHClientConnection | None = None
        for number, hop in enumerate(hops, start=1):
            try:
                tunnel = await asyncio.shield(self._find_login(hops[:number], tunnel))
            except SshError as error:
                raise error.of_jump_host(hop.as_jump_for(worker), worker=worker) from error
        return tunnel

    async def close(self) -> None:
        """Close them, the furthest first."""
        for way in sorted(self._logins, key=len, reverse=True):
            login = self._logins[way]
            login.cancel()
            with suppress(asyncio.CancelledError, SshError):
                connection = await login
                connection.close()
                await connection.wait_closed()
        self._logins.clear()

    def _find_login(
        self, way: tuple[Hop, ...], tunnel: asyncssh.SSHClientConnection | None
    ) -> asyncio.Task[asyncssh.SSHClientConnection]:
        """Return the login to the last host of a way, under way or done; a new one when that failed or was lost."""
        login = self._logins.get(way)
        if login is None or is_lost(login):
            login = asyncio.create_task(self._log_in(way[-1], tunnel), name=f"ssh login to jump host {way[-1].name}")
            login.add_done_callback(is_lost)  # looks at its error: perhaps nobody waits for it any more
            self._logins[way] = login
        return login


def is_lost(login: asyncio.Task[asyncssh.SSHClientConnection]) -> bool:
    """Whether a login failed, or its connection was closed."""
    return login.done() and (login.cancelled() or login.exception() is not None or login.result().is_closed())
