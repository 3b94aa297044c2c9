"""What is kept of a stream of bytes: lines, never too long, never too many, whatever comes in. No IO.

bytes --LineSplitter--> Piece (some lines, or a part of a line that is too long)
bytes --Tail----------> the last lines, for failures, also of what the cap left out
"""

from collections.abc import Iterator
from dataclasses import dataclass

LINE_LIMIT = 64 * 1024
"""Bytes after which a line is split."""
TAIL_LIMIT = 64 * 1024
"""Bytes of which the last lines are taken."""
LAST_LINES = 20
LAST_LINE_LENGTH = 2_000
"""Characters of one last line; more does not help whoever reads a summary."""


@dataclass(frozen=True, kw_only=True)
class Piece:
    """Consecutive lines, with line ends between them. `ends` is False when the last one goes on in the next piece."""

    text: str
    ends: bool = True


class LineSplitter:
    """Cuts one stream into lines as chunks of any size and content arrive; no piece is longer than the limit."""

    def __init__(self, limit: int = LINE_LIMIT) -> None:
        self._limit = limit
        self._partial = b""

    def feed(self, data: bytes) -> Iterator[Piece]:
        """Yield what is complete: whole lines together, and full pieces of a line that is too long."""
        text, start = self._partial + data, 0
        while len(text) - start > self._limit:
            newline = text.rfind(b"\n", start, start + self._limit + 1)
            end = newline if newline >= 0 else character_boundary(text, start + self._limit)
            yield Piece(text=decode_output(text[start:end]), ends=newline >= 0)
            start = end + (newline >= 0)
        newline = text.rfind(b"\n", start)
        if newline >= 0:
            yield Piece(text=decode_output(text[start:newline]))
            start = newline + 1
        self._partial = text[start:]

    def finish(self) -> Iterator[Piece]:
        """Yield the last line when it has no line end."""
        rest, self._partial = self._partial, b""
        if rest:
            yield Piece(text=decode_output(rest))


def decode_output(data: bytes) -> str:
    """Read bytes as text whatever they are, line ends of other systems included; NUL is replaced, databases refuse it."""
    return data.decode(errors="replace").replace("\0", "\ufffd").replace("\r\n", "\n").removesuffix("\r")


def character_boundary(data: bytes, end: int) -> int:
    """Move a cut before the UTF-8 character it would tear; bytes that are no UTF-8 are cut where they are."""
    for back in range(4):
        if data[end - back] & 0xC0 != 0x80:
            return end - back
    return end


class Tail:
    """Remembers the end of a stream in bounded memory."""

    def __init__(self, limit: int = TAIL_LIMIT) -> None:
        self._limit = limit
        self._data = bytearray()
        self._cut = False

    def feed(self, data: bytes) -> None:
        """Take in a chunk."""
        self._data += data[-self._limit :]
        if len(self._data) > 2 * self._limit:
            self._trim()
        self._cut = self._cut or len(data) > self._limit

    def text(self) -> str:
        """Return the end of the stream from the beginning of a line; only a line longer than all this begins inside."""
        self._trim()
        text = decode_output(bytes(self._data))
        _, newline, complete = text.rstrip("\n").partition("\n")
        return complete if self._cut and newline else text

    def _trim(self) -> None:
        if len(self._data) > self._limit:
            del self._data[: -self._limit]
            self._cut = True


OUTPUT_STREAMS = ("stdout", "stderr")


class OutputTail:
    """Remembers the end of both streams of a process."""

    def __init__(self) -> None:
        self._tails = {stream: Tail() for stream in OUTPUT_STREAMS}

    def feed(self, stream: str, data: bytes) -> None:
        """Take in a chunk of `stdout` or `stderr`."""
        self._tails[stream].feed(data)

    def text(self) -> str:
        """Return the end of the output, not masked: standard output, then standard error, where causes are told."""
        return "\n".join(filter(None, (self._tails[stream].text().rstrip() for stream in OUTPUT_STREAMS)))


def tail_lines(masked_text: str) -> tuple[str, ...]:
    """Return the last lines of a text that was masked already, each cut to its end."""
    lines = masked_text.rstrip().rsplit("\n", LAST_LINES)[-LAST_LINES:] if masked_text.strip() else []
    return tuple(line if len(line) <= LAST_LINE_LENGTH else "…" + line[-LAST_LINE_LENGTH:] for line in lines)
