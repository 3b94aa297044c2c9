"""Starting gRPC servers: unix socket (mode 0600) or TCP, with the standard health service and reflection."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from maand_wire.channels import MAX_MESSAGE_BYTES
from maand_wire.endpoints import LOOPBACK_HOSTS, EndpointError, TlsFiles
from maand_wire.health import Health

OPTIONS = [
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.so_reuseport", 0),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.http2.ping_timeout_ms", 10_000),  # what ends a connection whose ping is not answered, 60 s by default
]
"""A caller that is frozen or cut off while it waits (for a run, a slot) is noticed within 20 s, and waits no longer."""


def make_server(interceptors: Sequence[grpc.aio.ServerInterceptor] = ()) -> grpc.aio.Server:
    """Make a server with maand's limits; add services, then `bind_server`, then `start`."""
    return grpc.aio.server(interceptors=list(interceptors), options=OPTIONS)


def add_standard_services(server: grpc.aio.Server, service_names: Sequence[str]) -> Health:
    """Add reflection, and health, which says NOT_SERVING until the caller announces otherwise."""
    health = Health(service_names)
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    health_name = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
    reflection.enable_server_reflection((*service_names, health_name, reflection.SERVICE_NAME), server)
    return health


def bind_server(server: grpc.aio.Server, address: str, tls: TlsFiles | None = None, *, mutual: bool = False) -> str:
    """Bind `unix:/path` or `host:port` (port 0 = a free one) and return the address bound.

    In clear only unix sockets and loopback addresses are bound; anything else needs TLS. With `mutual`, who connects needs a
    certificate of the CA in `tls`: gRPC for Python knows "never" and "always", so who may do without has an address of its own.
    """
    if address.startswith("unix:"):
        return bind_unix_socket(server, Path(address.removeprefix("unix:")))
    host, _, _ = address.rpartition(":")
    try:
        if tls and tls.certificate and tls.key:
            port = server.add_secure_port(address, make_server_credentials(tls, mutual=mutual))
        elif host in LOOPBACK_HOSTS:
            port = server.add_insecure_port(address)
        else:
            raise EndpointError(f"{address} is not loopback: set MAAND_TLS_CERTIFICATE and MAAND_TLS_KEY to serve TLS there")
    except RuntimeError as error:
        raise EndpointError(f"cannot listen on {address}: {error}") from error
    return f"{host}:{port}"


def bind_unix_socket(server: grpc.aio.Server, path: Path) -> str:
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


def make_server_credentials(tls: TlsFiles, *, mutual: bool = False) -> grpc.ServerCredentials:
    """Build server TLS whose files are looked at for every new connection, so that new ones need no restart."""
    if tls.key is None or tls.certificate is None:
        raise EndpointError("serving TLS needs both MAAND_TLS_CERTIFICATE and MAAND_TLS_KEY")
    if mutual and tls.ca is None:
        raise EndpointError("client certificates are checked against MAAND_TLS_CA, which is not set")
    files = ServedFiles(key=tls.key, certificate=tls.certificate, ca=tls.ca if mutual else None)
    changed: Any = files.read_if_changed  # may answer None = unchanged, which the stubs do not know
    return grpc.dynamic_ssl_server_credentials(files.read(), changed, require_client_authentication=mutual)


class ServedFiles:
    """The files of a server's identity, read again when they changed."""

    def __init__(self, *, key: Path, certificate: Path, ca: Path | None) -> None:
        self._key, self._certificate, self._ca = key, certificate, ca
        self._seen = self._stamps()

    def read(self) -> grpc.ServerCertificateConfiguration:
        """Read all of them."""
        pair = (self._key.read_bytes(), self._certificate.read_bytes())
        return grpc.ssl_server_certificate_configuration([pair], self._ca.read_bytes() if self._ca else None)

    def read_if_changed(self) -> grpc.ServerCertificateConfiguration | None:
        """Read them when one is new; None = go on with what is known, also while a file is just being replaced."""
        try:
            stamps = self._stamps()
            if stamps == self._seen:
                return None
            fresh = self.read()
        except OSError:
            return None
        self._seen = stamps
        return fresh

    def _stamps(self) -> tuple[tuple[int, ...], ...]:
        files = (file.stat() for file in (self._key, self._certificate, self._ca) if file is not None)
        return tuple((file.st_mtime_ns, file.st_ctime_ns, file.st_ino) for file in files)
