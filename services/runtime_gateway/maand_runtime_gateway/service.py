"""Starting and stopping the gateway: a loopback socket, the application, uvicorn around it."""

import asyncio
import contextlib
import errno
import ipaddress
import socket
from collections.abc import Iterator

import structlog
import uvicorn
from starlette.types import ASGIApp

from maand_runtime_gateway.app import make_app
from maand_runtime_gateway.connection_limits import BoundedConnection, Watch
from maand_runtime_gateway.errors import NotLoopback, PortTaken
from maand_runtime_gateway.prometheus import Metrics
from maand_runtime_gateway.settings import GatewaySettings
from maand_runtime_gateway.upstream import Upstream
from maand_wire.metrics import MetricsServer, serve_metrics
from maand_wire.supervision import keep_running
from maand_wire.tracing import Tracer, make_tracer

log = structlog.get_logger("maand.gateway")

BACKLOG = 1024
"""Hooks of a large batch connect at the same moment."""


class EmbeddedServer(uvicorn.Server):
    """A uvicorn that leaves signals to the process it lives in, and says when it serves."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.serves = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start serving."""
        await super().startup(sockets)
        self.serves.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


class RunningGateway:
    """A gateway that serves. `address` is `host:port`."""

    def __init__(
        self,
        *,
        address: str,
        server: EmbeddedServer,
        upstream: Upstream,
        stopping: asyncio.Event,
        tasks: list[asyncio.Task[None]],
        metrics: Metrics,
        metrics_server: MetricsServer | None,
        tracer: Tracer | None,
    ) -> None:
        self._tracer = tracer
        self.address = address
        self.metrics = metrics
        self._metrics_server = metrics_server
        self._server = server
        self._upstream = upstream
        self._stopping = stopping
        self._tasks = tasks

    @property
    def metrics_address(self) -> str | None:
        """`host:port` of the second `/metrics`, when it is served."""
        return self._metrics_server.address if self._metrics_server else None

    @property
    def serving(self) -> asyncio.Task[None]:
        """What accepts connections: lasts until `stop`. Without it no hook is answered, so its end ends the process."""
        return self._tasks[0]

    async def stop(self) -> None:
        """Stop: no new connections, waits end with 503, running requests finish, channels close. May be repeated."""
        self._stopping.set()
        self._server.should_exit = True
        serving, watching = self._tasks
        await asyncio.gather(serving, return_exceptions=True)
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        await self._upstream.close()
        if self._metrics_server is not None:
            await asyncio.to_thread(self._metrics_server.stop)
            self._metrics_server = None
        if self._tracer is not None:
            await asyncio.to_thread(self._tracer.close)
        log.info("runtime gateway stopped", address=self.address)


async def start_gateway(settings: GatewaySettings) -> RunningGateway:
    """Serve the hook API; returns when it answers. Raises `NotLoopback`, `PortTaken`, or the wire's `EndpointError`."""
    listener = bind_loopback(settings.listen)
    upstream, metrics, tracer = Upstream(settings), Metrics(), make_tracer("maand-gateway")
    stopping = asyncio.Event()
    app = make_app(upstream, limits=settings.limits, stopping=stopping, metrics=metrics, tracer=tracer)
    server = EmbeddedServer(make_server_config(settings, app))
    watch = Watch(server.server_state, settings.limits)
    serving = asyncio.create_task(server.serve(sockets=[listener]), name="the server of the hook API")
    await until_serving(server, serving)
    metrics_server = serve_metrics([metrics.registry], settings.metrics_listen, settings.tls) if settings.metrics_listen else None
    tasks = [serving, asyncio.create_task(keep_running("watch over connections", watch.run))]
    address = "{}:{}".format(*bound_address(listener))
    log.info("runtime gateway serves", address=address)
    return RunningGateway(
        address=address,
        server=server,
        upstream=upstream,
        stopping=stopping,
        tasks=tasks,
        metrics=metrics,
        metrics_server=metrics_server,
        tracer=tracer,
    )


async def until_serving(server: EmbeddedServer, serving: asyncio.Task[None]) -> None:
    """Wait until connections are accepted; raises what kept the server from it."""
    ready = asyncio.ensure_future(server.serves.wait())
    await asyncio.wait((ready, serving), return_when=asyncio.FIRST_COMPLETED)
    ready.cancel()
    if serving.done():
        serving.result()


def make_server_config(settings: GatewaySettings, app: ASGIApp) -> uvicorn.Config:
    """Configure uvicorn: no websockets, no logs of its own, no signals, bounded connections."""
    return uvicorn.Config(
        app,
        http=BoundedConnection,
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="error",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=BACKLOG,
        timeout_keep_alive=int(settings.limits.idle_time.total_seconds()),
        timeout_graceful_shutdown=int(settings.stop_time.total_seconds()),
    )


def bind_loopback(listen: str) -> socket.socket:
    """Bind a loopback address, and nothing else."""
    host, port = parse_loopback_address(listen)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol is named because asyncio sets TCP_NODELAY only then: without it an answer takes 40 ms longer.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise PortTaken(listen) from error
        raise
    return listener


def parse_loopback_address(listen: str) -> tuple[str, int]:
    """Split `host:port` and make sure that it is loopback; names other than localhost are not looked up."""
    host, _, port = listen.rpartition(":")
    host = "127.0.0.1" if host == "localhost" else host.strip("[]")
    try:
        if not ipaddress.ip_address(host).is_loopback or not 0 <= int(port) <= 65535:
            raise NotLoopback(listen)
    except ValueError:
        raise NotLoopback(listen) from None
    return host, int(port)


def bound_address(listener: socket.socket) -> tuple[str, int]:
    """Return host and port as they are written in an address."""
    host, port = listener.getsockname()[:2]
    return (f"[{host}]" if ":" in host else host), port
