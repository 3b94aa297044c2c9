"""Opening channels: the same call for a unix socket and for TLS, for asyncio and for the blocking command line."""

import json
from collections.abc import Callable
from typing import Any

import grpc
import grpc.aio

from maand_wire.certificates import check_own_certificate
from maand_wire.endpoints import Endpoint, EndpointError
from maand_wire.tracing_grpc import make_client_interceptors

MAX_MESSAGE_BYTES = 64 * 1024 * 1024
"""Largest message either way: a workspace of 100,000 files lists in about 16 MiB."""

MAX_ERROR_BYTES = 1024 * 1024
"""Largest trailer: an error carries the positions of some thousand problems; gRPC's own limit is 8 KiB."""

OPTIONS: list[tuple[str, Any]] = [
    ("grpc.max_metadata_size", MAX_ERROR_BYTES),
    ("grpc.absolute_max_metadata_size", MAX_ERROR_BYTES),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.enable_http_proxy", 0),
    ("grpc.keepalive_time_ms", 12_000),  # servers allow one ping in 10 s
    ("grpc.http2.ping_timeout_ms", 8_000),  # 60 s by default
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.service_config", json.dumps({"loadBalancingConfig": [{"round_robin": {}}]})),
]
"""A server that is frozen or cut off while a call waits for it is noticed within 20 s, as servers notice their callers."""

HOOK_CALLER = ("maand-caller", "hook")
"""Metadata of every call made for a hook: the server then accepts nothing but a live hook token."""

REVISION_HEADER = "maand-revision"
"""Header of a KV watch: the revision after which it tells everything. Who lost a watch that told nothing yet resumes with it."""


def bearer_header(token: str) -> tuple[str, str]:
    """Return the metadata entry that presents a token."""
    return ("authorization", f"Bearer {token}")


def open_channel(endpoint: Endpoint) -> grpc.aio.Channel:
    """Open an asyncio channel; it connects at the first call. Calls take the current span along where traces are wanted."""
    tracing = make_client_interceptors()
    if is_clear(endpoint):
        return grpc.aio.insecure_channel(endpoint.target(), options=OPTIONS, interceptors=tracing)
    credentials = make_channel_credentials(endpoint)
    return grpc.aio.secure_channel(endpoint.target(), credentials, options=channel_tls_options(endpoint), interceptors=tracing)


def open_blocking_channel(endpoint: Endpoint) -> grpc.Channel:
    """Open a blocking channel; it connects at the first call."""
    if is_clear(endpoint):
        return grpc.insecure_channel(endpoint.target(), options=OPTIONS)
    return grpc.secure_channel(endpoint.target(), make_channel_credentials(endpoint), options=channel_tls_options(endpoint))


def channel_tls_options(endpoint: Endpoint) -> list[tuple[str, Any]]:
    """Say which name the servers' certificates must carry: the first address's host, when a list is dialled by number."""
    return [*OPTIONS, ("grpc.default_authority", endpoint.server_name)] if endpoint.is_list else OPTIONS


def is_clear(endpoint: Endpoint) -> bool:
    """Tell whether to speak in clear: on a unix socket, or to loopback when neither TLS nor a token was asked for."""
    return endpoint.is_local or (endpoint.is_loopback and endpoint.tls is None and endpoint.token_file is None)


def make_channel_credentials(endpoint: Endpoint) -> grpc.ChannelCredentials:
    """Build TLS credentials, with the API token on every call when the endpoint has one."""
    if endpoint.tls is None or endpoint.tls.ca is None:
        raise EndpointError(f"{endpoint.address} is reached over TLS: set MAAND_TLS_CA to the file with its CA")
    tls = endpoint.tls
    check_own_certificate(tls)
    credentials = grpc.ssl_channel_credentials(
        root_certificates=endpoint.tls.ca.read_bytes(),
        private_key=tls.key.read_bytes() if tls.key else None,
        certificate_chain=tls.certificate.read_bytes() if tls.certificate else None,
    )
    if endpoint.token_file is None:
        return credentials
    endpoint.token()  # a file that cannot be read is told now and by name, not as a failure of every call
    return grpc.composite_channel_credentials(credentials, grpc.metadata_call_credentials(TokenFromFile(endpoint.token)))


class TokenFromFile(grpc.AuthMetadataPlugin):
    """Presents the API token, read anew for every call."""

    def __init__(self, read: Callable[[], str | None]) -> None:
        self._read = read

    def __call__(self, context: grpc.AuthMetadataContext, callback: grpc.AuthMetadataPluginCallback) -> None:
        """Hand the metadata to gRPC; a call that carries its own authorization (a hook's) goes without."""
        token = self._read()
        callback((bearer_header(token),) if token else (), None)
