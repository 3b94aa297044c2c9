"""Jump hosts (`ProxyJump` in the bucket's OpenSSH configuration): each is logged in to once and shared by everybody behind it.

asyncssh by itself would log in to the jump host again for every worker behind it, with the user's own known_hosts and keys.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import asyncssh

OpenJump = Callable[[str, int | None, str | None, dict[str, Any]], Awaitable[asyncssh.SSHClientConnection]]


class Jumps:
    """Open connections to jump hosts, by the chain of jumps as the configuration writes it."""

    def __init__(self, log_in: OpenJump) -> None:
        self._log_in = log_in
        self._open: dict[str, asyncssh.SSHClientConnection] = {}
        self._opening = asyncio.Lock()

    async def open(self, chain: str, way: dict[str, Any]) -> asyncssh.SSHClientConnection:
        """Return a connection to the last host of `[user@]host[:port],…`, opening what is not open."""
        async with self._opening:
            tunnel: asyncssh.SSHClientConnection | None = None
            hops = chain.split(",")
            for number, hop in enumerate(hops, start=1):
                so_far = ",".join(hops[:number])
                known = self._open.get(so_far)
                if known is None or known.is_closed():
                    self._open[so_far] = known = await self._hop(hop, {**way, "tunnel": tunnel})
                tunnel = known
            assert tunnel is not None
            return tunnel

    async def close(self) -> None:
        """Close them, the furthest first."""
        for chain in sorted(self._open, key=len, reverse=True):
            self._open[chain].close()
            await self._open[chain].wait_closed()
        self._open.clear()

    async def _hop(self, hop: str, way: dict[str, Any]) -> asyncssh.SSHClientConnection:
        host, port, user = parse_hop(hop)
        return await self._log_in(host, port, user, way)


def parse_hop(hop: str) -> tuple[str, int | None, str | None]:
    """Split `[user@]host[:port]`; an IPv6 address with a port is in brackets."""
    user, _, address = hop.strip().rpartition("@")
    host, colon, port = address.rpartition(":")
    if colon and port.isdigit() and (host.startswith("[") or ":" not in host):
        return host.strip("[]"), int(port), user or None
    return address.strip("[]"), None, user or None
