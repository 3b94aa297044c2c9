"""The workers of one bucket: run commands, copy files, look at host keys; everything over shared connections."""

import asyncio
import copy
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, fields
from pathlib import Path, PurePosixPath
from typing import Self

import asyncssh

from maand_executor.rules.facts import BucketConfig, HostKeyPolicy, Worker
from maand_executor.rules.meter import Meter
from maand_executor.rules.remote_commands import HostCheck, RemoteCommand, RemoteResult, Watch, command_line, make_order
from maand_executor.ssh.channels import Channels
from maand_executor.ssh.client_config import expand_path
from maand_executor.ssh.connect import Connector, Destination
from maand_executor.ssh.copy import RemoteCopy, copy_tree
from maand_executor.ssh.credentials import Credentials
from maand_executor.ssh.errors import CommandNotStarted
from maand_executor.ssh.execution import Execution, OnOutput, Tell, execute_command, tell_nobody
from maand_executor.ssh.host_keys import HostKey, HostKeys, Pin, PinState
from maand_executor.ssh.pacing import CopyPlaces, StartPace
from maand_executor.ssh.pool import Pool, Room
from maand_executor.ssh.rsync import CopyResult
from maand_executor.ssh.rsync_pipes import RsyncSession
from maand_executor.ssh.settings import SshSettings
from maand_wire.tracing import child_span

UNBOUNDED = 1_000_000
"""Connections where no limit of the process is known: more than there are ports."""


@dataclass(frozen=True, kw_only=True)
class SshConfig:
    """The part of `maand.conf` that connections depend on; while it is the same, they stay, whatever else was edited.

    An edited `ssh_config` counts too: who is reached by old jump hosts, names or users is reached anew.
    """

    bucket_id: str
    owner_id: str
    ssh_user: str
    ssh_key: str
    ssh_port: int
    ssh_config: str
    worker_root: str
    host_keys: HostKeyPolicy
    max_ssh_sessions: int
    ssh_starts_per_second: int
    ssh_config_stamp: tuple[int, ...] = ()
    """Tells whether the file `ssh_config` is still the same; empty where there is none."""

    @classmethod
    def of(cls, config: BucketConfig) -> Self:
        """Return a bucket's."""
        values = {field.name: getattr(config, field.name) for field in fields(cls) if field.name != "ssh_config_stamp"}
        return cls(**values, ssh_config_stamp=file_stamp(expand_path(config.ssh_config)) if config.ssh_config else ())


def file_stamp(path: Path) -> tuple[int, ...]:
    """Return what changes when a file is edited or replaced; empty where it cannot be looked at."""
    try:
        status = path.stat()
    except OSError:
        return ()
    return (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)


