"""Joins the local rsync's two pipes to a channel: bytes pass both ways, and whoever is slow slows the other down.

    rsync writes -> Incoming -> channel -> worker          worker -> channel -> RsyncSession -> outgoing pipe -> rsync reads

What rsync's remote shell writes first are the words rsync wants run on the worker: each ends with a NUL, an empty one ends them.
"""

import asyncio
import os
from dataclasses import dataclass

import asyncssh

from maand_executor.rules.remote_commands import Opening

MOST_WORDS = 64 * 1024
KEPT_COMPLAINTS = 64 * 1024
MOST_COMPLAINTS = 8 * 1024 * 1024
"""A complaint about each of 50,000 files; more is a flood, which would keep this process busy."""
END_OF_WORDS = b"\0\0"

Channel = asyncssh.SSHClientChannel[bytes]


class Incoming(asyncio.Protocol):
    """Reads what rsync writes: its words, then what is passed on to the channel."""

    def __init__(self) -> None:
        self.words: asyncio.Future[tuple[str, ...]] = asyncio.get_running_loop().create_future()
        self.passed = 0
        """Bytes passed on."""
        self._kept = b""
        self._transport: asyncio.ReadTransport | None = None
        self._channel: Channel | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the pipe."""
        assert isinstance(transport, asyncio.ReadTransport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Pass bytes on; before there is a channel, read the words and nothing beyond."""
        if self._channel is not None:
            self._pass_on(data)
            return
        self._kept += data
        words, end, _ = self._kept.partition(END_OF_WORDS)
        if end or len(self._kept) > MOST_WORDS:
            assert self._transport is not None
            self._transport.pause_reading()
        if end and not self.words.done():
            self._kept = self._kept[len(words) + len(end) :]
            self.words.set_result(tuple(words.decode("utf-8", "surrogateescape").split("\0")))

    def eof_received(self) -> None:
        """Pass the end on."""
        if not self.words.done():
            self.words.set_result(())
        if self._channel is not None and not self._channel.is_closing():
            self._channel.write_eof()

    def join(self, channel: Channel) -> None:
        """Pass everything on to this channel from now on."""
        assert self._transport is not None
        self._channel = channel
        self._pass_on(self._kept)
        self._transport.resume_reading()

    def _pass_on(self, data: bytes) -> None:
        if data and self._channel is not None and not self._channel.is_closing():
            self.passed += len(data)
            self._channel.write(data)


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
        self.outgoing.channel = channel
        self.incoming.join(channel)

    def close(self) -> None:
        """Let go of both; what is closing already ends by itself when rsync does."""
        self.reading.close()
        if not self.writing.is_closing():
            self.writing.abort()


async def take_pipes(*, read_from: int, write_to: int) -> RsyncPipes:
    """Take two descriptors over."""
    loop = asyncio.get_running_loop()
    reading, incoming = await loop.connect_read_pipe(Incoming, os.fdopen(read_from, "rb", buffering=0))
    writing, outgoing = await loop.connect_write_pipe(Outgoing, os.fdopen(write_to, "wb", buffering=0))
    return RsyncPipes(incoming=incoming, outgoing=outgoing, reading=reading, writing=writing)


class RsyncSession(asyncssh.SSHClientSession[bytes]):
    """The rsync on the worker, on its channel: nothing is begun there until `serve`."""

    def __init__(self) -> None:
        self.complaints = b""
        self.opening = Opening()
        self.exit_code: int | None = None
        self.received = 0
        """Bytes of rsync's protocol that came."""
        self._complained = 0
        self._lost: Exception | None = None
        self._pipes: RsyncPipes | None = None
        self._ended = asyncio.Event()
        self._channel: Channel | None = None

    def serve(self, order: bytes, pipes: RsyncPipes) -> None:
        """Give the order, then let bytes pass."""
        assert self._channel is not None
        self._pipes = pipes
        if not self._channel.is_closing():
            self._channel.write(order)
            pipes.join(self._channel)

    @property
    def moved(self) -> int:
        """Bytes that passed in both directions."""
        return self.received + (self._pipes.incoming.passed if self._pipes else 0)

    @property
    def has_flooded(self) -> bool:
        """Whether it complained without end."""
        return self._complained > MOST_COMPLAINTS

    @property
    def awaited(self) -> str:
        """What the worker was waited for, for people."""
        if not self.opening.begun:
            return "its shell did not begin the copy"
        if not self.received:
            return "its rsync did not answer"
        if self._channel is not None and self._channel.get_write_buffer_size():
            return "its rsync took no more of what is sent"
        return f"its rsync said nothing more after {self.received} bytes"

    async def ended(self) -> None:
        """Wait for the end of the channel, or of what can be listened to. Raises why the connection was lost, when it was."""
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

    def data_received(self, data: bytes, datatype: int | None) -> None:
        """Pass rsync's protocol on, keep complaints."""
        if datatype is None:
            if (passed := self.opening.feed(data)) and self._pipes is not None:
                self.received += len(passed)
                self._pipes.writing.write(passed)
            return
        self.complaints = (self.complaints + data)[:KEPT_COMPLAINTS]
        self._complained += len(data)
        if self.has_flooded:
            self._ended.set()

    def eof_received(self) -> bool:
        """Pass the end on, after what is still on its way."""
        if self._pipes is not None:
            self._pipes.writing.close()
        return True

    def exit_status_received(self, status: int) -> None:
        """Note how it ended."""
        self.exit_code = status

    def pause_writing(self) -> None:
        """Let rsync wait for the worker."""
        if self._pipes is not None:
            self._pipes.reading.pause_reading()

    def resume_writing(self) -> None:
        """Let rsync go on."""
        if self._pipes is not None:
            self._pipes.reading.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """Note the end."""
        self._lost = exc
        self._ended.set()
