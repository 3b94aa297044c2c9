"""What waits in a journal, and how it becomes events. No IO.

Consecutive output of one source becomes one event; what other sources said in between does not end it, because only the order
within a source is promised.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from maand_contracts.catalog.v1 import run_event_pb2 as pb
from maand_executor.hooks.output import LINE_LIMIT
from maand_executor.masked_events import mask_message
from maand_executor.masking import LineMasker, Masker

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
    """A line, or a part of one, as a source said it, not masked yet."""

    source: SourceName
    stream: str
    text: str = field(repr=False)
    ends: bool = True
    after_gap: bool = False
    """Something before it was left out: what is kept back of an unfinished line must not be shown, it may be half a secret."""

    @property
    def size(self) -> int:
        """Memory it takes, roughly; an empty line is not free."""
        return len(self.text) + 64


Entry = pb.RunEvent | OutputPiece


class OutputWriter:
    """Turns entries into masked events; remembers unfinished lines from one batch to the next."""

    def __init__(self) -> None:
        self._unfinished: dict[tuple[SourceName, str], LineMasker] = {}

    def write(self, entries: Iterable[Entry], masker: Masker) -> list[pb.RunEvent]:
        """Return the events that stand for these entries. Reported events are masked in place."""
        events: list[pb.RunEvent] = []
        open_outputs: dict[SourceName, pb.RunEvent] = {}
        for entry in entries:
            if isinstance(entry, pb.RunEvent):
                mask_message(entry, masker.mask)
                events.append(entry)
                continue
            lines = self._lines(entry, masker)
            if lines:
                event = open_outputs.get(entry.source)
                if event is None or event.output.stream != STREAMS[entry.stream]:
                    event = open_outputs[entry.source] = output_event(entry)
                    events.append(event)
                event.output.lines.extend(lines)
        return events

    def _lines(self, piece: OutputPiece, masker: Masker) -> list[str]:
        """Return what this piece lets us show."""
        key = (piece.source, piece.stream)
        unfinished = self._unfinished.pop(key, None)
        if piece.ends and (unfinished is None or piece.after_gap):
            return [masker.mask(piece.text)]
        unfinished = LineMasker() if unfinished is None or piece.after_gap else unfinished
        text = unfinished.feed(masker, piece.text, ends=piece.ends)
        if not piece.ends:
            self._unfinished[key] = unfinished
        return [text[start : start + LINE_LIMIT] for start in range(0, len(text), LINE_LIMIT)]


def output_event(piece: OutputPiece) -> pb.RunEvent:
    """Begin an output event of a source."""
    event = pb.RunEvent(job=piece.source.job, worker=piece.source.worker)
    event.time.GetCurrentTime()
    event.output.stream = STREAMS[piece.stream]
    event.output.step = piece.source.step
    return event
