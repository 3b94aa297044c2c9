"""Copying a directory to a worker: the local rsync talks to an rsync on the worker over a channel of the pooled connection.

    rsync (here) --starts--> relay.py --rsync's pipes, its words--> executor --channel--> [sudo] rsync --server (worker)
         ^-------------------------------- bytes of the copy (junction) -----------------------^

There is no second login, and nothing but rsync's own protocol on the channel.
"""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import asyncssh

from maand_executor.ssh.errors import ConnectionLost, CopyFailed, SudoRefused
from maand_executor.ssh.junction import RsyncPipes, RsyncSession, take_pipes
from maand_executor.ssh.rsync import KEPT_DIRECTORIES, CopyResult, local_arguments, main_message, parse_stats, remote_line

RELAY = Path(__file__).with_name("relay.py")
MOST_WORDS = 64 * 1024


OpenChannel = Callable[[str, RsyncPipes], AbstractAsyncContextManager[RsyncSession]]
"""Opens a channel for a command line, joined to the pipes of the local rsync."""


@dataclass(frozen=True, kw_only=True)
class RemoteCopy:
    """A directory here whose content becomes the content of a directory on a worker.

    `target` is absolute or relative to the SSH user's home; its parents are made. What `keep` names at the top of the target is
    neither written nor deleted.
    """

    source: Path
    target: str
    sudo: bool
    keep: Sequence[str] = KEPT_DIRECTORIES
    timeout: timedelta | None = timedelta(seconds=900)


async def copy_tree(worker: str, copy: RemoteCopy, open_channel: OpenChannel) -> CopyResult:
    """Carry a copy out; cancelling ends both rsyncs. Raises as opening a channel, and as `failure` says."""
    seconds = copy.timeout.total_seconds() if copy.timeout is not None else None
    try:
        async with asyncio.timeout(seconds), local_rsync(copy) as rsync:
            complaints = await serve(copy, rsync.ours, open_channel)
            stdout, stderr = await rsync.account
    except TimeoutError:
        raise CopyFailed(worker, f"copying to {copy.target} took longer than {seconds:g} s") from None
    except (asyncssh.Error, ConnectionError) as error:
        raise ConnectionLost(worker, f"the connection was lost during a copy: {error}") from error
    except FileNotFoundError as error:
        raise CopyFailed(worker, "rsync is not installed where maand's executor runs") from error
    if rsync.process.returncode == 0:
        return parse_stats(stdout.decode("utf-8", "replace"))
    raise failure(worker, stderr.decode("utf-8", "replace"), complaints)


@dataclass(frozen=True, kw_only=True)
class LocalRsync:
    """The rsync on this side: its process, what it will have said, and our end of the pair whose other end its relay holds."""

    process: asyncio.subprocess.Process
    account: asyncio.Task[tuple[bytes, bytes]]
    ours: socket.socket


@asynccontextmanager
async def local_rsync(copy: RemoteCopy) -> AsyncIterator[LocalRsync]:
    """Start the local rsync; it is ended with the block."""
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            process = await start_rsync(copy, theirs)
        account = asyncio.create_task(process.communicate())
        try:
            yield LocalRsync(process=process, account=account, ours=ours)
        finally:
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
            await asyncio.wait([account])


async def start_rsync(copy: RemoteCopy, theirs: socket.socket) -> asyncio.subprocess.Process:
    """Start the local rsync in a process group of its own, with nothing of our environment that could change what it does."""
    relay = (sys.executable, "-I", "-S", str(RELAY), str(theirs.fileno()))
    return await asyncio.create_subprocess_exec(
        *local_arguments(source=copy.source, target=copy.target, relay=relay, excludes=copy.keep),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"},
        pass_fds=(theirs.fileno(),),
        process_group=0,
    )


async def serve(copy: RemoteCopy, ours: socket.socket, open_channel: OpenChannel) -> str:
    """Do what the relay asks for; return what was complained about on the worker."""
    call = await receive_call(ours)
    if call is None:
        return ""
    pipes = await take_pipes(read_from=call.read_from, write_to=call.write_to)
    try:
        async with open_channel(remote_line(call.words, target=copy.target, sudo=copy.sudo), pipes) as session:
            await session.ended()
    except BaseException:
        pipes.close()
        raise
    with suppress(OSError):
        ours.send(bytes([session.exit_code if session.exit_code is not None else 255]))
    return session.complaints.decode("utf-8", "replace")


@dataclass(frozen=True, kw_only=True)
class RsyncCall:
    """What the local rsync wants run on the worker, and its own two pipes."""

    words: tuple[str, ...]
    read_from: int
    write_to: int


async def receive_call(ours: socket.socket) -> RsyncCall | None:
    """Wait for the relay's message; None when rsync ended without starting one."""
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    ours.setblocking(False)
    loop.add_reader(ours, readable.set)
    try:
        await readable.wait()
    finally:
        loop.remove_reader(ours)
    message, pipes, _, _ = socket.recv_fds(ours, MOST_WORDS, 2)
    if len(pipes) != 2:
        return None
    _host, *words = message.decode("utf-8", "surrogateescape").split("\0")
    return RsyncCall(words=tuple(words), read_from=pipes[0], write_to=pipes[1])


def failure(worker: str, stderr: str, complaints: str) -> CopyFailed | SudoRefused:
    """Say why a copy failed: what the worker complained about explains more than what rsync made of it."""
    if "sudo:" in complaints:
        return SudoRefused(worker, complaints.strip().splitlines()[-1])
    if "rsync: not found" in complaints or "rsync: command not found" in complaints:
        return CopyFailed(worker, "rsync is not installed there")
    return CopyFailed(worker, main_message(complaints) if complaints.strip() else main_message(stderr))
