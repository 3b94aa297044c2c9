"""The journal of one run: what its work reports is masked and appended to the catalog, in order, once.

    report(), OutputSource.write()  --never block-->  queue  --one loop: mask, append, again-->  catalog

- Before every append it asks which secrets are new: whatever a hook stored before it printed is masked.
- What queued up during one append goes into the next; a short pause between appends makes a line-by-line hook cheap.
- When the catalog is slow, output is dropped and a line says so; events never are. Memory stays bounded.
- A repeat of an append that may have got through carries the same `request_id` and adds nothing.
"""

import asyncio
import time
import uuid
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Protocol, Self, TypeVar

import structlog
from google.protobuf.message import Message

from maand_contracts.catalog.v1 import run_event_pb2 as pb
from maand_executor.errors import CLAIM_IS_OVER, LeaseLost
from maand_executor.output.events import notice_event
from maand_executor.output.journal_entries import Entry, OutputPiece, OutputWriter
from maand_executor.output.masks import BucketMasks, MaskSource, mask_message
from maand_executor.output.output_source import OutputSource
from maand_executor.rules.facts import RunIdentity
from maand_executor.rules.masking import Masker
from maand_executor.rules.meter import Meter
from maand_executor.rules.side_by_side import end_tasks
from maand_wire.errors import RemoteError

log = structlog.get_logger("maand.journal")

BATCH_ENTRIES = 2_000
BATCH_BYTES = 1024 * 1024
"""Most that one append takes; a message may be 64 MiB, a database transaction should be short."""
BUFFER_LIMIT = 16 * 1024 * 1024
"""Output that may wait for the catalog, bytes; about ten seconds of the fastest hook."""
PAUSE = timedelta(milliseconds=50)
"""Between two appends, unless somebody waits: live for people, twenty appends a second for the catalog."""
RETRY_PAUSE = timedelta(seconds=1)
RETRY_LIMIT = timedelta(minutes=10)
"""How long a call is repeated while its run keeps its lease: a catalog that answers renewals is not away."""
CLOSE_LIMIT = timedelta(seconds=30)
"""How long a journal waits at its end for a catalog that is away; the lease of its run is over by then."""
INLINE_LIMIT = 64 * 1024
"""Bytes of entries up to which masking is done at once; more is done in a thread, the event loop has hooks to read."""
LAST_WORDS = timedelta(seconds=5)
"""How long a run or task that is let go may still say what it knows; a stop of the executor waits for it."""

Result = TypeVar("Result")


class EventSink(MaskSource, Protocol):
    """Where events go, and who knows the secrets: `CatalogClient`."""

    async def append_events(self, run: RunIdentity, events: Sequence[pb.RunEvent], *, request_id: str) -> int:
        """Append events once."""
        ...


