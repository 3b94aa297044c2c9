"""One command on one channel: its output as it comes, its end, and ending it.

    opened --order written--> running --exit status, or connection lost--> ended
                                 |
                                 +--limit, or cancelled: a byte on the lifeline--> TERM, grace, KILL on the worker --> ended

While it runs the worker is told now and then that we are still there; when it hears nothing for long, it ends the command.

Opening a channel runs nothing: the worker's bash waits for the order. So a channel that cannot be opened may be tried again on
a fresh connection; once the order is written nothing is repeated.
"""

import asyncio
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta

import asyncssh

from maand_executor.rules.facts import WorkerFence
from maand_executor.rules.remote_commands import Opening, RemoteCommand, RemoteResult
from maand_executor.ssh.errors import (
    BashNotStarted,
    CommandNotStarted,
    ConnectionLost,
    ForeignOwner,
    ForeignWorker,
    SshError,
    StaleFence,
    SudoRefused,
)
from maand_executor.ssh.settings import SshSettings

OnOutput = Callable[[str, bytes], None]
"""Told the stream (`stdout` or `stderr`) and what came; must not block."""

Tell = Callable[[str], None]
"""Told a sentence that the people of a run should know now; must not block."""


def tell_nobody(_: str) -> None:
    """Drop it."""


TIMED_OUT_EXIT_CODE = 124
ALIVE = b"."
"""Says on the lifeline that we are still there."""
END = b"x"
"""Any other byte ends the command."""


class Capture:
    """What is kept of one stream."""

    def __init__(self, limit: int) -> None:
        self.truncated = False
        self._limit = limit
        self._kept = bytearray()

    def add(self, data: bytes) -> None:
        """Keep data as far as the limit goes."""
        room = self._limit - len(self._kept)
        self._kept += data[:room]
        self.truncated = self.truncated or len(data) > room

    def value(self) -> bytes:
        """Return what was kept."""
        return bytes(self._kept)


class Execution(asyncssh.SSHClientSession[bytes]):
    """The session on the channel, as asyncssh calls it back, and what became of the command."""

    def __init__(self, command: RemoteCommand, on_output: OnOutput | None, settings: SshSettings) -> None:
        self.exit_code: int | None = None
        self.lost: Exception | None = None
        self.opening = Opening()
        self.fence = command.fence
        self.output = {"stdout": Capture(command.capture_limit), "stderr": Capture(command.capture_limit)}
        self.ended = asyncio.Event()
        self._closed = asyncio.Event()
        self._on_output = on_output
        self._settings = settings
        self._channel: asyncssh.SSHClientChannel[bytes] | None = None
        self._draining: asyncio.TimerHandle | None = None
        self._beating: asyncio.TimerHandle | None = None

    # Called by asyncssh -------------------------------------------------------------------------------------------------

    def connection_made(self, chan: asyncssh.SSHClientChannel[bytes]) -> None:
        """Keep the channel."""
        self._channel = chan

    def data_received(self, data: bytes, datatype: int | None) -> None:
        """Take output in."""
        stream = "stdout" if datatype is None else "stderr"
        if stream == "stdout":
            data = self.opening.feed(data)
        else:
            self.opening.hear(data)
        if data:
            self.output[stream].add(data)
            if self._on_output is not None:
                self._on_output(stream, data)

    def eof_received(self) -> bool:
        """Note the end of output; keep our side open, it is the lifeline."""
        if self.exit_code is not None:
            self.ended.set()
        return True

    def exit_status_received(self, status: int) -> None:
        """Note how it ended; wait a little for the rest of the output."""
        self._note_exit(status)

    def exit_signal_received(self, signal: str, core_dumped: bool, msg: str, lang: str) -> None:
        """Note by which signal it ended."""
        self._note_exit(128 + signal_number(signal))

    def connection_lost(self, exc: Exception | None) -> None:
        """Note the end of the channel, whatever the reason."""
        self.lost = exc
        self.ended.set()
        self._closed.set()

    def _note_exit(self, code: int) -> None:
        self.exit_code = code
        loop = asyncio.get_running_loop()
        self._draining = loop.call_later(self._settings.drain.total_seconds(), self.ended.set)

    # Called by Remote ---------------------------------------------------------------------------------------------------

    def send(self, order: bytes) -> None:
        """Hand the worker the order."""
        self._say(order)
        self._beat_later()

    async def end_tree(self) -> bool:
        """End the remote process tree: TERM, grace, KILL, all done by the worker. Return whether it is known to be over.

        The worker closes the channel when the command has ended and nothing that it started holds its output.
        """
        self._say(END)
        patience = self._settings.grace + self._settings.kill_time
        with suppress(TimeoutError):
            async with asyncio.timeout(patience.total_seconds()):
                await self._closed.wait()
        return self._closed.is_set() and self.exit_code is not None

    def close(self) -> None:
        """Let go of the channel."""
        for timer in (self._draining, self._beating):
            if timer is not None:
                timer.cancel()
        if self._channel is not None:
            self._channel.close()

    def _beat_later(self) -> None:
        loop = asyncio.get_running_loop()
        self._beating = loop.call_later(self._settings.heartbeat.total_seconds(), self._beat)

    def _beat(self) -> None:
        self._say(ALIVE)
        self._beat_later()

    def _say(self, data: bytes) -> None:
        if self._channel is not None and not self._channel.is_closing():
            self._channel.write(data)


