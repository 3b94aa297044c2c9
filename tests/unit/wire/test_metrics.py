"""`/metrics` as every service serves it: registries together, in clear on loopback, over TLS elsewhere, refused otherwise."""

import socket
import ssl
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Counter

from maand_wire.endpoints import EndpointError, TlsFiles
from maand_wire.metrics import MetricsServer, serve_metrics
from tests.testbed.authority import TestAuthority


def a_registry(name: str) -> CollectorRegistry:
    registry = CollectorRegistry()
    Counter(name, "For a test", registry=registry).inc()
    return registry


@contextmanager
def serving(listen: str, tls: TlsFiles | None = None) -> Iterator[MetricsServer]:
    server = serve_metrics([a_registry("one"), a_registry("other")], listen, tls)
    try:
        yield server
    finally:
        server.stop()


def read(url: str, context: ssl.SSLContext | None = None) -> str:
    with urllib.request.urlopen(url, timeout=5, context=context) as response:
        return str(response.read().decode())


def test_registries_and_the_process_are_shown_together() -> None:
    with serving("127.0.0.1:0") as server:
        page = read(f"http://{server.address}/metrics")
    assert "one_total 1.0" in page
    assert "other_total 1.0" in page
    assert "process_open_fds" in page


def test_beyond_loopback_it_speaks_tls(tmp_path: Path) -> None:
    authority = TestAuthority(tmp_path)
    with serving("0.0.0.0:0", authority.files("catalog", "127.0.0.1")) as server:
        port = server.address.rpartition(":")[2]
        assert "one_total 1.0" in read(f"https://127.0.0.1:{port}/metrics", ssl.create_default_context(cafile=str(authority.ca)))


def test_in_clear_nothing_beyond_loopback_is_bound() -> None:
    with pytest.raises(EndpointError, match=r"0\.0\.0\.0:0 is not loopback: set MAAND_TLS_CERTIFICATE"):
        serve_metrics([], "0.0.0.0:0")


@pytest.mark.parametrize("listen", ["9600", "127.0.0.1", ":9600", "127.0.0.1:many", ""])
def test_an_address_that_is_none_is_refused_by_name(listen: str) -> None:
    with pytest.raises(EndpointError, match="MAAND_METRICS_LISTEN"):
        serve_metrics([], listen)


def test_a_port_that_is_taken_is_said() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(EndpointError, match=r"cannot serve metrics on .*: Address already in use"):
            serve_metrics([], f"127.0.0.1:{taken.getsockname()[1]}")


def test_a_client_that_connects_and_says_nothing_keeps_nobody_waiting(tmp_path: Path) -> None:
    authority = TestAuthority(tmp_path)
    with serving("0.0.0.0:0", authority.files("catalog", "127.0.0.1")) as server:
        port = int(server.address.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port)):
            context = ssl.create_default_context(cafile=str(authority.ca))
            assert "one_total 1.0" in read(f"https://127.0.0.1:{port}/metrics", context)
