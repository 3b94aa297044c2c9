"""What the gateway can be told, with unit, default and reason of each setting.

| Variable                                         | Meaning                                                        |
|--------------------------------------------------|----------------------------------------------------------------|
| `MAAND_HOOK_API_LISTEN`                          | loopback `host:port` to serve on, default `127.0.0.1:8080`     |
| `MAAND_CATALOG_ADDRESS`, `MAAND_EXECUTOR_ADDRESS`| where calls go (see `maand_wire.endpoints`)                    |
| `MAAND_METRICS_LISTEN`                           | second `host:port` for `/metrics`, over TLS beyond loopback    |
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Self

from maand_wire.endpoints import Endpoint, TlsFiles

DEFAULT_LISTEN = "127.0.0.1:8080"


@dataclass(frozen=True, kw_only=True)
class RequestLimits:
    """What one request may cost the gateway."""

    body_bytes: int = 2 * 1024 * 1024
    """Largest body: the specification's limit."""
    body_time: timedelta = timedelta(seconds=10)
    """Longest wait for a body to be complete. Hooks send from the same machine; whoever takes longer has stopped sending."""
    head_time: timedelta = timedelta(seconds=10)
    """Longest a connection may take to send a request's head, its first one included."""
    idle_time: timedelta = timedelta(seconds=75)
    """How long a connection is kept without a request. The SDKs give theirs up after 30 s, so they never meet this end."""
    write_time: timedelta = timedelta(seconds=30)
    """Longest a client may leave an answer unread."""


@dataclass(frozen=True, kw_only=True)
class Deadlines:
    """How long a gRPC call may take before the hook is told 504."""

    catalog: timedelta = timedelta(seconds=15)
    """For calls that only read or write: far above what they need, so only a stuck service meets it."""
    margin: timedelta = timedelta(seconds=20)
    """Added to a timeout that the hook itself chose, so that the service which knows the reason answers first."""
    patience: timedelta = timedelta(seconds=20)
    """How long calls are repeated while the catalog is away. With the deadline of the last one it is less than the 60 s that the
    SDKs wait, so that a hook is told by the gateway."""


@dataclass(frozen=True, kw_only=True)
class GatewaySettings:
    """Everything the gateway is started with."""

    listen: str = DEFAULT_LISTEN
    """Loopback `host:port`; port 0 = a free one. Anything but loopback is refused: hooks run on this machine."""
    catalog: Endpoint
    executor: Endpoint
    metrics_listen: str | None = None
    """The hook API's own `/metrics` answers on loopback only; this one may be reached from elsewhere."""
    tls: TlsFiles | None = None
    """What `metrics_listen` shows beyond loopback."""
    limits: RequestLimits = field(default_factory=RequestLimits)
    deadlines: Deadlines = field(default_factory=Deadlines)
    stop_time: timedelta = timedelta(seconds=5)
    """How long running requests may still take when the gateway is asked to stop; waits for semaphores end at once."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Self:
        """Read the `MAAND_…` variables; `EndpointError` names the one that is missing."""
        return cls(
            listen=environment.get("MAAND_HOOK_API_LISTEN") or DEFAULT_LISTEN,
            catalog=Endpoint.from_environment("CATALOG", environment),
            executor=Endpoint.from_environment("EXECUTOR", environment),
            metrics_listen=environment.get("MAAND_METRICS_LISTEN") or None,
            tls=TlsFiles.from_environment(environment),
        )
