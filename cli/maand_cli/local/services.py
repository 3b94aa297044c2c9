"""Finding the local services of a bucket, and starting them when nobody serves.

`run/services.json` says where they listen and which directory they serve. It is believed only about that very directory, so the
file that a copied bucket brings along never leads to the original's services; and whether somebody really listens is asked of the
socket itself, so a file left behind by a killed host is never believed either.

Several commands may start a host at once: the hosts settle among themselves by a lock who serves, the others leave, and every
command takes what `services.json` then says.
"""

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import BinaryIO, TextIO

from maand_cli import __version__
from maand_cli.errors import OtherVersion, ServiceUnreachable
from maand_cli.local.bucket import Bucket

STILL_SECONDS = 20.0
"""How long a host that starts may stand still. A start takes under 2 s; a machine under load takes its time, and is given it."""

LONGEST_START_SECONDS = 300.0
"""How long a start may take at all: a host may also go round in circles."""

TELL_SECONDS = 10.0
"""How often a person who waits for a start is told so."""

MOVED_SECONDS = 5.0
"""How long services may take to leave a bucket that was moved. They look every half second; a run in progress takes longer."""

HOLDER_SECONDS = 5.0
"""How long a host may hold the lock without having said in it who it is: it does both in a moment."""

HELD_BY_ANOTHER = 75
"""Exit code of a host that found another one holding the bucket (EX_TEMPFAIL)."""

FROZEN_SECONDS = 5.0
"""How long a command waits for a host that is stopped: a machine that just woke, or a person at a debugger, lets it go on."""

POLL_SECONDS = 0.02


@dataclass(frozen=True, kw_only=True)
class Services:
    """Running services of a bucket, as their host describes them.

    `bucket` is the directory they serve, `device` and `inode` identify it; hosts of maand before these were told have none.
    """

    pid: int
    version: str
    catalog: str
    executor: str
    hook_api: str
    started_at: str
    bucket: str = ""
    device: int = 0
    inode: int = 0


def find_services(bucket: Bucket) -> Services | None:
    """Return the running services, or None when nobody serves this directory."""
    services = _read(bucket.services_file)
    if services is None or not serves_directory(services, bucket.path):
        return None
    return services if is_listening(services.catalog) and is_listening(services.executor) else None


def serves_directory(services: Services, directory: Path) -> bool:
    """Whether these services serve this directory: not the one it was copied from, nor the place it was moved away from.

    The path alone would not do: another copy may stand where the bucket was. The inode alone would not either: sockets and the
    paths that the services have open stay where a moved bucket was.
    """
    identity = (services.device, services.inode)
    try:
        return all((status.st_dev, status.st_ino) == identity for status in (directory.stat(), Path(services.bucket).stat()))
    except OSError:
        return False


def ensure_services(bucket: Bucket, say: Callable[[str], object] = str, *, patience_seconds: float = FROZEN_SECONDS) -> Services:
    """Return the running services of this version, started if need be; stopped ones are waited for within the patience.

    `say` is told of a start that takes long. Raises OtherVersion, ServiceUnreachable.
    """
    point_to_agent(bucket, os.environ)
    services = find_services(bucket)
    if services is None:
        _until_moved_host_left(bucket)
        services = start_services(bucket, say)
    _refuse_other_version(services)
    _until_not_frozen(services.pid, limit_seconds=patience_seconds)
    return services


def point_to_agent(bucket: Bucket, environment: Mapping[str, str]) -> None:
    """Let the services ask the SSH agent of this login: logins end, and their agents with them, while services go on.

    A command without an agent, of cron say, leaves the link as it is; so does one that a service's own child types.
    """
    named, link = environment.get("SSH_AUTH_SOCK", ""), bucket.agent_link
    agent = Path(named).absolute()  # not resolved: it may be a link that its owner keeps
    if not named or agent == link or (link.is_symlink() and link.readlink() == agent):
        return
    fresh = link.with_name(f"agent.{os.getpid()}.new")
    with suppress(OSError):  # a full or read-only disk: whoever needs the agent is told that there is none
        link.parent.mkdir(mode=0o700, exist_ok=True)
        fresh.symlink_to(agent)
        fresh.replace(link)


def _until_not_frozen(pid: int, *, limit_seconds: float) -> None:
    """Wait for a host that is stopped, which would answer nothing: the kernel accepts its connections all the same."""
    deadline = time.monotonic() + limit_seconds
    while is_frozen(pid):
        if time.monotonic() > deadline:
            raise ServiceUnreachable(
                f"the services of this bucket do not answer: process {pid} is stopped (a signal, or a debugger)",
                help=f"let it go on: kill -CONT {pid}; or end it: maand services stop",
            )
        time.sleep(POLL_SECONDS)


