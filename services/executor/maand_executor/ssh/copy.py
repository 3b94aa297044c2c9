"""Copying a directory to a worker: the local rsync talks to an rsync on the worker over a channel of the pooled connection.

    rsync (here) --its words, its bytes--> pipes --RsyncPipes--> channel --> [sudo] bash: fence, rsync --server (worker)

There is no second login. On the worker a copy begins as every command does (`remote_commands`): what a login shell prints is
dropped, the fence is looked at, and then there is nothing but rsync's own protocol on the channel. rsync's remote shell
is a line of `sh` that passes bytes between rsync and two pipes of the executor (`rsync.RELAY`).

Whichever rsync ends first, or hears nothing for `rsync.SILENCE_SECONDS`, the copy ends.
"""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import asyncssh

from maand_executor.rules.facts import WorkerFence
from maand_executor.rules.side_by_side import end_tasks
from maand_executor.rules.worker_scripts import KEPT_DIRECTORIES
from maand_executor.ssh.errors import ConnectionLost, CopyFailed, SshError, SudoRefused
from maand_executor.ssh.execution import why_not_started
from maand_executor.ssh.rsync import (
    SILENCE_SECONDS,
    SILENT,
    CopyResult,
    local_arguments,
    main_message,
    parse_stats,
    serve_script,
)
from maand_executor.ssh.rsync_pipes import RsyncPipes, RsyncSession, take_pipes

OpenChannel = Callable[[str, RsyncPipes], AbstractAsyncContextManager[RsyncSession]]
"""Opens a channel for a script, joined to the pipes of the local rsync."""


@dataclass(frozen=True, kw_only=True)
class RemoteCopy:
    """A directory here whose content becomes the content of a directory on a worker.

    `target` is absolute or relative to the SSH user's home; its parents are made. What `keep` names at the top of the target is
    neither written nor deleted. With a `fence` the worker refuses one older than it has seen, and what is
    meant for another bucket or worker.
    """

    source: Path
    target: str
    sudo: bool
    fence: WorkerFence | None = None
    keep: Sequence[str] = KEPT_DIRECTORIES
    timeout: timedelta | None = timedelta(seconds=900)


async def copy_tree(worker: str, copy: RemoteCopy, open_channel: OpenChannel) -> CopyResult:
    """Carry a copy out; cancelling ends both rsyncs. Raises as opening a channel, and as `copy_failure` says."""
    seconds = copy.timeout.total_seconds() if copy.timeout is not None else None
    try:
        async with asyncio.timeout(seconds), local_rsync(copy) as rsync:
            refusal, complaints = await serve_local_rsync(worker, copy, rsync, open_channel)
            rsync.end_relay()
            stdout, stderr = await rsync.account
    except TimeoutError:
        raise CopyFailed(worker, f"copying to {copy.target} took longer than {seconds:g} s") from None
    except (asyncssh.Error, ConnectionError) as error:
        raise ConnectionLost(worker, f"the connection was lost during a copy: {error}") from error
    except FileNotFoundError as error:
        raise CopyFailed(worker, "rsync is not installed where maand's executor runs") from error
    if refusal is not None:
        raise refusal
    if rsync.process.returncode == 0:
        return parse_stats(stdout.decode("utf-8", "replace"))
    raise copy_failure(worker, rsync.process.returncode, stderr.decode("utf-8", "replace"), complaints)


@dataclass(frozen=True, kw_only=True)
class LocalRsync:
    """The rsync on this side: its process, its end, what it will have said, and the pipes to it."""

    process: asyncio.subprocess.Process
    exited: asyncio.Future[None]
    """Done as soon as the process is gone. `process.wait` also waits for its relay, which holds its pipes."""
    account: asyncio.Task[tuple[bytes, bytes]]
    pipes: RsyncPipes

    def end_relay(self) -> None:
        """End what the process left of its group, when it is gone itself: the relay's `cat` would wait for nobody."""
        if self.exited.done():
            end_group(self.process, self.account)


