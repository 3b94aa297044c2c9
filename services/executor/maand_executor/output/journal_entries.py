"""What waits in a journal, and how it becomes events. No IO.

Consecutive output of one source becomes one event; what other sources said in between does not end it, because only the order
within a source is promised.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby

from maand_contracts.catalog.v1 import run_event_pb2 as pb
from maand_executor.output.events import new_event, notice_event
from maand_executor.output.masks import mask_message
from maand_executor.rules.masking import LineMasker, Masker
from maand_executor.rules.output_lines import LINE_LIMIT

NOTICE_PREFIX = "::maand-notice:: "
"""A line on standard output that begins so becomes a notice of the run; the SDK's `notice()` prints it."""

STREAMS: dict[str, "pb.OutputStream.ValueType"] = {"stdout": pb.OUTPUT_STREAM_STDOUT, "stderr": pb.OUTPUT_STREAM_STDERR}


@dataclass(frozen=True, kw_only=True)
class SourceName:
    """Whose output it is. Two sources of equal names are two: one hook may run twice."""

    number: int
    job: str
    worker: str
    step: str


@dataclass(frozen=True, kw_only=True)
class OutputPiece:
    """Some lines, or a part of one, as a source said it, not masked yet."""

    source: SourceName
    stream: str
    text: str = dataclasses.field(repr=False)
    ends: bool = True
    after_gap: bool = False
    """Something before it was left out: what is kept back of an unfinished line must not be shown, it may be half a secret."""

    @property
    def size(self) -> int:
        """Memory it takes, roughly."""
        return len(self.text) + 64


Entry = pb.RunEvent | OutputPiece


class OutputWriter:
    """Turns entries into masked events; remembers unfinished lines from one batch to the next."""

    def __init__(self) -> None:
        self._unfinished: dict[tuple[SourceName, str], LineMasker] = {}

    def write(self, entries: Iterable[Entry], masker: Masker) -> list[pb.RunEvent]:
        """Return the events that stand for these entries. Reported events are masked in place."""
        events: list[pb.RunEvent] = []
        outputs: dict[SourceName, pb.RunEvent] = {}
        for entry in entries:
            if isinstance(entry, pb.RunEvent):
                mask_message(entry, masker.mask)
                events.append(entry)
                continue
            for is_notice, lines in groupby(self._lines(entry, masker), key=notice_test(entry)):
                if is_notice:
                    outputs.pop(entry.source, None)
                    events += [notice_of_line(entry, line) for line in lines]
                    continue
                event = outputs.get(entry.source)
                if event is None or event.output.stream != STREAMS[entry.stream]:
                    event = outputs[entry.source] = output_event(entry)
                    events.append(event)
                event.output.lines.extend(lines)
        return events

    def _lines(self, piece: OutputPiece, masker: Masker) -> list[str]:
        """Return what this piece lets us show."""
        key = (piece.source, piece.stream)
        unfinished = self._unfinished.pop(key, None)
        if unfinished is None or piece.after_gap:
            unfinished = LineMasker()
        text = unfinished.feed(masker, piece.text, ends=piece.ends)
        if piece.ends:
            return [part for line in text.split("\n") for part in split_long_line(line)]
        self._unfinished[key] = unfinished
        return split_long_line(text) if text else []


def split_long_line(line: str) -> list[str]:
    """Split a line that became too long when what was kept back of it was put before it."""
    return [line[start : start + LINE_LIMIT] for start in range(0, len(line) or 1, LINE_LIMIT)]


def notice_test(piece: OutputPiece) -> Callable[[str], bool]:
    """Return how to tell notices among the lines of a piece; most pieces hold none."""
    if piece.stream == "stdout" and NOTICE_PREFIX in piece.text:
        return lambda line: line.startswith(NOTICE_PREFIX)
    return lambda _: False


def notices_in(text: str) -> Iterator[str]:
    """Yield what a text of several lines says for the run's summary."""
    if NOTICE_PREFIX in text:
        yield from (line.removeprefix(NOTICE_PREFIX) for line in text.split("\n") if line.startswith(NOTICE_PREFIX))


def output_event(piece: OutputPiece) -> pb.RunEvent:
    """Begin an output event of a source."""
    event = new_event(job=piece.source.job, worker=piece.source.worker)
    event.output.stream = STREAMS[piece.stream]
    event.output.step = piece.source.step
    return event


def notice_of_line(piece: OutputPiece, line: str) -> pb.RunEvent:
    """Make a notice of a line."""
    return notice_event(line.removeprefix(NOTICE_PREFIX), job=piece.source.job, worker=piece.source.worker)