class Remote:
    """The workers of one bucket. `known_hosts` and the key are read from the secrets directory, again when they change."""

    def __init__(
        self,
        config: BucketConfig,
        secrets: Path,
        settings: SshSettings | None = None,
        meter: Meter | None = None,
        room: Room | None = None,
    ) -> None:
        meter = meter or Meter()
        self._config = SshConfig.of(config)
        self._settings = settings or SshSettings()
        self._copies = CopyPlaces(self._settings.copies_at_once, stall=self._settings.copy_stall)
        self.host_keys = HostKeys(secrets / "known_hosts")
        self._connector = Connector(
            credentials=Credentials(secrets, config.ssh_key, agent_timeout=self._settings.agent_timeout),
            host_keys=self.host_keys,
            policy=config.host_keys,
            pace=StartPace(config.ssh_starts_per_second),
            settings=self._settings,
            ssh_config=expand_path(config.ssh_config) if config.ssh_config else None,
            meter=meter,
        )
        self._pool = Pool(
            self._connector.open,
            limit=config.max_ssh_sessions,
            settings=self._settings,
            room=room or Room(UNBOUNDED),
            meter=meter,
        )
        self._channels = Channels(self._pool, self._settings, meter)
        self.tell: Tell = tell_nobody

    def telling(self, tell: Tell) -> Self:
        """Return the same workers for a run, which is told of long waits and of commands that may not have ended."""
        one = copy.copy(self)
        one.tell = tell
        return one

    @property
    def open_connections(self) -> int:
        """How many SSH connections are open now."""
        return self._pool.open_connections

    async def connect(self, worker: Worker) -> None:
        """Make sure that the worker is connected. Raises `WorkerUnreachable`, `HostKeyRefused`, `AuthenticationRefused`."""
        async with self._pool.lease(self._destination(worker), self.tell):
            return

    async def run(self, worker: Worker, command: RemoteCommand, *, on_output: OnOutput | None = None) -> RemoteResult:
        """Run a command on a worker, once.

        1. An open connection is shared, or one is opened; nothing has been started when that fails (`WorkerUnreachable`).
        2. The command waits for one of the connection's channels.
        3. Its output is handed to `on_output` as it comes, and kept up to `capture_limit`.
        4. It ends by itself, or its process tree is ended after `timeout` (`timed_out`) or when this call is cancelled.

        Raises also `StaleFence`, `ForeignWorker`, `SudoRefused` and other `CommandNotStarted`, and `ConnectionLost` when the
        connection broke on the way: then nobody knows how the command ended. A command that fails is a result.
        """
        text = self._order(worker, command)
        line = command_line(sudo=command.sudo)

        async def open_session(connection: asyncssh.SSHClientConnection) -> Execution:
            execution = Execution(command, on_output, self._settings)
            await connection.create_session(lambda: execution, line, encoding=None)
            return execution

        with child_span("ssh command", kind="client", worker=worker.name) as span:
            async with self._channels.open(self._destination(worker), open_session, self.tell) as execution:
                result = await execute_command(execution, worker.name, command, text, self.tell)
            span.set(exit_code=result.exit_code, timed_out=result.timed_out)
        return result

    async def copy(self, worker: Worker, copy: RemoteCopy) -> CopyResult:
        """Make a directory on the worker equal to one here. May be repeated.

        Raises as `connect`, `CopyFailed`, and what `run` raises where a worker refuses to begin.
        """
        line = command_line(sudo=copy.sudo)

        async def open_session(connection: asyncssh.SSHClientConnection) -> RsyncSession:
            session = RsyncSession()
            await connection.create_session(lambda: session, line, encoding=None)
            return session

        def make_order(script: str) -> bytes:
            check = copy.fence is not None
            command = RemoteCommand(script=script, sudo=copy.sudo, takes_input=True, fence=copy.fence, check_host=check)
            return self._order(worker, command)

        with child_span("rsync", kind="client", worker=worker.name):
            async with self._channels.open(self._destination(worker), open_session, self.tell) as session:
                try:
                    async with self._copies.take(lambda: session.moved):
                        return await copy_tree(worker.name, copy, session, make_order, silence=self._settings.silence)
                finally:
                    session.close()

    async def scan_host_keys(self, worker: Worker) -> tuple[HostKey, ...]:
        """Return the host keys that the worker shows, without logging in. Raises `WorkerUnreachable`."""
        return await self._connector.scan_host_keys(self._destination(worker))

    def host_key_states(self, worker: Worker, shown: Sequence[HostKey]) -> tuple[PinState, ...]:
        """Compare the keys that a worker shows with those pinned for it, each."""
        destination = self._destination(worker)
        return self.host_keys.states_of(destination.host, destination.port, shown)

    def make_pin(self, worker: Worker, keys: Sequence[HostKey], *, replace: bool = False) -> Pin:
        """Return what pins keys of a worker, in place of those pinned when `replace`."""
        destination = self._destination(worker)
        return Pin(host=destination.host, port=destination.port, keys=tuple(keys), replace=replace)

    async def pin_host_keys(self, pins: Sequence[Pin]) -> None:
        """Pin keys of workers, all in one write. Raises `KnownHostsUnwritable`."""
        await asyncio.to_thread(self.host_keys.pin, pins)

    async def close(self) -> None:
        """Hang up everything; commands that run end with their connection."""
        await self._pool.close()
        await self._connector.close()

    def _destination(self, worker: Worker) -> Destination:
        return Destination(
            host=worker.name, port=worker.ssh_port or self._config.ssh_port, user=worker.ssh_user or self._config.ssh_user
        )

    def _order(self, worker: Worker, command: RemoteCommand) -> bytes:
        directory = PurePosixPath(self._config.worker_root) / self._config.bucket_id
        check = HostCheck(
            path=str(directory / "worker.json"),
            bucket_id=self._config.bucket_id,
            worker_id=worker.worker_id,
            owner_id=self._config.owner_id if command.check_owner else "",
        )
        try:
            return make_order(
                command,
                watch=Watch(grace=self._settings.grace, silence=self._settings.silence),
                fence_directory=str(directory),
                owner_id=self._config.owner_id,
                host_check=check if command.check_host else None,
            )
        except ValueError as error:
            raise CommandNotStarted(worker.name, str(error)) from error


@dataclass(kw_only=True)
class Lent:
    """A `Remote`, and how many runs and tasks work with it now."""

    remote: Remote
    users: int = 0


class Remotes:
    """The `Remote` of each bucket this executor works for; a bucket whose SSH settings changed gets a new one.

    The one with the older settings stays lent to whoever began with it; when the last of these is done, its connections close.
    The one in force stays open when nobody uses it: that is what keeps a fleet warm.
    """

    def __init__(
        self, secrets: Path, settings: SshSettings | None = None, meter: Meter | None = None, room: Room | None = None
    ) -> None:
        self._meter = meter or Meter()
        self._secrets = secrets
        self._settings = settings
        self._room = room or Room(UNBOUNDED)
        self._lent: dict[SshConfig, Lent] = {}
        self._in_force: dict[str, SshConfig] = {}
        self._closing: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def of(self, config: BucketConfig) -> AsyncIterator[Remote]:
        """Lend the bucket's for as long as the block runs."""
        key = SshConfig.of(config)
        lent = self._lent.get(key)
        if lent is None:
            lent = self._lent[key] = Lent(remote=Remote(config, self._secrets, self._settings, self._meter, self._room))
        before, self._in_force[config.bucket_id] = self._in_force.get(config.bucket_id), key
        lent.users += 1
        try:
            if before is not None:
                self._close_if_over(before)
            yield lent.remote
        finally:
            lent.users -= 1
            self._close_if_over(key)

    @property
    def open_connections(self) -> int:
        """How many SSH connections are open now, over all buckets."""
        return sum(lent.remote.open_connections for lent in self._lent.values())

    async def close(self) -> None:
        """Hang up everything."""
        for lent in self._lent.values():
            await lent.remote.close()
        self._lent.clear()
        await asyncio.gather(*self._closing)

    def _close_if_over(self, key: SshConfig) -> None:
        """Close what has older settings and is lent to nobody; whoever asks next need not wait for that."""
        lent = self._lent.get(key)
        if lent is None or lent.users or self._in_force[key.bucket_id] == key:
            return
        del self._lent[key]
        closing = asyncio.create_task(lent.remote.close(), name=f"closing old connections of {key.bucket_id}")
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)
