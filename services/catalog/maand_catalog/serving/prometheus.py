"""What Prometheus may know of the catalog: numbers, labelled with words of the contracts and never with names people chose."""

from collections.abc import Callable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from maand_catalog.rules.meter import KvOperation, Meter, UnfinishedRuns, WaitOutcome
from maand_catalog.rules.runs import ACTIVE, RunKind

BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60)
WAIT_BUCKETS = (0.005, 0.025, 0.1, 0.5, 1, 5, 15, 60, 300, 600, 1800)
"""Seconds that somebody waits for a semaphore: from at once to half an hour."""

GROUP_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
"""Writes in one transaction; the group writer takes 256 at most."""


class Metrics(Meter):
    """The catalog's own registry: two catalogs in one process do not meet."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self._calls = Counter("maand_catalog_calls", "Calls by method and status", ["method", "status"], registry=registry)
        self._seconds = Histogram(
            "maand_catalog_call_seconds", "Duration of calls", ["method"], buckets=BUCKETS, registry=registry
        )
        self._open_streams = Gauge("maand_catalog_open_streams", "Streams open now", registry=registry)
        self._group = Histogram(
            "maand_catalog_commit_writes", "Writes that shared one transaction", buckets=GROUP_BUCKETS, registry=registry
        )
        self._commit_seconds = Histogram(
            "maand_catalog_commit_seconds", "Duration of transactions that write", buckets=BUCKETS, registry=registry
        )
        self._kv = Histogram(
            "maand_catalog_kv_seconds", "KV: from asked to answered or durable", ["operation"], buckets=BUCKETS, registry=registry
        )
        self._semaphores = Histogram(
            "maand_catalog_semaphore_wait_seconds",
            "Calls for a semaphore: how long they took, how they ended",
            ["outcome"],
            buckets=WAIT_BUCKETS,
            registry=registry,
        )
        self._waiting = Gauge("maand_catalog_semaphore_waiting", "Calls for a semaphore that wait now, here", registry=registry)
        self._runs = Gauge("maand_catalog_runs", "Runs that have not ended", ["kind", "state"], registry=registry)
        self._oldest_pending = Gauge(
            "maand_catalog_oldest_pending_run_seconds",
            "How long the oldest run that nothing holds back has waited for an executor",
            registry=registry,
        )
        self._upkeep = Gauge(
            "maand_catalog_upkeep_last_success_timestamp_seconds",
            "When the look after leases last came through",
            registry=registry,
        )
        self._taken_over = Counter("maand_catalog_runs_taken_over", "Runs claimed again after an executor", registry=registry)
        self._lapsed = Counter("maand_catalog_tasks_lapsed", "Tasks taken from an executor, lease over", registry=registry)

    def watch(self, *, open_streams: Callable[[], int], waiting: Callable[[], int]) -> None:
        """Ask at every look how many streams are open and how many calls wait for a semaphore."""
        self._open_streams.set_function(open_streams)
        self._waiting.set_function(waiting)

    def called(self, method: str, status: str, seconds: float) -> None:
        """Count one call."""
        self._calls.labels(method, status).inc()
        self._seconds.labels(method).observe(seconds)

    def committed(self, writes: int, seconds: float) -> None:
        """Count one transaction."""
        self._group.observe(writes)
        self._commit_seconds.observe(seconds)

    def kv_done(self, operation: KvOperation, seconds: float) -> None:
        """Count one read or write."""
        self._kv.labels(operation).observe(seconds)

    def semaphore_asked(self, outcome: WaitOutcome, seconds: float) -> None:
        """Count one call for a semaphore."""
        self._semaphores.labels(outcome).observe(seconds)

    def upkeep_came_through(self) -> None:
        """Remember when."""
        self._upkeep.set_to_current_time()

    def run_taken_over(self) -> None:
        """Count a takeover."""
        self._taken_over.inc()

    def tasks_lapsed(self, count: int) -> None:
        """Count lapsed tasks."""
        self._lapsed.inc(count)

    def runs_seen(self, runs: UnfinishedRuns) -> None:
        """Show the runs there are, and nought for the kinds and states of which there are none."""
        seen: Mapping[tuple[str, str], int] = runs.by_kind_and_state
        for kind in RunKind:
            for state in ACTIVE:
                self._runs.labels(kind, state).set(seen.get((kind, state), 0))
        self._oldest_pending.set(runs.oldest_pending_seconds)
