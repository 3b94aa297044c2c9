"""Joins the local rsync's two pipes to a channel: bytes pass both ways, and whoever is slow slows the other down.

rsync writes -> Incoming -> channel -> worker          worker -> channel -> RsyncSession -> outgoing pipe -> rsync reads
"""

import asyncio
import os
from dataclasses import dataclass

import asyncssh

MOST_COMPLAINTS = 64 * 1024

Channel = asyncssh.SSHClientChannel[bytes]


class Incoming(asyncio.Protocol):
    """Reads what rsync writes; nothing is read before there is a channel."""

    channel: Channel | None = None

    def data_received(self, data: bytes) -> None:
        """Pass it on."""
        if self.channel is not None and not self.channel.is_closing():
            self.channel.write(data)

    def eof_received(self) -> None:
        """Pass the end on."""
        if self.channel is not None and not self.channel.is_closing():
            self.channel.write_eof()


class Outgoing(asyncio.BaseProtocol):
    """Watches the pipe that rsync reads from: when it is full, the worker waits."""

    channel: Channel | None = None

    def pause_writing(self) -> None:
        """Stop taking from the worker."""
        if self.channel is not None:
            self.channel.pause_reading()

    def resume_writing(self) -> None:
        """Take from the worker again."""
        if self.channel is not None:
            self.channel.resume_reading()


@dataclass(frozen=True, kw_only=True)
class RsyncPipes:
    """The two pipes of the local rsync, in the event loop's hands."""

    incoming: Incoming
    outgoing: Outgoing
    reading: asyncio.ReadTransport
    writing: asyncio.WriteTransport

    def join(self, channel: Channel) -> None:
        """Let bytes pass to and from a channel."""
        self.incoming.channel = self.outgoing.channel = channel
        self.reading.resume_reading()

    def close(self) -> None:
        """Let go of both at once."""
        self.reading.close()
        self.writing.abort()


async def take_pipes(*, read_from: int, write_to: int) -> RsyncPipes:
    """Take two descriptors over."""
    loop = asyncio.get_running_loop()
    reading, incoming = await loop.connect_read_pipe(Incoming, os.fdopen(read_from, "rb", buffering=0))
    reading.pause_reading()
    writing, outgoing = await loop.connect_write_pipe(Outgoing, os.fdopen(write_to, "wb", buffering=0))
    return RsyncPipes(incoming=incoming, outgoing=outgoing, reading=reading, writing=writing)


class RsyncSession(asyncssh.SSHClientSession[bytes]):
    """The rsync on the worker, on its channel."""

    def __init__(self, pipes: RsyncPipes) -> None:
        self.exit_code: int | None = None
        self.complaints = b""
        self._lost: Exception | None = None
        self._pipes = pipes
        self._ended = asyncio.Event()
        self._channel: Channel | None = None

    async def ended(self) -> None:
        """Wait for the end of the channel. Raises why the connection was lost, when it was."""
        await self._ended.wait()
        if self._lost is not None:
            raise self._lost

    def close(self) -> None:
        """Let go of the channel, whatever is still to be sent."""
        if self._channel is not None:
            self._channel.abort()

    def connection_made(self, chan: Channel) -> None:
        """Keep the channel."""
        self._channel = chan

    def session_started(self) -> None:
        """Let bytes pass."""
        assert self._channel is not None
        self._pipes.join(self._channel)

    def data_received(self, data: bytes, datatype: int | None) -> None:
        """Pass rsync's protocol on, keep complaints."""
        if datatype is None:
            self._pipes.writing.write(data)
        elif len(self.complaints) < MOST_COMPLAINTS:
            self.complaints += data

    def eof_received(self) -> bool:
        """Pass the end on, after what is still on its way."""
        self._pipes.writing.close()
        return True

    def pause_writing(self) -> None:
        """Let rsync wait for the worker."""
        self._pipes.reading.pause_reading()

    def resume_writing(self) -> None:
        """Let rsync go on."""
        self._pipes.reading.resume_reading()

    def exit_status_received(self, status: int) -> None:
        """Note how it ended."""
        self.exit_code = status

    def connection_lost(self, exc: Exception | None) -> None:
        """Note the end."""
        self._lost = exc
        self._ended.set()
