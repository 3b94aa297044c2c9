"""Starting gRPC servers: unix socket (mode 0600) or TCP, with the standard health service and reflection."""

import os
from collections.abc import Sequence
from pathlib import Path

import grpc
import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from maand_wire.channels import MAX_MESSAGE_BYTES
from maand_wire.endpoints import LOOPBACK_HOSTS, EndpointError, TlsFiles

OPTIONS = [
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.so_reuseport", 0),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
]


def make_server(interceptors: Sequence[grpc.aio.ServerInterceptor] = ()) -> grpc.aio.Server:
    """Make a server with maand's limits; add services, then `listen`, then `start`."""
    return grpc.aio.server(interceptors=list(interceptors), options=OPTIONS)


def add_standard_services(server: grpc.aio.Server, service_names: Sequence[str]) -> health.aio.HealthServicer:
    """Add health (all SERVING) and reflection; keep the health servicer to announce a shutdown."""
    servicer = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    names = (*service_names, health.SERVICE_NAME, reflection.SERVICE_NAME)
    reflection.enable_server_reflection(names, server)
    return servicer


async def announce_serving(servicer: health.aio.HealthServicer, service_names: Sequence[str]) -> None:
    """Say SERVING for the server as a whole and for each service."""
    for name in ("", *service_names):
        await servicer.set(name, health_pb2.HealthCheckResponse.SERVING)


def listen(server: grpc.aio.Server, address: str, tls: TlsFiles | None = None) -> str:
    """Bind `unix:/path` or `host:port` (port 0 = a free one) and return the address bound.

    In clear only unix sockets and loopback addresses are bound; anything else needs TLS.
    """
    if address.startswith("unix:"):
        return listen_unix(server, Path(address.removeprefix("unix:")))
    host, _, _ = address.rpartition(":")
    try:
        if tls and tls.certificate and tls.key:
            port = server.add_secure_port(address, server_credentials(tls))
        elif host in LOOPBACK_HOSTS:
            port = server.add_insecure_port(address)
        else:
            raise EndpointError(f"{address} is not loopback: set MAAND_TLS_CERTIFICATE and MAAND_TLS_KEY to serve TLS there")
    except RuntimeError as error:
        raise EndpointError(f"cannot listen on {address}: {error}") from error
    return f"{host}:{port}"


def listen_unix(server: grpc.aio.Server, path: Path) -> str:
    """Bind a unix socket that only this user may open; a stale socket file is replaced."""
    if len(os.fsencode(path)) > 100:
        raise EndpointError(f"{path} is too long for a unix socket (100 bytes): choose a shorter directory")
    path.unlink(missing_ok=True)
    previous = os.umask(0o177)
    try:
        server.add_insecure_port(f"unix:{path}")
    except RuntimeError as error:
        raise EndpointError(f"cannot listen on {path}: {error}") from error
    finally:
        os.umask(previous)
    return f"unix:{path}"


def server_credentials(tls: TlsFiles) -> grpc.ServerCredentials:
    """Build server TLS; with a CA, a client certificate is checked when one is presented."""
    if tls.key is None or tls.certificate is None:
        raise EndpointError("serving TLS needs both MAAND_TLS_CERTIFICATE and MAAND_TLS_KEY")
    return grpc.ssl_server_credentials(
        [(tls.key.read_bytes(), tls.certificate.read_bytes())],
        root_certificates=tls.ca.read_bytes() if tls.ca else None,
        require_client_auth=False,
    )
