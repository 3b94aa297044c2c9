"""One login: paced, tried again while the server drops us before it knows us, judged by pinned host keys, errors made plain.

    wait for the pace -> TCP -> key exchange -> host key -> user          dropped before "user": pause with jitter, again
                                   |              |        |
              Unreachable / Unusable  HostKey…  AuthenticationRefused

sshd's default MaxStartups (10:30:100) drops logins of a crowd at random before anything was said: only that is tried again.
"""

import asyncio
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
from maand_executor.ssh.algorithms import HOST_KEY_TYPES, PREFERRED_ALGORITHMS, TRUSTED_TYPES
from maand_executor.ssh.client_config import ClientConfig, Hop
from maand_executor.ssh.credentials import Credentials, Identity
from maand_executor.ssh.errors import (
    AgentUnusable,
    AuthenticationRefused,
    ConnectionUnusable,
    HostKeyChanged,
    HostKeyUnknown,
    KnownHostsUnwritable,
    NoCommonAlgorithm,
    SshError,
)
from maand_executor.ssh.host_keys import SSH_PORT, HostKey, HostKeys, PinState, describe_host_key
from maand_executor.ssh.jumps import Jumps, Way
from maand_executor.ssh.login_errors import (
    HANGING_UP,
    Dropped,
    always_dropped,
    connection_error,
    is_refusal,
    lacks_host_key,
    speaks_ssh,
    unmatched_algorithm,
)
from maand_executor.ssh.pacing import StartPace
from maand_executor.ssh.settings import SshSettings

asyncssh.set_log_level("WARNING")  # below that it logs every command line of every command; maand logs what it does itself

