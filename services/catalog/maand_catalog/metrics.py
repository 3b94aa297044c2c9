"""What Prometheus may know: how often each RPC was called, how it ended, how long it took."""

from collections.abc import Callable
from dataclasses import dataclass
from threading import Thread
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

from maand_catalog.errors import InvalidArgument

BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60)


class Metrics:
    """The catalog's own registry: two catalogs in one process do not meet."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._calls = Counter("maand_catalog_calls", "Calls by method and status", ["method", "status"], registry=self.registry)
        self._seconds = Histogram(
            "maand_catalog_call_seconds", "Duration of calls", ["method"], buckets=BUCKETS, registry=self.registry
        )

    def called(self, method: str, status: str, seconds: float) -> None:
        """Count one call."""
        self._calls.labels(method, status).inc()
        self._seconds.labels(method).observe(seconds)

    def watch_open_streams(self, count: Callable[[], int]) -> None:
        """Report the number of open streams."""
        Gauge("maand_catalog_open_streams", "Streams open now", registry=self.registry).set_function(count)


@dataclass(frozen=True, kw_only=True)
class MetricsServer:
    """A running `/metrics`."""

    server: WSGIServer
    thread: Thread

    @property
    def address(self) -> str:
        """`host:port` it is bound to."""
        host, port = self.server.server_address[:2]
        return f"{host!s}:{port}"

    def stop(self) -> None:
        """Stop serving."""
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


def serve_metrics(metrics: Metrics, listen: str) -> MetricsServer:
    """Serve `/metrics` on `host:port`. InvalidArgument for anything else."""
    host, _, port = listen.rpartition(":")
    if not host or not port.isdecimal():
        raise InvalidArgument(f"MAAND_METRICS_LISTEN is {listen}, not host:port", help="for example 127.0.0.1:9600")
    server, thread = start_http_server(int(port), addr=host.strip("[]"), registry=metrics.registry)
    return MetricsServer(server=server, thread=thread)