def is_frozen(pid: int) -> bool:
    """Whether a process is stopped by a signal or a debugger (state T or t)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in ("T", "t")
    except (OSError, IndexError):
        return False


def _until_moved_host_left(bucket: Bucket, *, limit_seconds: float = MOVED_SECONDS) -> None:
    """Wait for services that still hold a bucket which was moved under them: they notice and leave by themselves.

    In a copy of a bucket nobody holds the lock, so nothing is waited for.
    """
    services = _read(bucket.services_file)
    if services is None or serves_directory(services, bucket.path):
        return
    deadline = time.monotonic() + limit_seconds
    while find_lock_holder(bucket) == services.pid:
        _refuse_other_version(services)
        if time.monotonic() > deadline:
            place = f"in {services.bucket}" if services.bucket else "by another maand"
            message = f"services of this bucket were started {place} and still run (process {services.pid})"
            raise ServiceUnreachable(message, help="maand services stop; the next command starts them here")
        time.sleep(POLL_SECONDS)


def _refuse_other_version(services: Services) -> None:
    if services.version != __version__:
        raise OtherVersion(
            f"the services of this bucket run maand {services.version}, this is {__version__}", help="maand services stop"
        )


def start_services(
    bucket: Bucket,
    say: Callable[[str], object] = str,
    *,
    still_seconds: float = STILL_SECONDS,
    tell_seconds: float = TELL_SECONDS,
) -> Services:
    """Start a host and wait until somebody serves: that host, or another one that was quicker.

    It is waited for as long as it gets on: `say` is told every few seconds. Raises ServiceUnreachable when it ended, stood still
    for `still_seconds`, or took longer than any start may.
    """
    began = moved = time.monotonic()
    told = began
    progress: tuple[str, ...] = ()
    with os.fdopen(os.memfd_create("maand-start"), "w+b") as words:  # in memory: the bucket's disk may be full
        host = _spawn(bucket, words)
        while min(moved + still_seconds, began + LONGEST_START_SECONDS) > time.monotonic():
            services = find_services(bucket)
            if services:
                return services
            if host.poll() is not None:
                if host.returncode != HELD_BY_ANOTHER:
                    raise _not_started(host.returncode, words)
                time.sleep(5 * POLL_SECONDS)
                host = _spawn(bucket, words)
            if (seen := measure_progress(host.pid, bucket.services_log)) != progress:
                progress, moved = seen, time.monotonic()
            if time.monotonic() > told + tell_seconds:
                told = time.monotonic()
                say(f"still starting the services of this bucket, {told - began:.0f} s so far")
            time.sleep(POLL_SECONDS)
    pid = find_lock_holder(bucket)
    if pid not in (0, host.pid):
        raise ServiceUnreachable(f"process {pid} holds this bucket but does not serve it", help="maand services stop")
    raise ServiceUnreachable(
        f"the local services did not come up within {time.monotonic() - began:.0f} s",
        help="see the log: maand services logs; the next command waits for them again",
    )


def measure_progress(pid: int, log: Path) -> tuple[str, ...]:
    """Return what changes while a process gets on: page faults and processor time, and the length of its log."""
    with suppress(OSError):
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (*words[7:13], str(log.stat().st_size) if log.exists() else "")
    return ()


def stop_services(bucket: Bucket, *, limit_seconds: float = 60.0) -> int:
    """Ask the host that holds this bucket to stop, and wait until it has; return its process id, 0 when there was none.

    The lock, not `services.json`, says who holds the bucket, so a host that is just starting or of another version is found too.
    """
    deadline = time.monotonic() + limit_seconds
    pid = find_lock_holder(bucket)
    if pid:
        os.kill(pid, signal.SIGTERM)
        os.kill(pid, signal.SIGCONT)  # one that is stopped would only hear of it later
    while find_lock_holder(bucket) == pid != 0:
        if time.monotonic() > deadline:
            raise ServiceUnreachable(
                f"process {pid} did not stop within {limit_seconds:.0f} s", help=f"look at the log, then: kill -9 {pid}"
            )
        time.sleep(POLL_SECONDS)
    return pid


def find_lock_holder(bucket: Bucket) -> int:
    """Return the process that holds the bucket's lock, 0 when nobody does."""
    try:
        with (bucket.run / "services.lock").open() as file:
            deadline = time.monotonic() + HOLDER_SECONDS
            while not _is_free(file) and time.monotonic() < deadline:
                file.seek(0)
                pid = _pid_in(file.read())
                if pid:
                    return pid
                time.sleep(POLL_SECONDS)  # its holder is about to write who it is, or to leave
    except FileNotFoundError:
        return 0
    return 0


def _is_free(lock: TextIO) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _pid_in(text: str) -> int:
    try:
        return int(json.loads(text)["pid"])
    except (ValueError, KeyError, TypeError):
        return 0


def is_listening(address: str) -> bool:
    """Whether somebody accepts connections at `unix:/path`."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(address.removeprefix("unix:"))
        except OSError:
            return False
        return True


def _read(path: Path) -> Services | None:
    try:
        values = json.loads(path.read_text())
        return Services(**{field.name: values[field.name] for field in fields(Services) if field.name in values})
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _spawn(bucket: Bucket, words: BinaryIO) -> subprocess.Popen[bytes]:
    """Start a host in its own session: it outlives this command, and Ctrl-C here does not reach it.

    What it says before it has its log, and why it cannot serve, it says to `words`.
    """
    return subprocess.Popen(
        [sys.executable, "-m", "maand_local", "--bucket", str(bucket.path)],
        stdin=subprocess.DEVNULL,
        stdout=words,
        stderr=words,
        cwd=bucket.path,
        start_new_session=True,
    )


def _not_started(exit_code: int, words: BinaryIO) -> ServiceUnreachable:
    """Say why a host ended, in its own last words."""
    words.seek(0)
    lines = words.read().decode(errors="replace").rstrip().splitlines()
    reasons, remedies = ([line.removeprefix(mark) for line in lines if line.startswith(mark)] for mark in ("error: ", "  help: "))
    reason = (reasons or lines or [_how_it_ended(exit_code)])[-1]
    help_ = (remedies or ["see the log: maand services logs"])[-1]
    return ServiceUnreachable(f"the local services did not start: {reason}", help=help_)


def _how_it_ended(exit_code: int) -> str:
    return f"ended by {signal.Signals(-exit_code).name}" if exit_code < 0 else f"exit code {exit_code}"
