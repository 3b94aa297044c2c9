"""One login: paced, tried again while the server drops us before it knows us, judged by pinned host keys, errors made plain.

    wait for the pace -> TCP -> key exchange -> host key -> user          dropped before "user": pause with jitter, again
                                   |              |        |
              Unreachable / Unusable  HostKey…  AuthenticationRefused

Whether anything answered at the address is told apart with care: of a worker that left the fleet it decides whether it counts as
dead. A fault of this side (`CannotConnect`), of a jump host or of an SSH server that answers is no sign of that.

sshd's default MaxStartups (10:30:100) drops logins of a crowd at random before anything was said: only that is tried again.
"""

import asyncio
import errno
import os
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import asyncssh

from maand_executor.rules.facts import HostKeyPolicy
from maand_executor.rules.meter import LoginOutcome, Meter
from maand_executor.ssh.credentials import Credentials
from maand_executor.ssh.errors import (
    AuthenticationRefused,
    CannotConnect,
    ConnectionUnusable,
    HostKeyChanged,
    HostKeyUnknown,
    SshError,
    WorkerUnreachable,
)
from maand_executor.ssh.host_keys import SSH_PORT, HostKey, HostKeys, PinState, describe_host_key
from maand_executor.ssh.jumps import Jumps
from maand_executor.ssh.pacing import StartPace
from maand_executor.ssh.settings import SshSettings

asyncssh.set_log_level("WARNING")  # below that it logs every command line of every command; maand logs what it does itself

FAST_ALGORITHMS: dict[str, Any] = {
    "kex_algs": ["curve25519-sha256", "curve25519-sha256@libssh.org", "ecdh-sha2-nistp256", "diffie-hellman-group14-sha256"],
    "encryption_algs": ["aes128-gcm@openssh.com", "chacha20-poly1305@openssh.com", "aes256-gcm@openssh.com", "aes128-ctr"],
    "compression_algs": ["none"],
}
"""The cheapest that every sshd since 2014 speaks; others follow for older or stricter servers."""

HOST_KEY_KINDS = (
    *("ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521"),
    *("rsa-sha2-512", "rsa-sha2-256"),
)
"""Host keys we accept, best first."""
PINNED_KINDS = ("ssh-ed25519", "ecdsa-sha2-nistp256", "rsa-sha2-512")
"""Those that are looked for when keys are pinned: what OpenSSH generates."""

LOCAL_FAULTS = frozenset(
    {
        *(errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS),
        *(errno.ENOENT, errno.EACCES, errno.EPERM),
        *(errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.ENETDOWN),
    }
)
"""What keeps this side from asking at all: no descriptors, memory or ports left, a firewall of its own, no network."""

LOGIN_ERRORS = (OSError, asyncssh.Error, ValueError)
"""What a login raises; `ValueError` is asyncssh's word for options it cannot use."""

Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class Destination:
    """Where and as whom one logs in: what tells pooled connections apart."""

    host: str
    port: int
    user: str


class Login(asyncssh.SSHClient):
    """Watches one login: which host key was shown and whether authentication began; and says when the connection ends."""

    def __init__(self, host_keys: HostKeys, policy: HostKeyPolicy) -> None:
        self.authenticating = False
        self.refused: PinState | None = None
        self.shown: HostKey | None = None
        self._host_keys = host_keys
        self._policy = policy

    def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
        """Judge a key that is not pinned: pin it at first sight when the bucket says so, refuse it otherwise."""
        self.shown = describe_host_key(key)
        state = self._host_keys.state_of(host, port, self.shown)
        if state is PinState.UNKNOWN and self._policy is HostKeyPolicy.ACCEPT_NEW:
            self._host_keys.pin_at_first_sight(host, port, self.shown)
            return True
        self.refused = state
        return False

    def begin_auth(self, username: str) -> None:
        """Note that the server knows us now: nothing is tried again after this."""
        self.authenticating = True


