"""Copying a directory to a worker: the local rsync talks to an rsync on the worker over a channel of the pooled connection.

    rsync (here) --its words, its bytes--> pipes --RsyncPipes--> channel --> [sudo] bash: fence, rsync --server (worker)

There is no second login. On the worker a copy begins as every command does (`remote_commands`): what a login shell prints is
dropped, the fence is looked at, and then there is nothing but rsync's own protocol on the channel. rsync's remote shell
is a line of `sh` that passes bytes between rsync and two pipes of the executor (`rsync.RELAY`).

The channel is there before the local rsync is started, so nothing of its time goes by while a connection is waited for. Whichever
rsync ends first, floods, or hears nothing for `SshSettings.silence`, the copy ends.
"""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Self

import asyncssh

from maand_executor.rules.facts import WorkerFence
from maand_executor.rules.side_by_side import end_tasks
from maand_executor.rules.worker_scripts import KEPT_DIRECTORIES
from maand_executor.ssh.errors import ConnectionLost, CopyFailed, CopyStoodStill, SshError, SudoRefused
from maand_executor.ssh.execution import why_not_started
from maand_executor.ssh.rsync import SILENT, CopyResult, local_arguments, main_message, parse_stats, serve_script
from maand_executor.ssh.rsync_pipes import KEPT_COMPLAINTS, MOST_COMPLAINTS, RsyncPipes, RsyncSession, take_pipes

MakeOrder = Callable[[str], bytes]
"""Makes what is written to a channel to have a script run there."""


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


async def copy_tree(
    worker: str, copy: RemoteCopy, session: RsyncSession, make_order: MakeOrder, *, silence: timedelta
) -> CopyResult:
    """Carry a copy out over an open channel; cancelling ends the local rsync. Raises as `copy_failure` and `why_not_started` say.

    The session is the caller's to close: that ends the rsync on the worker.
    """
    seconds = copy.timeout.total_seconds() if copy.timeout is not None else None
    try:
        async with asyncio.timeout(seconds), local_rsync(copy, silence) as rsync:
            await serve_local_rsync(copy, rsync, session, make_order)
            awaited = session.awaited
            rsync.end_relay(at_once=session.has_flooded)
            account = await rsync.account
    except TimeoutError:
        raise CopyFailed(worker, f"copying to {copy.target} took longer than {seconds:g} s") from None
    except (asyncssh.Error, ConnectionError) as error:
        raise ConnectionLost(worker, f"the connection was lost during a copy: {error}") from error
    except FileNotFoundError as error:
        raise CopyFailed(worker, "rsync is not installed where maand's executor runs") from error
    if (refusal := why_refused(worker, copy, session)) is not None:
        raise refusal
    if session.has_flooded or account.has_flooded:
        raise CopyFailed(worker, "its rsync complained without end")
    if rsync.process.returncode == 0:
        return parse_stats(account.stdout.decode("utf-8", "replace"))
    if rsync.process.returncode == SILENT:
        raise CopyStoodStill(worker, f"the copy stood still for {silence.total_seconds():g} s: {awaited}")
    complaints = session.complaints.decode("utf-8", "replace")
    raise copy_failure(worker, rsync.process.returncode, account.stderr.decode("utf-8", "replace"), complaints)


@dataclass(kw_only=True)
class Account:
    """What a process said, as far as it is kept: the end of its output, the beginning of its complaints."""

    stdout: bytes = b""
    stderr: bytes = b""
    has_flooded: bool = False

    async def read(self, process: asyncio.subprocess.Process) -> Self:
        """Take in what a process says until it ends; one that floods is ended."""

        async def follow(stream: asyncio.StreamReader | None, keep: Callable[[bytes], None]) -> None:
            assert stream
            count = 0
            while data := await stream.read(KEPT_COMPLAINTS):
                keep(data)
                count += len(data)
                if count > MOST_COMPLAINTS and not self.has_flooded:
                    self.has_flooded = True
                    kill_group(process)

        await asyncio.gather(follow(process.stdout, self._keep_stdout), follow(process.stderr, self._keep_stderr))
        await process.wait()
        return self

    def _keep_stdout(self, data: bytes) -> None:
        self.stdout = (self.stdout + data)[-KEPT_COMPLAINTS:]

    def _keep_stderr(self, data: bytes) -> None:
        self.stderr = (self.stderr + data)[:KEPT_COMPLAINTS]


@dataclass(frozen=True, kw_only=True)
class LocalRsync:
    """The rsync on this side: its process, its end, what it will have said, and the pipes to it."""

    process: asyncio.subprocess.Process
    exited: asyncio.Future[None]
    """Done as soon as the process is gone. `process.wait` also waits for its relay, which holds its pipes."""
    account: asyncio.Task[Account]
    pipes: RsyncPipes

    def end_relay(self, *, at_once: bool) -> None:
        """End what the process left of its group, when it is gone itself: the relay's `cat` would wait for nobody."""
        if at_once or self.exited.done():
            end_group(self.process, self.account)


@asynccontextmanager
async def local_rsync(copy: RemoteCopy, silence: timedelta) -> AsyncIterator[LocalRsync]:
    """Start the local rsync; it is ended with the block."""
    its_in, write_to = os.pipe()
    read_from, its_out = os.pipe()
    try:
        process = await start_rsync(copy, silence, its_in, its_out)
    except BaseException:
        close_descriptors(write_to, read_from)
        raise
    finally:
        close_descriptors(its_in, its_out)
    account = asyncio.create_task(Account().read(process))
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


def end_group(process: asyncio.subprocess.Process, account: asyncio.Task[Account]) -> None:
    """End a process and its relay; while its account is open, one of them holds its group's number."""
    if not account.done():
        kill_group(process)


def kill_group(process: asyncio.subprocess.Process) -> None:
    """Kill a process that leads its group, and the group."""
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


async def start_rsync(copy: RemoteCopy, silence: timedelta, its_in: int, its_out: int) -> asyncio.subprocess.Process:
    """Start the local rsync in a process group of its own, with nothing of our environment that could change what it does."""
    environment = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "IN": str(its_in), "OUT": str(its_out)}
    return await asyncio.create_subprocess_exec(
        *local_arguments(source=copy.source, target=copy.target, excludes=copy.keep, silence=silence),
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


async def serve_local_rsync(copy: RemoteCopy, rsync: LocalRsync, session: RsyncSession, make_order: MakeOrder) -> None:
    """Run on the worker what the local rsync wants run, until one of both ends. Raises why the connection was lost."""
    _host, *words = await rsync.pipes.incoming.words or ("",)
    if words:
        session.serve(make_order(serve_script(words, target=copy.target)), rsync.pipes)
        await first_to_end(session, rsync)


def why_refused(worker: str, copy: RemoteCopy, session: RsyncSession) -> SshError | None:
    """Return why the worker refused to begin, if it did.

    Where this side ended first, a refusal was heard before that, and its exit code perhaps not.
    """
    if session.opening.begun or (session.opening.words is None and session.exit_code is None):
        return None
    complaints = session.complaints.decode("utf-8", "replace")
    return why_not_started(worker, session.opening, complaints, fence=copy.fence, exit_code=session.exit_code)


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
    if "sudo:" in complaints:
        return SudoRefused(worker, complaints.strip().splitlines()[-1])
    if "rsync: not found" in complaints or "rsync: command not found" in complaints:
        return CopyFailed(worker, "rsync is not installed there")
    return CopyFailed(worker, main_message(complaints) if complaints.strip() else main_message(stderr))
