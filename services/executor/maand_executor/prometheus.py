"""What Prometheus may know of an executor: numbers, labelled with words of the contracts and never with names people chose."""

from collections.abc import Callable
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from maand_executor.rules.meter import LoginOutcome, Meter, SshWait, TaskOutcome

WORK_BUCKETS = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 600, 1800)
"""Seconds that steps, hooks and runs take: from a `true` over an open connection to half an hour."""

WAIT_BUCKETS = (0.001, 0.005, 0.025, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
"""Seconds of waits and logins: 20 ms is usual, a minute means that something is wrong."""

KNOWN_STEPS = frozenset({"start", "stop", "restart", "reload", "status", "copy", "sync", "remove", "command"})
"""Steps that are told apart; a `make` target that somebody made up is counted as `other`."""


class Metrics(Meter):
    """The executor's own registry: two executors in one process do not meet."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self._runs = Counter("maand_executor_runs", "Runs that ended here", ["kind", "outcome"], registry=registry)
        self._active = Gauge("maand_executor_runs_active", "Runs carried out now", ["kind"], registry=registry)
        self._run_seconds = self._histogram("run_seconds", "From the claim of a run to its end", ["kind"], WORK_BUCKETS)
        self._steps = self._histogram("step_seconds", "Steps on workers", ["kind", "step", "outcome"], WORK_BUCKETS)
        self._hooks = self._histogram("hook_seconds", "Hook processes", ["event", "outcome"], WORK_BUCKETS)
        self._hook_processes = Gauge("maand_executor_hook_processes", "Hook processes alive now", registry=registry)
        self._connections = Gauge("maand_executor_ssh_connections", "SSH connections open now", registry=registry)
        self._logins = self._histogram("ssh_login_seconds", "Tries to log in to a worker", ["outcome"], WAIT_BUCKETS)
        self._waits = self._histogram("ssh_wait_seconds", "Waits before something went on over SSH", ["for"], WAIT_BUCKETS)
        self._lag = self._histogram("event_lag_seconds", "From an event's making to its being stored", [], WAIT_BUCKETS)
        self._leases_lost = Counter("maand_executor_leases_lost", "Leases that could not be kept", ["of"], registry=registry)
        self._claimed = Counter("maand_executor_tasks_claimed", "Parts of wide work taken", ["whose"], registry=registry)
        self._tasks = Counter("maand_executor_tasks", "Parts of wide work that ended here", ["outcome"], registry=registry)

    def watch(self, *, hook_processes: Callable[[], int], ssh_connections: Callable[[], int]) -> None:
        """Ask at every look how many hook processes live and how many connections are open."""
        self._hook_processes.set_function(hook_processes)
        self._connections.set_function(ssh_connections)

    def run_began(self, kind: str) -> None:
        """Count a run that this executor claimed."""
        self._active.labels(kind).inc()

    def run_ended(self, kind: str, outcome: str, seconds: float) -> None:
        """Count the end of a run here."""
        self._active.labels(kind).dec()
        self._runs.labels(kind, outcome).inc()
        self._run_seconds.labels(kind).observe(seconds)

    def step_ended(self, kind: str, step: str, outcome: str, seconds: float) -> None:
        """Count a step on a worker."""
        self._steps.labels(kind, step if step in KNOWN_STEPS else "other", outcome).observe(seconds)

    def hook_ended(self, event: str, outcome: str, seconds: float) -> None:
        """Count a hook process."""
        self._hooks.labels(event, outcome).observe(seconds)

    def login_ended(self, outcome: LoginOutcome, seconds: float) -> None:
        """Count one try to log in."""
        self._logins.labels(outcome).observe(seconds)

    def ssh_waited(self, what: SshWait, seconds: float) -> None:
        """Count one wait."""
        self._waits.labels(what).observe(seconds)

    def events_stored(self, lags: list[float]) -> None:
        """Count events."""
        for lag in lags:
            self._lag.observe(lag)

    def lease_lost(self, of: Literal["run", "task"]) -> None:
        """Count a lost lease."""
        self._leases_lost.labels(of).inc()

    def task_claimed(self, *, own: bool) -> None:
        """Count a claimed task."""
        self._claimed.labels("own" if own else "other").inc()

    def task_ended(self, outcome: TaskOutcome) -> None:
        """Count a task's end."""
        self._tasks.labels(outcome).inc()

    def _histogram(self, name: str, about: str, labels: list[str], buckets: tuple[float, ...]) -> Histogram:
        return Histogram(f"maand_executor_{name}", about, labels, buckets=buckets, registry=self.registry)
