"""Copying a directory to a worker: the local rsync talks to an rsync on the worker over a channel of the pooled connection.

    rsync (here) --starts--> relay.py --its pipes and words--> executor --channel--> [sudo] rsync --server (worker)
         ^------------------------------- bytes of the copy -------------------------------^

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

from maand_executor.ssh.errors import CopyFailed, SudoRefused
from maand_executor.ssh.rsync import KEPT_DIRECTORIES, CopyResult, local_arguments, main_message, parse_stats, remote_line

RELAY = Path(__file__).with_name("relay.py")
MOST_WORDS = 64 * 1024


@dataclass(frozen=True, kw_only=True)
class RsyncCall:
    """What the local rsync wants run on the worker, and its own two pipes: it reads from `output`, writes to `input`."""

    words: tuple[str, ...]
    input: int
    output: int


OpenChannel = Callable[[str, RsyncCall], AbstractAsyncContextManager["asyncssh.SSHClientProcess[bytes]"]]
"""Opens a channel for a command line, joined to the pipes of a call, which then belong to it."""


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
    """Carry a copy out. Raises `CopyFailed`, `SudoRefused`, and what opening a channel raises; cancelling ends both rsyncs."""
    seconds = copy.timeout.total_seconds() if copy.timeout is not None else None
    try:
        async with asyncio.timeout(seconds), local_rsync(copy) as (rsync, ours):
            account = asyncio.create_task(rsync.communicate())
            complaints = await serve(copy, ours, open_channel)
            stdout, stderr = await account
    except TimeoutError:
        raise CopyFailed(worker, f"copying to {copy.target} took longer than {seconds:g} s") from None
    if rsync.returncode == 0:
        return parse_stats(stdout.decode("utf-8", "replace"))
    raise failure(worker, stderr.decode("utf-8", "replace"), complaints)


@asynccontextmanager
async def local_rsync(copy: RemoteCopy) -> AsyncIterator[tuple[asyncio.subprocess.Process, socket.socket]]:
    """Start the local rsync; give it and our end of the pair whose other end its relay holds. It is ended with the block."""
    ours, theirs = socket.socketpair()
    relay = (sys.executable, "-I", "-S", str(RELAY), str(theirs.fileno()))
    arguments = local_arguments(source=copy.source, target=copy.target, relay=relay, excludes=copy.keep)
    with ours:
        with theirs:
            process = await asyncio.create_subprocess_exec(
                *arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"},
                pass_fds=(theirs.fileno(),),
                process_group=0,
            )
        try:
            yield process, ours
        finally:
            await end_group(process)


async def serve(copy: RemoteCopy, ours: socket.socket, open_channel: OpenChannel) -> str:
    """Do what the relay asks for; return what was complained about on the worker."""
    call = await receive_call(ours)
    if call is None:
        return ""
    async with open_channel(remote_line(call.words, target=copy.target, sudo=copy.sudo), call) as process:
        complaints: bytes = await process.stderr.read()
        await process.wait_closed()
        code = process.exit_status
    with suppress(OSError):
        ours.send(bytes([code if code is not None else 255]))
    return complaints.decode("utf-8", "replace")


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
    return RsyncCall(words=tuple(words), input=pipes[0], output=pipes[1])


async def end_group(process: asyncio.subprocess.Process) -> None:
    """End rsync and its relay, when they have not ended by themselves."""
    if process.returncode is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


def failure(worker: str, stderr: str, complaints: str) -> CopyFailed | SudoRefused:
    """Say why a copy failed: what the worker complained about explains more than what rsync made of it."""
    if "sudo:" in complaints:
        return SudoRefused(worker, complaints.strip().splitlines()[-1])
    if "rsync: not found" in complaints or "rsync: command not found" in complaints:
        return CopyFailed(worker, "rsync is not installed there")
    return CopyFailed(worker, main_message(complaints) if complaints.strip() else main_message(stderr))
