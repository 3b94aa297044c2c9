"""What the gateway counts, for Prometheus."""

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5, 30, 300)
"""Seconds: most calls take milliseconds, waits for semaphores and commands minutes."""


class Metrics:
    """Requests by route and status, and how long they took. Each gateway has its own registry."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "maand_hook_api_requests", "Requests answered.", ("method", "route", "status"), registry=self.registry
        )
        self._seconds = Histogram(
            "maand_hook_api_request_seconds", "Time to answer.", ("method", "route"), registry=self.registry, buckets=BUCKETS
        )
        self._children: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}  # looked up once: labels() takes a lock

    def record(self, *, method: str, route: str, status: int, seconds: float) -> None:
        """Count one answered request. `method` and `route` come from the table of routes, never from outside."""
        key = (method, route, status)
        if key not in self._children:
            self._children[key] = (self._requests.labels(method, route, str(status)), self._seconds.labels(method, route))
        count, histogram = self._children[key]
        count.inc()
        histogram.observe(seconds)

    def text(self) -> bytes:
        """Return everything in Prometheus' text format."""
        return generate_latest(self.registry)
