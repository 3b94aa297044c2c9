"""The output of one hook process or command on its way into the journal: split into lines, capped, its end remembered."""

from collections.abc import Callable, Iterable
from itertools import count, islice

from maand_executor.output.journal_entries import OutputPiece, SourceName, notices_in
from maand_executor.rules.output_lines import OUTPUT_STREAMS, LineSplitter, OutputTail, Piece

OUTPUT_CAP = 10 * 1024 * 1024
"""Bytes kept of one source, both streams together: the specification's."""
MOST_NOTICES = 100
"""Notices that one source may bring into the summary; all of them are events."""

numbers = count(1)


class OutputSource:
    """Takes chunks of any size and content, and never makes whoever writes wait."""

    def __init__(self, offer: Callable[[OutputPiece], bool], *, job: str, worker: str, step: str, cap: int = OUTPUT_CAP) -> None:
        self._offer = offer
        self._name = SourceName(number=next(numbers), job=job, worker=worker, step=step)
        self._room = cap
        self._cap = cap
        self._splitters = {stream: LineSplitter() for stream in OUTPUT_STREAMS}
        self._tail = OutputTail()
        self._dropped = dict.fromkeys(OUTPUT_STREAMS, 0)
        self._torn: dict[str, bool] = dict.fromkeys(OUTPUT_STREAMS, False)
        self._cut_in = ""
        self.notices: list[str] = []
        """What it said for the run's summary, not masked."""

    def write(self, stream: str, data: bytes) -> None:
        """Take in a chunk of `stdout` or `stderr`."""
        self._tail.feed(stream, data)
        if self._room < 0:
            return
        self._put(stream, self._splitters[stream].feed(data[: self._room]))
        self._room -= len(data)
        if self._room < 0:
            self._cut(stream)

    def close(self) -> None:
        """Take in what has no line end. Closing twice is closing once."""
        for stream, splitter in self._splitters.items():
            self._put(stream, splitter.finish())
            self._tell_dropped(stream)
        self._tell_cut()

    def tail(self) -> str:
        """Return the end of the output, not masked."""
        return self._tail.text()

    def _put(self, stream: str, pieces: Iterable[Piece]) -> None:
        for piece in pieces:
            if stream == "stdout":
                self.notices += islice(notices_in(piece.text), MOST_NOTICES - len(self.notices))
            if not self._torn[stream]:
                self._tell_dropped(stream)
            if self._dropped[stream] or not self._offer_text(stream, piece.text, ends=piece.ends):
                self._dropped[stream] += len(piece.text) + 1
                self._torn[stream] = not piece.ends

    def _tell_dropped(self, stream: str) -> None:
        """Say what was left out, when there is room for saying it; never inside a line, it may be inside a secret."""
        dropped = self._dropped[stream]
        text = f"[{dropped} bytes of output were dropped here: it came faster than the catalog could store it]"
        if dropped and self._offer_text(stream, text, after_gap=True):
            self._dropped[stream] = 0

    def _cut(self, stream: str) -> None:
        """Keep no more. Unfinished lines are left out: they may end in the middle of a secret."""
        self._splitters = {name: LineSplitter() for name in OUTPUT_STREAMS}
        self._cut_in = stream
        self._tell_cut()

    def _tell_cut(self) -> None:
        """Say once that no more is kept."""
        text = f"[output cut after {self._cap / 1024 / 1024:g} MiB; the process went on]"
        if self._cut_in and self._offer_text(self._cut_in, text, after_gap=True):
            self._cut_in = ""

    def _offer_text(self, stream: str, text: str, *, ends: bool = True, after_gap: bool = False) -> bool:
        return self._offer(OutputPiece(source=self._name, stream=stream, text=text, ends=ends, after_gap=after_gap))
