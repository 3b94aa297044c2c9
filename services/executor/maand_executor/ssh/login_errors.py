"""What a login that failed means: whether anybody answered, who is at fault, and whether it may be tried again.

Whether anything answered at the address is told apart with care: of a worker that left the fleet it decides whether it counts as
dead. A fault of this side, of a jump host or of an SSH server that answers is no sign of that.
"""

import errno
import re
import socket
from datetime import timedelta
from typing import NamedTuple

import asyncssh

from maand_executor.ssh.algorithms import HOST_KEY_TYPES
from maand_executor.ssh.client_config import Hop
from maand_executor.ssh.errors import CannotConnect, ConnectionUnusable, SshError, WorkerUnreachable, short_reason
from maand_executor.ssh.jumps import Way

LOCAL_FAULTS = frozenset(
    {
        *(errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS),
        *(errno.ENOENT, errno.EACCES, errno.EPERM),
        *(errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.ENETDOWN),
    }
)
"""What keeps this side from asking at all: no descriptors, memory or ports left, a firewall of its own, no network."""
NO_NAME_SERVICE = frozenset({socket.EAI_AGAIN, socket.EAI_FAIL, socket.EAI_MEMORY, socket.EAI_SYSTEM})
"""Likewise when names are looked up: nobody could be asked whether there is such a name."""

OPEN_CONNECT_FAILED = 2
"""A jump host's word (RFC 4254, 5.1) for a connection that it tried to make for us."""


HANGING_UP = (asyncssh.ConnectionLost, ConnectionResetError, BrokenPipeError)
"""What a server does that drops us."""


class Dropped(Exception):
    """The server hung up before it knew who we are. Tried again; seen by nobody. `greeted`: an SSH server had spoken."""

    def __init__(self, reason: str, *, greeted: bool) -> None:
        super().__init__(reason)
        self.greeted = greeted


class Unmatched(NamedTuple):
    """Two sides that have no algorithm of a kind in common."""

    kind: str
    offered: str


UNMATCHED = re.compile("No matching (.+) algorithm found, sent .* and received (.*)", re.DOTALL)


def unmatched_algorithm(error: Exception) -> Unmatched | None:
    """Return which kind of algorithm is not in common, and what the server offers, when that is what an error says."""
    found = UNMATCHED.match(str(error)) if isinstance(error, asyncssh.KeyExchangeFailed) else None
    return Unmatched(*found.groups()) if found else None


def lacks_host_key(error: Exception) -> bool:
    """Whether a server that greeted has no host key of the types asked for: OpenSSH hangs up then, others say so."""
    return isinstance(error, (*HANGING_UP, asyncssh.KeyExchangeFailed)) and not unmatched_algorithm(error)


def connection_error(way: Way, error: Exception, *, answered: bool, limit: timedelta) -> SshError:
    """Return the error for a login that ended before anybody refused us. `answered`: an SSH server was heard.

    Where there is no way to the network at all (a laptop that is offline), or another program connects, the address had no say.
    """
    hop, to = way.hop, f"no SSH connection to {way.hop.address}"
    if is_local_fault(error):
        by = "its ProxyCommand cannot be run: " if hop.proxy_command and isinstance(error, OSError) and error.filename else ""
        return CannotConnect(hop.name, f"{to}: {by}{short_reason(error)}", address=hop.address)
    if way.jump is not None and way.tunnel is not None and is_fault_of_jump(error, way.tunnel):
        words = f"{way.jump.as_jump_for(hop.name)}, does not connect us: {short_reason(error)}"
        return ConnectionUnusable(hop.name, words, address=hop.address, jump_host=way.jump.name)
    why = f" within {limit.total_seconds():g} s" if isinstance(error, TimeoutError) else f": {short_reason(error)}"
    through = f" through jump host {way.jump.name} ({way.jump.address})" if way.jump else ""
    no_word = bool(hop.proxy_command) or (isinstance(error, OSError) and error.errno == errno.ENETUNREACH)
    kind = ConnectionUnusable if answered or no_word else WorkerUnreachable
    return kind(hop.name, f"{to}{through}{why}", address=hop.address)


def is_refusal(error: Exception) -> bool:
    """Whether the server said no, rather than vanished."""
    return isinstance(error, asyncssh.DisconnectError) and not isinstance(error, asyncssh.ConnectionLost)


def speaks_ssh(error: Exception) -> bool:
    """Whether an error comes from what an SSH server said, rather than from the network or a jump host that found nobody."""
    return isinstance(error, asyncssh.Error) and not isinstance(error, asyncssh.ChannelOpenError)


def is_local_fault(error: Exception) -> bool:
    """Whether this side is at fault, whatever the worker is like."""
    if isinstance(error, socket.gaierror):
        return error.errno in NO_NAME_SERVICE
    return isinstance(error, ValueError) or (isinstance(error, OSError) and error.errno in LOCAL_FAULTS)


def is_fault_of_jump(error: Exception, tunnel: asyncssh.SSHClientConnection) -> bool:
    """Whether a jump host did not pass us on, rather than find nobody: it forbids forwarding, lacks something, or was lost."""
    if not isinstance(error, asyncssh.ChannelOpenError):
        return False
    return tunnel.is_closed() or error.code != OPEN_CONNECT_FAILED


def always_dropped(hop: Hop, dropped: "Dropped") -> str:
    """Say that no attempt to log in got as far as who we are."""
    if hop.proxy_command:
        return f"its ProxyCommand ({hop.proxy_command[0]}) ends before an SSH server speaks ({dropped})"
    if dropped.greeted:
        return (
            f"its SSH server hangs up during the key exchange ({dropped});"
            f" has it a host key of a type we accept ({', '.join(HOST_KEY_TYPES)})?"
        )
    return f"its SSH server drops logins before they begin ({dropped}); are there too many at once?"