NOT_FROM_SSH_CONFIG: dict[str, Any] = {
    "preferred_auth": ["publickey"],
    "public_key_auth": True,
    "host_based_auth": False,
    "pkcs11_provider": None,
    "agent_forwarding": False,
    "connect_timeout": None,
    "command": None,
    "request_pty": False,
    "env": None,
    "send_env": None,
}
"""What an OpenSSH configuration may say for people at terminals, and would break commands here: `RequestTTY`, `RemoteCommand`."""

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
        self.unpinned: KnownHostsUnwritable | None = None
        self._host_keys = host_keys
        self._policy = policy
        self._connection: asyncssh.SSHClientConnection | None = None

    @property
    def greeted(self) -> bool:
        """Whether the server said which SSH it speaks."""
        return self._connection is not None and bool(self._connection.get_extra_info("server_version"))

    def connection_made(self, conn: asyncssh.SSHClientConnection) -> None:
        """Keep the connection."""
        self._connection = conn

    def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
        """Judge a key that is not pinned: pin it at first sight when the bucket says so, refuse it otherwise."""
        self.shown = describe_host_key(key)
        (state,) = self._host_keys.states_of(host, port, [self.shown])
        if state is PinState.UNKNOWN and self._policy is HostKeyPolicy.ACCEPT_NEW:
            return self._pin_at_first_sight(host, port, self.shown)
        self.refused = state
        return False

    def _pin_at_first_sight(self, host: str, port: int, key: HostKey) -> bool:
        try:
            self._host_keys.pin_at_first_sight(host, port, key)
        except KnownHostsUnwritable as error:
            self.unpinned = error
        return self.unpinned is None

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
        self._config = ClientConfig(ssh_config, limit=settings.connect_timeout)
        self._jumps = Jumps(self._open_jump)
        self._places = asyncio.Semaphore(settings.logins_at_once)

    async def open(self, destination: Destination) -> asyncssh.SSHClientConnection:
        """Log in.

        Raises `WorkerUnreachable`, `HostKeyUnknown`, `HostKeyChanged`, `AuthenticationRefused`, `KeyUnusable`, `CannotConnect`.
        """
        return await self._patiently(lambda: self._find_way(destination), self._log_in_counted)

    async def scan_host_keys(self, destination: Destination) -> tuple[HostKey, ...]:
        """Return the host keys a server shows, one of each type, without logging in. Raises `WorkerUnreachable`."""

        async def show(types: Sequence[str]) -> HostKey | None:
            return await self._patiently(lambda: self._find_way(destination), lambda way: self._show_host_key(way, types))

        keys = [key for types in TRUSTED_TYPES if (key := await show(types))]
        if not keys:
            words = f"it shows no SSH host key of a type that maand accepts: {', '.join(HOST_KEY_TYPES)}"
            raise NoCommonAlgorithm(destination.host, words)
        return tuple(keys)

    async def _find_way(self, destination: Destination) -> Way:
        """Find out how one gets to a worker, and open the jump hosts on the way: outside of limits and places of its own login.

        So a jump host that is dead holds up nobody but those behind it.
        """
        route = await self._config.find_route(destination.host, port=destination.port, user=destination.user)
        tunnel = await self._jumps.open(route.jumps, worker=destination.host)
        return Way(hop=route.target, jump=route.jumps[-1] if route.jumps else None, tunnel=tunnel)

    async def _open_jump(self, hop: Hop, tunnel: asyncssh.SSHClientConnection | None) -> asyncssh.SSHClientConnection:
        async def find_way() -> Way:
            return Way(hop=hop, tunnel=tunnel)

        return await self._patiently(find_way, self._log_in)

    async def _patiently(self, find_way: Callable[[], Awaitable[Way]], attempt: Callable[[Way], Awaitable[Result]]) -> Result:
        """Try again while the server drops us: after a pause that doubles, with jitter of a half to the whole."""
        pause = self._settings.retry_pause.total_seconds()
        for attempts_left in reversed(range(self._settings.connect_attempts)):
            way = await find_way()
            try:
                async with self._start():
                    return await attempt(way)
            except Dropped as dropped:
                if not attempts_left:
                    raise ConnectionUnusable(way.hop.name, always_dropped(way.hop, dropped)) from dropped
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

    async def _show_host_key(self, way: Way, types: Sequence[str]) -> HostKey | None:
        """Return the key of these types that the server proves to have. None: it has none, and ended it when it heard that."""
        login = self._new_login()
        try:
            async with self._within_limit():
                key = await asyncssh.get_server_host_key(
                    way.hop.name,
                    way.hop.port,
                    server_host_key_algs=list(types),
                    options=asyncssh.SSHClientConnectionOptions(
                        client_factory=lambda: login,
                        config=None,
                        client_keys=None,  # else it reads every key file
                    ),
                    **self._options_of(way),
                )
        except LOGIN_ERRORS as error:
            if login.greeted and lacks_host_key(error):
                return None
            raise self._translated(way, login, error) from error
        return describe_host_key(key) if key else None

    async def close(self) -> None:
        """Close connections to jump hosts."""
        await self._jumps.close()

    def _new_login(self) -> Login:
        return Login(self.host_keys, self._policy)

    async def _log_in_counted(self, way: Way) -> asyncssh.SSHClientConnection:
        began = time.monotonic()
        outcome: LoginOutcome = "succeeded"
        try:
            return await self._log_in(way)
        except BaseException as error:
            outcome = login_outcome(error)
            raise
        finally:
            self._meter.login_ended(outcome, time.monotonic() - began)

    async def _log_in(self, way: Way) -> asyncssh.SSHClientConnection:
        login, hop = self._new_login(), way.hop
        async with self._credentials.identify(hop) as identity:
            try:
                async with self._within_limit():
                    return await asyncssh.connect(
                        hop.name,
                        hop.port,
                        username=hop.user,
                        client_factory=lambda: login,
                        client_keys=identity.keys,
                        client_certs=identity.certificates,
                        **self._settings_of(hop),
                        **self._options_of(way),
                    )
            except LOGIN_ERRORS as error:
                raise self._translated(way, login, error, identity) from error

    def _within_limit(self) -> asyncio.Timeout:
        return asyncio.timeout(self._settings.connect_timeout.total_seconds())

    def _options_of(self, way: Way) -> dict[str, Any]:
        """Return the options of the way to a host: direct, or as the bucket's OpenSSH configuration says."""
        config = self._config.asyncssh_option
        return {"config": config, "tunnel": way.tunnel} if config else {"config": None}

    def _host_key_order(self, hop: Hop) -> Any:
        """Ask for the pinned types of host keys first, then for any: so a changed key is seen, rather than no common type.

        Certificate authorities, and names that an OpenSSH configuration changes, are left to asyncssh.
        """
        port = None if hop.port == SSH_PORT else hop.port
        keys, authorities, *_ = self.host_keys.current().match(hop.host, "", port)
        if authorities or self._config.path is not None:
            return ()
        pinned = [algorithm.decode() for key in keys for algorithm in key.sig_algorithms]
        return list(dict.fromkeys([*pinned, *HOST_KEY_TYPES]))

    def _settings_of(self, hop: Hop) -> dict[str, Any]:
        """Return what every login brings along besides keys: parsed objects, never paths."""
        return {
            **({} if self._config.path else PREFERRED_ALGORITHMS),
            "agent_path": None,
            "agent_identities": None,
            "known_hosts": self.host_keys.current(),
            "server_host_key_algs": self._host_key_order(hop),
            **NOT_FROM_SSH_CONFIG,
            "x509_trusted_certs": None,
            "x509_trusted_cert_paths": None,
            "gss_host": None,
            "keepalive_interval": self._settings.keepalive_interval.total_seconds(),
            "keepalive_count_max": self._settings.keepalive_count,
            "login_timeout": self._settings.connect_timeout.total_seconds(),
        }

    def _translated(self, way: Way, login: Login, error: Exception, identity: Identity | None = None) -> Exception:
        """Say what a failed login means."""
        hop = way.hop
        if login.unpinned is not None:
            return login.unpinned
        if login.refused is not None or isinstance(error, asyncssh.HostKeyNotVerifiable):
            return self._host_key_error(hop, login)
        if identity and identity.signing_problem:
            return AgentUnusable(hop.name, identity.signing_problem)
        if identity and (isinstance(error, asyncssh.PermissionDenied) or (login.authenticating and is_refusal(error))):
            words = f'{hop.address} does not accept our key for the user "{hop.user}" ({identity.describe()})'
            return AuthenticationRefused(hop.name, words, user=hop.user, address=hop.address)
        if not login.authenticating and isinstance(error, HANGING_UP):
            return Dropped(str(error) or "connection reset", greeted=login.greeted)
        if unmatched := unmatched_algorithm(error):
            words = f"no {unmatched.kind} algorithm in common with the SSH server at {hop.address}: it offers {unmatched.offered}"
            return NoCommonAlgorithm(hop.name, words, address=hop.address)
        answered = login.authenticating or login.shown is not None or speaks_ssh(error)
        return connection_error(way, error, answered=answered, limit=self._settings.connect_timeout)

    def _host_key_error(self, hop: Hop, login: Login) -> SshError:
        shown = f"{login.shown.algorithm} {login.shown.fingerprint}" if login.shown else "a key"
        facts = {"fingerprint": login.shown.fingerprint} if login.shown else {}
        if login.refused is PinState.UNKNOWN:
            return HostKeyUnknown(hop.name, f"its SSH host key is not pinned ({shown})", **facts)
        pinned = ", ".join(key.fingerprint for key in self.host_keys.pinned(hop.host, hop.port)) or "none"
        return HostKeyChanged(hop.name, f"its SSH host key changed: it shows {shown}, pinned is {pinned}", **facts)


def login_outcome(error: BaseException) -> LoginOutcome:
    """Say in a word why a login did not succeed."""
    if isinstance(error, Dropped):
        return "dropped"
    if isinstance(error, AuthenticationRefused | HostKeyUnknown | HostKeyChanged):
        return "refused"
    return "cancelled" if isinstance(error, asyncio.CancelledError) else "unreachable"
