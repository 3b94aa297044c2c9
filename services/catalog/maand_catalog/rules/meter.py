"""What parts of the catalog tell of their work. This meter listens to nothing; `serving.prometheus.Metrics` is Prometheus's."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

KvOperation = Literal["read", "write"]
WaitOutcome = Literal["granted", "timed_out", "gone", "refused"]


@dataclass(frozen=True, kw_only=True)
class UnfinishedRuns:
    """The runs of all buckets that have not ended, at one moment."""

    by_kind_and_state: Mapping[tuple[str, str], int] = field(default_factory=dict)
    oldest_pending_seconds: float = 0.0
    """How long the oldest run that nothing keeps waiting has been waiting for an executor; 0 = none is."""


class Meter:
    """Told of everything worth counting. Called from the event loop and from the writer's thread; never raises, never blocks."""

    def called(self, method: str, status: str, seconds: float) -> None:
        """Count one call."""

    def committed(self, writes: int, seconds: float) -> None:
        """Count one transaction and how many writes shared it."""

    def kv_done(self, operation: KvOperation, seconds: float) -> None:
        """Count one read or write of the KV, from being asked until it was answered or durable."""

    def semaphore_asked(self, outcome: WaitOutcome, seconds: float) -> None:
        """Count one call for a semaphore that is over, and how long it took."""

    def upkeep_came_through(self) -> None:
        """Note that the look after leases was answered by the database."""

    def run_taken_over(self) -> None:
        """Count a run that was claimed again, after its executor gave it up or died."""

    def tasks_lapsed(self, count: int) -> None:
        """Count tasks that were taken from an executor whose lease was over."""

    def runs_seen(self, runs: UnfinishedRuns) -> None:
        """Take note of the runs that have not ended."""