class Journal:
    """One per run. Closed by its owner when the run's work is over; a context manager for that."""

    def __init__(
        self,
        run: RunIdentity,
        sink: EventSink,
        *,
        masks: BucketMasks | None = None,
        meter: Meter | None = None,
        buffer_limit: int = BUFFER_LIMIT,
        pause: timedelta = PAUSE,
    ) -> None:
        self._meter = meter or Meter()
        self._run = run
        self._sink = sink
        self._buffer_limit = buffer_limit
        self._pause = pause
        self._queue: deque[Entry] = deque()
        self._waiting_bytes = 0
        self._queued = 0
        self._stored = 0
        self._hurry = asyncio.Event()
        self._progress = asyncio.Condition()
        self._failure: Exception | None = None
        self._loop: asyncio.Task[None] | None = None
        self._masks = masks or BucketMasks(run.bucket_id)
        self._writer = OutputWriter()
        self._sources: dict[tuple[str, str, str], OutputSource] = {}
        self._warned: set[str] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, failure: type[BaseException] | None, *_: object) -> None:
        try:
            await self.close()
        except (LeaseLost, RemoteError):
            if failure is None:
                raise

    def report(self, event: pb.RunEvent) -> None:
        """Put an event (without sequence; without time = now) on its way. Never blocks, never drops."""
        if not event.HasField("time"):
            event.time.GetCurrentTime()
        self._put(event)

    def warn_once(self, text: str) -> None:
        """Tell something worth knowing now; the same again is told no more."""
        if text not in self._warned:
            self._warned.add(text)
            self.report(notice_event(text, warning=True))

    def source(self, *, job: str = "", worker: str = "", step: str = "") -> OutputSource:
        """Begin the output of one hook process or command; close it when that ended."""
        return OutputSource(self.offer, job=job, worker=worker, step=step)

    def output(self, *, job: str = "", worker: str = "", step: str = "", stream: str, data: bytes) -> None:
        """Add output to the source of that name, begun when it is new and closed with the journal."""
        key = (job, worker, step)
        if key not in self._sources:
            self._sources[key] = self.source(job=job, worker=worker, step=step)
        self._sources[key].write(stream, data)

    def offer(self, piece: OutputPiece) -> bool:
        """Put a piece of output on its way, or refuse it when too much is waiting."""
        if self._waiting_bytes + piece.size > self._buffer_limit:
            return False
        self._waiting_bytes += piece.size
        self._put(piece)
        return True

    async def masked(self, text: str) -> str:
        """Return a text as it may be shown, with the secrets of this moment."""
        return (await self._fresh_masker()).mask(text)

    async def mask(self, message: Message) -> None:
        """Mask a contract message, for example the run's result, in place."""
        mask_message(message, (await self._fresh_masker()).mask)

    async def flush(self) -> None:
        """Return when everything reported before is stored. Raises `LeaseLost` when another executor owns the run."""
        wanted = self._queued
        self._hurry.set()
        try:
            async with self._progress:
                await self._progress.wait_for(lambda: self._stored >= wanted or self._failure is not None)
        finally:
            self._hurry.clear()
        if self._failure is not None:
            raise self._failure

    async def close(self) -> None:
        """End all sources, flush, end the loop. Raises as `flush`; what a catalog that stays away does not take is lost."""
        for source in self._sources.values():
            source.close()
        try:
            async with asyncio.timeout(CLOSE_LIMIT.total_seconds()):
                await self.flush()
        except TimeoutError:
            log.warning("catalog away, end of the journal lost", run=self._run.run_id, entries=self._queued - self._stored)
        finally:
            if self._loop:
                await end_tasks(self._loop)

    async def close_hastily(self) -> None:
        """Close as far as the catalog takes it within `LAST_WORDS`: after a stop, or a lost lease. What is not stored is lost."""
        with suppress(LeaseLost, RemoteError, TimeoutError):
            async with asyncio.timeout(LAST_WORDS.total_seconds()):
                await self.close()

    def _put(self, entry: Entry) -> None:
        if self._failure is not None:
            return
        self._queue.append(entry)
        self._queued += 1
        if self._loop is None:
            self._loop = asyncio.create_task(self._append_all(), name=f"journal of {self._run.run_id}")

    async def _append_all(self) -> None:
        """Append until nothing waits; the next report begins anew. A journal that is forgotten leaves no task behind."""
        try:
            while self._queue:
                await self._append(self._take())
                await self._breathe()
        except Exception as error:
            self._failure = error
            self._queue.clear()
            expected = isinstance(error, LeaseLost | RemoteError)
            log.warning("journal ended", run=self._run.run_id, reason=str(error), exc_info=None if expected else error)
            await self._announce_progress()
        finally:
            self._loop = None

    def _take(self) -> list[Entry]:
        taken: list[Entry] = []
        size = 0
        while self._queue and len(taken) < BATCH_ENTRIES and size < BATCH_BYTES:
            entry = self._queue.popleft()
            taken.append(entry)
            size += size_of(entry)
        self._waiting_bytes -= sum(entry.size for entry in taken if isinstance(entry, OutputPiece))
        return taken

    async def _append(self, entries: list[Entry]) -> None:
        masker = await self._fresh_masker()
        if sum(map(size_of, entries)) <= INLINE_LIMIT:
            events = self._writer.write(entries, masker)
        else:
            events = await asyncio.to_thread(self._writer.write, entries, masker)
        if events:
            request_id = str(uuid.uuid4())
            await retry_while_catalog_is_away(lambda: self._sink.append_events(self._run, events, request_id=request_id))
            now = time.time()
            self._meter.events_stored([now - event.time.ToNanoseconds() / 1e9 for event in events])
        self._stored += len(entries)
        await self._announce_progress()

    async def _fresh_masker(self) -> Masker:
        return await retry_while_catalog_is_away(lambda: self._masks.refresh(self._sink))

    async def _breathe(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(self._pause.total_seconds()):
                await self._hurry.wait()

    async def _announce_progress(self) -> None:
        async with self._progress:
            self._progress.notify_all()


def size_of(entry: Entry) -> int:
    """Return how many bytes an entry will be, roughly."""
    return entry.size if isinstance(entry, OutputPiece) else entry.ByteSize()


async def retry_while_catalog_is_away(attempt: Callable[[], Awaitable[Result]]) -> Result:
    """Repeat while the catalog is away; a run that loses its lease meanwhile closes its journal.

    Raises `LeaseLost`, and the `RemoteError` of a call that no repeat helps.
    """
    give_up = time.monotonic() + RETRY_LIMIT.total_seconds()
    while True:
        try:
            return await attempt()
        except RemoteError as error:
            if error.code in CLAIM_IS_OVER:
                raise LeaseLost(f"the run belongs to another executor now: {error.message}") from error
            if not error.is_temporary or time.monotonic() >= give_up:
                raise
            log.warning("catalog away, output waits", reason=error.message)
        await asyncio.sleep(RETRY_PAUSE.total_seconds())
