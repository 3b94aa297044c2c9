"""Serving `/metrics`: one manner for every service, and for the local host that is all of them at once.

In clear only on loopback; anywhere else over TLS, with the service's own certificate. Metrics hold numbers and words of the
contracts, never names of a bucket, job, worker or key, so no token is asked for, as for health.
"""

import ssl
from collections.abc import Iterable
from dataclasses import dataclass
from threading import Thread
from typing import Any
from wsgiref.simple_server import WSGIServer

import structlog
from prometheus_client import CollectorRegistry, ProcessCollector, start_http_server

from maand_wire.endpoints import LOOPBACK_HOSTS, EndpointError, TlsFiles

log = structlog.get_logger("maand.wire.metrics")

PATIENCE_SECONDS = 10
"""How long a connection may be silent. A scrape asks at once."""


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
        """Stop serving. Waits for its thread: call it outside the event loop's."""
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


def serve_metrics(registries: Iterable[CollectorRegistry], listen: str, tls: TlsFiles | None = None) -> MetricsServer:
    """Serve several registries, and what the process uses, on `host:port`. EndpointError for an address that cannot be used."""
    host, _, port = listen.rpartition(":")
    if not host or not port.isdecimal():
        raise EndpointError(f"MAAND_METRICS_LISTEN is {listen}, not host:port; for example 127.0.0.1:9600")
    try:
        server, thread = start_http_server(
            int(port), addr=host.strip("[]"), registry=merge_registries(registries), **metrics_tls_arguments(host, listen, tls)
        )
    except OSError as error:
        raise EndpointError(f"cannot serve metrics on {listen}: {error.strerror}; set MAAND_METRICS_LISTEN") from error
    time_out_silent_clients(server)
    logging_one: Any = server
    logging_one.handle_error = log_failed_request  # its own prints, which can fail and end the thread
    return MetricsServer(server=server, thread=thread)


def time_out_silent_clients(server: WSGIServer) -> None:
    """Let a client that connects and says nothing hold up its own thread only, and that not for long."""
    handler: Any = server.RequestHandlerClass
    server.RequestHandlerClass = type("PatientHandler", (handler,), {"timeout": PATIENCE_SECONDS})
    if isinstance(server.socket, ssl.SSLSocket):
        connection: Any = server.socket  # the stubs do not know the attribute
        connection.do_handshake_on_connect = False  # by the thread of the connection, not by the one that accepts


def log_failed_request(_request: object, client: object) -> None:
    """Log what went wrong with one connection."""
    log.warning("a request for metrics failed", client=str(client), exc_info=True)


def merge_registries(registries: Iterable[CollectorRegistry]) -> CollectorRegistry:
    """Make one registry of several, and of what this process uses of its machine."""
    whole = CollectorRegistry()
    ProcessCollector(registry=whole)
    for registry in registries:
        whole.register(registry)
    return whole


def metrics_tls_arguments(host: str, listen: str, tls: TlsFiles | None) -> dict[str, Any]:
    """Return what makes the server speak TLS; nothing on loopback. EndpointError when it would have to and cannot."""
    if host in LOOPBACK_HOSTS:
        return {}
    if tls is None or tls.certificate is None or tls.key is None:
        raise EndpointError(
            f"{listen} is not loopback: set MAAND_TLS_CERTIFICATE and MAAND_TLS_KEY to serve metrics over TLS there"
        )
    return {"certfile": str(tls.certificate), "keyfile": str(tls.key)}