class Connector:
    """Logs in to the workers of one bucket."""

    def __init__(
        self,
        *,
        credentials: Credentials,
        host_keys: HostKeys,
        policy: HostKeyPolicy,
        pace: StartPace,
        settings: SshSettings,
        ssh_config: Path | None = None,
        jitter: Callable[[], float] = random.random,
        meter: Meter | None = None,
    ) -> None:
        self._meter = meter or Meter()
        self.host_keys = host_keys
        self._credentials = credentials
        self._policy = policy
        self._pace = pace
        self._settings = settings
        self._jitter = jitter
        self._ssh_config = ssh_config
        self._jumps = Jumps(self._log_in_to_jump)
        self._places = asyncio.Semaphore(settings.logins_at_once)

    async def open(self, destination: Destination) -> asyncssh.SSHClientConnection:
        """Log in. Raises `WorkerUnreachable`, `HostKeyUnknown`, `HostKeyChanged`, `AuthenticationRefused`, `KeyUnusable`."""
        return await self._patiently(destination, lambda: self._log_in_counted(destination))

    async def scan_host_keys(self, destination: Destination) -> tuple[HostKey, ...]:
        """Return the host keys a server shows, one of each kind, without logging in. Raises `WorkerUnreachable`."""
        first = await self._patiently(destination, lambda: self._show_host_key(destination, HOST_KEY_KINDS))
        others = [await self._show_other(destination, kind) for kind in PINNED_KINDS]
        found = {key.text: key for key in (first, *others) if key is not None}
        return tuple(found.values())

    async def _patiently(self, destination: Destination, attempt: Callable[[], Awaitable[Result]]) -> Result:
        """Try again while the server drops us: after a pause that doubles, with jitter of a half to the whole."""
        pause = self._settings.retry_pause.total_seconds()
        for attempts_left in reversed(range(self._settings.connect_attempts)):
            try:
                async with self._start():
                    return await attempt()
            except Dropped as dropped:
                if not attempts_left:
                    words = f"its SSH server drops logins before they begin ({dropped}); are there too many at once?"
                    raise ConnectionUnusable(destination.host, words) from dropped
            await asyncio.sleep(pause * (1 + self._jitter()) / 2)
            pause = min(pause * 2, self._settings.longest_retry_pause.total_seconds())
        raise AssertionError("the last attempt returns or raises")

    @asynccontextmanager
    async def _start(self) -> AsyncIterator[None]:
        """Wait for a place among the logins under way, then for the pace, and hold the place for as long as the block runs."""
        asked = time.monotonic()
        async with self._places:
            await self._pace.wait()
            self._meter.ssh_waited("pace", time.monotonic() - asked)
            yield

    async def _show_host_key(self, destination: Destination, kinds: Sequence[str]) -> HostKey | None:
        host, port = destination.host, destination.port
        try:
            async with self._within_limit(), self._through(host) as way:
                key = await asyncssh.get_server_host_key(host, port, server_host_key_algs=list(kinds), **way)
        except LOGIN_ERRORS as error:
            raise self._translated(destination, self._new_login(), error) from error
        return describe_host_key(key) if key else None

    async def _show_other(self, destination: Destination, kind: str) -> HostKey | None:
        """Ask a server that is known to answer for one kind of key: hanging up means that it has none."""
        try:
            async with self._start():
                return await self._show_host_key(destination, [kind])
        except (Dropped, SshError):
            return None

    async def close(self) -> None:
        """Close connections to jump hosts."""
        await self._jumps.close()

    def _new_login(self) -> Login:
        return Login(self.host_keys, self._policy)

    async def _log_in_counted(self, destination: Destination) -> asyncssh.SSHClientConnection:
        began = time.monotonic()
        outcome: LoginOutcome = "succeeded"
        try:
            return await self._log_in(destination)
        except BaseException as error:
            outcome = login_outcome(error)
            raise
        finally:
            self._meter.login_ended(outcome, time.monotonic() - began)

    async def _log_in(self, destination: Destination) -> asyncssh.SSHClientConnection:
        login = self._new_login()
        try:
            async with self._within_limit(), self._through(destination.host) as way:
                return await asyncssh.connect(
                    destination.host,
                    destination.port,
                    username=destination.user,
                    client_factory=lambda: login,
                    **self._identity(destination),
                    **way,
                )
        except LOGIN_ERRORS as error:
            raise self._translated(destination, login, error) from error

    async def _log_in_to_jump(self, host: str, port: int | None, user: str | None, way: dict[str, Any]) -> Any:
        login = self._new_login()
        destination = Destination(host=host, port=port or SSH_PORT, user=user or "")
        named = {"username": user} if user else {}
        try:
            return await asyncssh.connect(
                host, port or (), client_factory=lambda: login, **self._identity(destination), **named, **way
            )
        except LOGIN_ERRORS as error:
            translated = self._translated(destination, login, error)
            if isinstance(translated, Dropped | WorkerUnreachable):
                raise ConnectionUnusable(host, f"the jump host cannot be used: {translated}") from error
            raise translated from error

    def _within_limit(self) -> asyncio.Timeout:
        return asyncio.timeout(self._settings.connect_timeout.total_seconds())

    @asynccontextmanager
    async def _through(self, host: str) -> AsyncIterator[dict[str, Any]]:
        """Give the options of the way to a host: direct, or as the bucket's OpenSSH configuration says."""
        if self._ssh_config is None:
            yield {"config": None}
            return
        way: dict[str, Any] = {"config": [str(self._ssh_config)]}
        try:
            options = await asyncssh.SSHClientConnectionOptions.construct(host=host, **way)
        except (OSError, asyncssh.ConfigParseError) as error:
            raise CannotConnect(host, f"ssh_config {self._ssh_config} cannot be used: {short_reason(error)}") from error
        jumps = options.tunnel
        if isinstance(jumps, str) and jumps:
            way["tunnel"] = await self._jumps.open(jumps, way)
        yield way

    def _host_key_order(self, destination: Destination) -> Any:
        """Ask for the pinned kinds of host keys first, then for any: so a changed key is seen, rather than no common kind.

        Certificate authorities, and names that an OpenSSH configuration changes, are left to asyncssh.
        """
        port = None if destination.port == SSH_PORT else destination.port
        keys, authorities, *_ = self.host_keys.current().match(destination.host, "", port)
        if authorities or self._ssh_config is not None:
            return ()
        pinned = [algorithm.decode() for key in keys for algorithm in key.sig_algorithms]
        return list(dict.fromkeys([*pinned, *HOST_KEY_KINDS]))

    def _identity(self, destination: Destination) -> dict[str, Any]:
        """Return what every login brings along: parsed objects, never paths."""
        return {
            **FAST_ALGORITHMS,
            "client_keys": self._credentials.keys(destination.host) or None if not self._credentials.agent_path else (),
            "agent_path": self._credentials.agent_path,
            "known_hosts": self.host_keys.current(),
            "server_host_key_algs": self._host_key_order(destination),
            "preferred_auth": ["publickey"],
            "x509_trusted_certs": None,
            "x509_trusted_cert_paths": None,
            "gss_host": None,
            "keepalive_interval": self._settings.keepalive_interval.total_seconds(),
            "keepalive_count_max": self._settings.keepalive_count,
            "login_timeout": self._settings.connect_timeout.total_seconds(),
        }

    def _translated(self, destination: Destination, login: Login, error: Exception) -> Exception:
        """Say what a failed login means."""
        host = destination.host
        address = f"{host}:{destination.port}"
        if login.refused is not None or isinstance(error, asyncssh.HostKeyNotVerifiable):
            return self._host_key_error(destination, login)
        if isinstance(error, asyncssh.PermissionDenied) or (login.authenticating and is_refusal(error)):
            return AuthenticationRefused(
                host, f'does not accept our key for the user "{destination.user}"', user=destination.user
            )
        if not login.authenticating and isinstance(error, asyncssh.ConnectionLost | ConnectionResetError | BrokenPipeError):
            return Dropped(str(error) or "connection reset")
        if isinstance(error, ValueError) or (isinstance(error, OSError) and error.errno in LOCAL_FAULTS):
            return CannotConnect(host, f"no SSH connection to {address}: {short_reason(error)}", address=address)
        seconds = self._settings.connect_timeout.total_seconds()
        why = f" within {seconds:g} s" if isinstance(error, TimeoutError) else f": {short_reason(error)}"
        answered = login.authenticating or login.shown is not None or speaks_ssh(error)
        kind = ConnectionUnusable if answered else WorkerUnreachable
        return kind(host, f"no SSH connection to {address}{why}", address=address)

    def _host_key_error(self, destination: Destination, login: Login) -> SshError:
        shown = f"{login.shown.algorithm} {login.shown.fingerprint}" if login.shown else "a key"
        facts = {"fingerprint": login.shown.fingerprint} if login.shown else {}
        if login.refused is PinState.UNKNOWN:
            return HostKeyUnknown(destination.host, f"its SSH host key is not pinned ({shown})", **facts)
        pinned = ", ".join(key.fingerprint for key in self.host_keys.pinned(destination.host, destination.port)) or "none"
        return HostKeyChanged(destination.host, f"its SSH host key changed: it shows {shown}, pinned is {pinned}", **facts)


class Dropped(Exception):
    """The server hung up before it knew who we are. Tried again; seen by nobody."""


def login_outcome(error: BaseException) -> LoginOutcome:
    """Say in a word why a login did not succeed."""
    if isinstance(error, Dropped):
        return "dropped"
    if isinstance(error, AuthenticationRefused | HostKeyUnknown | HostKeyChanged):
        return "refused"
    return "cancelled" if isinstance(error, asyncio.CancelledError) else "unreachable"


def is_refusal(error: Exception) -> bool:
    """Whether the server said no, rather than vanished."""
    return isinstance(error, asyncssh.DisconnectError) and not isinstance(error, asyncssh.ConnectionLost)


def speaks_ssh(error: Exception) -> bool:
    """Whether an error comes from what an SSH server said, rather than from the network or a jump host that found nobody."""
    return isinstance(error, asyncssh.Error) and not isinstance(error, asyncssh.ChannelOpenError)


def short_reason(error: Exception) -> str:
    """Return an error's own words, short: `Connection refused` rather than asyncio's account of it."""
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno) if error.errno > 0 else str(error.strerror)
    return str(error) or type(error).__name__
