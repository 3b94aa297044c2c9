"""What is kept of a stream of bytes: lines, never too long, never too many, whatever comes in. No IO.

bytes --LineSplitter--> Piece (a line, or a part of a line that is too long)
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
    """Text of one line. `ends` is False when the same line goes on in the next piece."""

    text: str
    ends: bool = True


class LineSplitter:
    """Cuts one stream into lines as chunks of any size and content arrive."""

    def __init__(self, limit: int = LINE_LIMIT) -> None:
        self._limit = limit
        self._partial = b""

    def feed(self, data: bytes) -> Iterator[Piece]:
        """Yield what is complete: whole lines, and full pieces of a long one."""
        *complete, rest = (self._partial + data).split(b"\n")
        for line in complete:
            yield from self._line(line)
        yield from self._long(rest)

    def finish(self) -> Iterator[Piece]:
        """Yield the last line when it has no line end."""
        rest, self._partial = self._partial, b""
        if rest:
            yield Piece(text=decode(rest))

    def _line(self, line: bytes) -> Iterator[Piece]:
        yield from self._long(line)
        rest, self._partial = self._partial, b""
        yield Piece(text=decode(rest.removesuffix(b"\r")))

    def _long(self, text: bytes) -> Iterator[Piece]:
        start = 0
        while len(text) - start > self._limit:
            end = character_boundary(text, start + self._limit)
            yield Piece(text=decode(text[start:end]), ends=False)
            start = end
        self._partial = text[start:]


def decode(data: bytes) -> str:
    """Read bytes as text whatever they are; NUL too is replaced, databases refuse it."""
    return data.decode(errors="replace").replace("\0", "\ufffd")


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
        text = decode(bytes(self._data))
        _, newline, complete = text.rstrip("\n").partition("\n")
        return complete if self._cut and newline else text

    def _trim(self) -> None:
        if len(self._data) > self._limit:
            del self._data[: -self._limit]
            self._cut = True


def last_lines(masked_text: str) -> tuple[str, ...]:
    """Return the last lines of a text that was masked already, each cut to its end."""
    lines = masked_text.rstrip().splitlines()[-LAST_LINES:]
    return tuple(line if len(line) <= LAST_LINE_LENGTH else "…" + line[-LAST_LINE_LENGTH:] for line in lines)