@asynccontextmanager
async def local_rsync(copy: RemoteCopy) -> AsyncIterator[LocalRsync]:
    """Start the local rsync; it is ended with the block."""
    its_in, write_to = os.pipe()
    read_from, its_out = os.pipe()
    try:
        process = await start_rsync(copy, its_in, its_out)
    except BaseException:
        close_descriptors(write_to, read_from)
        raise
    finally:
        close_descriptors(its_in, its_out)
    account = asyncio.create_task(process.communicate())
    try:
        pipes = await take_pipes(read_from=read_from, write_to=write_to)
        with watched_exit(process.pid) as exited:
            try:
                yield LocalRsync(process=process, exited=exited, account=account, pipes=pipes)
            finally:
                pipes.close()
    finally:
        end_group(process, account)
        await asyncio.wait([account])


def end_group(process: asyncio.subprocess.Process, account: asyncio.Task[tuple[bytes, bytes]]) -> None:
    """End a process and its relay; while its account is open, one of them holds its group's number."""
    if not account.done():
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


@contextmanager
def watched_exit(pid: int) -> Iterator[asyncio.Future[None]]:
    """Give a future that is done when a child has exited, whoever reaps it and whatever holds its pipes."""
    loop = asyncio.get_running_loop()
    exited = loop.create_future()
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        exited.set_result(None)
        yield exited
        return

    def note_exit() -> None:
        loop.remove_reader(pidfd)
        if not exited.done():
            exited.set_result(None)

    loop.add_reader(pidfd, note_exit)
    try:
        yield exited
    finally:
        loop.remove_reader(pidfd)
        os.close(pidfd)


async def start_rsync(copy: RemoteCopy, its_in: int, its_out: int) -> asyncio.subprocess.Process:
    """Start the local rsync in a process group of its own, with nothing of our environment that could change what it does."""
    environment = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "IN": str(its_in), "OUT": str(its_out)}
    return await asyncio.create_subprocess_exec(
        *local_arguments(source=copy.source, target=copy.target, excludes=copy.keep),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment,
        pass_fds=(its_in, its_out),
        process_group=0,
    )


def close_descriptors(*descriptors: int) -> None:
    """Close descriptors."""
    for descriptor in descriptors:
        os.close(descriptor)


async def serve_local_rsync(
    worker: str, copy: RemoteCopy, rsync: LocalRsync, open_channel: OpenChannel
) -> tuple[SshError | None, str]:
    """Run on the worker what the local rsync wants run, until one of both ends.

    Returns why the worker refused to begin, if it did, and what was complained about there.
    """
    _host, *words = await rsync.pipes.incoming.words or ("",)
    if not words:
        return None, ""
    async with open_channel(serve_script(words, target=copy.target), rsync.pipes) as session:
        await first_to_end(session, rsync)
    complaints = session.complaints.decode("utf-8", "replace")
    if session.opening.begun or (session.opening.words is None and session.exit_code is None):
        return None, complaints  # where this side ended first, a refusal was heard before that and its exit code perhaps not
    return why_not_started(worker, session.opening, complaints, fence=copy.fence, exit_code=session.exit_code), complaints


async def first_to_end(session: RsyncSession, rsync: LocalRsync) -> None:
    """Wait until the rsync on the worker ends, or the local one, which then said why. Raises why the connection was lost."""
    there = asyncio.create_task(session.ended())
    try:
        await asyncio.wait({there, rsync.exited}, return_when=asyncio.FIRST_COMPLETED)
        if there.done():
            there.result()
    finally:
        await end_tasks(there)


def copy_failure(worker: str, code: int | None, stderr: str, complaints: str) -> CopyFailed | SudoRefused:
    """Say why a copy failed: what the worker complained about explains more than what rsync made of it."""
    if code is not None and code < 0:
        return CopyFailed(worker, f"the rsync on this side was ended by signal {-code}")
    if code == SILENT:
        return CopyFailed(worker, f"the copy stood still: not a byte came or went for {SILENCE_SECONDS} s")
    if "sudo:" in complaints:
        return SudoRefused(worker, complaints.strip().splitlines()[-1])
    if "rsync: not found" in complaints or "rsync: command not found" in complaints:
        return CopyFailed(worker, "rsync is not installed there")
    return CopyFailed(worker, main_message(complaints) if complaints.strip() else main_message(stderr))