async def execute_command(execution: Execution, worker: str, command: RemoteCommand, order: bytes, tell: Tell) -> RemoteResult:
    """Run a command on its channel; cancelling ends its tree, and tells when that cannot be known.

    Raises `ConnectionLost`, `CommandNotStarted` and its kinds.
    """
    begun_at = time.monotonic()
    timed_out, end_known = False, True
    try:
        execution.send(order)
        async with asyncio.timeout(command.timeout.total_seconds() if command.timeout is not None else None):
            await execution.ended.wait()
    except TimeoutError:
        timed_out, end_known = True, await execution.end_tree()
    except asyncio.CancelledError:
        if not await asyncio.shield(execution.end_tree()):
            tell(f"a command on {worker} was told to end, and did not say that it has: look there before it is begun again")
        raise
    finally:
        execution.close()
    duration = timedelta(seconds=time.monotonic() - begun_at)
    return result_of_command(execution, worker, timed_out=timed_out, end_known=end_known, duration=duration)


def result_of_command(
    execution: Execution, worker: str, *, timed_out: bool, duration: timedelta, end_known: bool = True
) -> RemoteResult:
    """Say how it ended, or raise why that is not known or why it never began."""
    if execution.exit_code is None and not timed_out:
        raise ConnectionLost(worker, f"the connection was lost while a command ran: {execution.lost or 'channel closed'}")
    if not execution.opening.begun and not timed_out:
        said = execution.opening.complaints.decode("utf-8", "replace")
        raise why_not_started(worker, execution.opening, said, fence=execution.fence, exit_code=execution.exit_code)
    output = execution.output
    return RemoteResult(
        exit_code=TIMED_OUT_EXIT_CODE if timed_out else execution.exit_code or 0,
        stdout=output["stdout"].value(),
        stderr=output["stderr"].value(),
        timed_out=timed_out,
        end_known=end_known,
        truncated=any(capture.truncated for capture in output.values()),
        duration=duration,
    )


REFUSALS = {
    "directory": "the directory of the command does not exist there",
    "input": "there is no room for the command's input in /dev/shm or /tmp",
    "fence_file": "cannot write the file `fence` in the bucket's directory",
    "fence_lock": "cannot lock the file `fence` in the bucket's directory; is `flock` installed?",
}


def why_not_started(worker: str, opening: Opening, said: str, *, fence: WorkerFence | None, exit_code: int | None) -> SshError:
    """Return why a command did not begin, from what the worker said; `said` on standard error."""
    said = said.strip()
    match opening.words:
        case ("refused", "stale_fence", epoch, seq, number):
            return stale_fence_error(worker, fence, seen=(epoch, seq, number))
        case ("refused", "foreign_worker", field, found):
            return foreign_worker_error(worker, field, found)
        case ("refused", word):
            return CommandNotStarted(worker, ": ".join(filter(None, [REFUSALS.get(word, word), said])))
    if words := words_of_sudo(said):
        return SudoRefused(worker, words)
    heard = said or opening.noise.decode("utf-8", "replace").strip()
    words = f"the login shell of the SSH user did not start bash, exit code {exit_code}: {heard[-500:] or 'no output'}"
    return BashNotStarted(worker, words)


def words_of_sudo(said: str) -> str:
    """Return in which words sudo refused; empty when it said nothing."""
    return next((line.strip() for line in reversed(said.splitlines()) if "sudo:" in line), "")


def foreign_worker_error(worker: str, field: str, found: str) -> ForeignWorker:
    """Say whose the worker is."""
    if field == "owner_id":
        return ForeignOwner(worker, f"refused: another database acts on it for this bucket (owner {found})", owner_id=found)
    return ForeignWorker(worker, f"its worker.json names another {field.removesuffix('_id')}: {found}", **{field: found})


def stale_fence_error(worker: str, carried: WorkerFence | None, *, seen: tuple[str, str, str]) -> StaleFence:
    """Say who was on the worker before, and as whom we came."""
    epoch, seq, number = seen
    ours = carried or WorkerFence(epoch=0, seq=0, number=0)
    if epoch != str(ours.epoch):
        what = f"a later life of this bucket's database (epoch {epoch}, ours is {ours.epoch}) has changed this worker"
    elif seq != str(ours.seq):
        what = f"run {seq} of this bucket has changed this worker, and this is run {ours.seq}"
    else:
        what = f"claim {number} of run {seq} has changed this worker, and this is claim {ours.number}"
    return StaleFence(worker, f"refused the fence of this run: {what}", epoch=epoch, seq=seq, fence=number)


def signal_number(name: str) -> int:
    """Return the number of a signal as SSH names it, without `SIG`; 0 when this system does not know it."""
    try:
        return int(signal.Signals[f"SIG{name}"])
    except KeyError:
        return 0
