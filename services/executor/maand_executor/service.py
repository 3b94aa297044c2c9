"""Putting the executor together: settings -> parts -> a server for its hooks, loops that claim runs and help with others'."""

import asyncio
import shutil
import uuid
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version

import grpc.aio
import structlog

from maand_contracts.executor.v1 import executor_pb2, executor_pb2_grpc, remote_pb2, remote_pb2_grpc
from maand_executor.catalog_client import CatalogClient
from maand_executor.claims.claimed_runs import RunLoop
from maand_executor.claims.claimed_tasks import HelpLoop
from maand_executor.content.content_store import ContentStore, make_private_directory
from maand_executor.content.renderer import TemplateRenderer
from maand_executor.hooks.engine import HookEngine
from maand_executor.prometheus import Metrics
from maand_executor.rpc.callers import Viewers
from maand_executor.rpc.errors import STATUS_BY_ERROR
from maand_executor.rpc.executor import ExecutorReport, ExecutorServicer
from maand_executor.rpc.remote import RemoteServicer
from maand_executor.rules.side_by_side import end_tasks
from maand_executor.settings import ExecutorSettings
from maand_executor.ssh.pool import Room
from maand_executor.ssh.remote import Remotes
from maand_executor.ssh.settings import (
    ENOUGH_FOR_ALL,
    FEWEST,
    SshSettings,
    connections_that_fit,
    copies_that_fit,
    raise_soft_limit,
)
from maand_executor.steps.context import ExecutorParts
from maand_wire.channels import open_channel
from maand_wire.errors import ErrorBoundary, RemoteError
from maand_wire.health import Health, check_serving
from maand_wire.host_faults import HostFault
from maand_wire.metrics import MetricsServer, serve_metrics
from maand_wire.servers import add_standard_services, bind_server, make_server
from maand_wire.supervision import keep_running
from maand_wire.tracing import make_tracer
from maand_wire.tracing_grpc import make_server_interceptors

log = structlog.get_logger("maand.executor")

SERVICES = tuple(
    service.full_name for file in (executor_pb2.DESCRIPTOR, remote_pb2.DESCRIPTOR) for service in file.services_by_name.values()
)


@dataclass(kw_only=True)
class RunningExecutor:
    """An executor that serves and claims runs."""

    address: str
    parts: ExecutorParts
    run_loop: RunLoop
    channel: grpc.aio.Channel
    server: grpc.aio.Server
    health: Health
    metrics: Metrics
    metrics_server: MetricsServer | None
    loops: "tuple[asyncio.Task[None], ...]"

    @property
    def executor_id(self) -> str:
        """Its id, new at every start."""
        return self.parts.executor_id

    @property
    def metrics_address(self) -> str | None:
        """`host:port` of `/metrics`, when it is served."""
        return self.metrics_server.address if self.metrics_server else None

    @property
    def active_runs(self) -> int:
        """How many runs it owns."""
        return len(self.run_loop.active_run_ids)

    async def stop(self) -> None:
        """Stop in an orderly way: health says so from the first moment.

        1. No further run or task is claimed; what runs is ended: hooks TERM then KILL, remote commands likewise.
        2. The leases are given up, so that another executor may go on at once.
        3. Connections are closed. May be called twice.
        """
        self.health.announce_stop()
        await end_tasks(*self.loops)
        with suppress(RemoteError):
            await self.parts.catalog.release_leases(self.executor_id)
        await self.server.stop(self.parts.settings.work.stop_grace.total_seconds())
        self.parts.hooks.close()
        await self.parts.templates.close()
        await self.parts.remotes.close()
        await self.channel.close()
        if self.metrics_server is not None:
            await asyncio.to_thread(self.metrics_server.stop)
            self.metrics_server = None
        if self.parts.tracer is not None:
            await asyncio.to_thread(self.parts.tracer.close)
        log.info("executor stopped", executor=self.executor_id)


async def start_executor(settings: ExecutorSettings, ssh: SshSettings | None = None) -> RunningExecutor:
    """Serve, and claim runs from now on; `ssh` where its limits are not the usual ones.

    Raises the wire's `EndpointError` when an address cannot be used, `HostFault`.
    """
    channel = open_channel(settings.catalog)
    metrics = Metrics()
    parts = assemble_parts(settings, CatalogClient(channel), metrics, ssh)
    await asyncio.to_thread(remove_leftovers, parts)
    run_loop = RunLoop(parts)
    server = make_server([*make_server_interceptors(parts.tracer), ErrorBoundary(STATUS_BY_ERROR)])
    try:
        address, health = await start_server(server, parts, run_loop)
        metrics_server = (
            serve_metrics([metrics.registry], settings.metrics_listen, settings.tls) if settings.metrics_listen else None
        )
    except BaseException:
        parts.hooks.close()
        await server.stop(None)
        await channel.close()
        raise
    loops = (
        asyncio.create_task(run_loop.run(), name="claims"),
        asyncio.create_task(HelpLoop(parts).run(), name="help"),
        asyncio.create_task(keep_running("health", lambda: health.keep(lambda: check_serving(channel))), name="health"),
    )
    log.info("executor serves", address=address, executor=parts.executor_id, catalog=settings.catalog.address)
    return RunningExecutor(
        address=address,
        parts=parts,
        run_loop=run_loop,
        channel=channel,
        server=server,
        health=health,
        metrics=metrics,
        metrics_server=metrics_server,
        loops=loops,
    )


def assemble_parts(
    settings: ExecutorSettings, catalog: CatalogClient, metrics: Metrics, ssh: SshSettings | None = None
) -> ExecutorParts:
    """Make what all runs share."""
    descriptors = require_descriptors()
    make_private_directory(settings.state_dir)
    content = ContentStore(settings.state_dir / "blobs", catalog)
    hooks = HookEngine(
        catalog=catalog,
        content=content,
        state_dir=settings.state_dir,
        workspace_dir=settings.workspace_dir,
        hook_api=settings.hook_api,
        process_limit=settings.work.hook_processes,
        meter=metrics,
    )
    remotes = Remotes(
        settings.secrets_dir,
        ssh or SshSettings(copies_at_once=copies_that_fit(descriptors)),
        meter=metrics,
        room=Room(connections_that_fit(descriptors)),
    )
    metrics.watch(hook_processes=lambda: len(hooks.live), ssh_connections=lambda: remotes.open_connections)
    return ExecutorParts(
        executor_id=str(uuid.uuid4()),
        settings=settings,
        catalog=catalog,
        content=content,
        templates=TemplateRenderer(),
        hooks=hooks,
        remotes=remotes,
        meter=metrics,
        tracer=make_tracer("maand-executor"),
    )


def require_descriptors() -> int:
    """Take the descriptors that this process may have, and return how many. Raises `HostFault` when they are too few to work."""
    descriptors = raise_soft_limit()
    if descriptors < FEWEST:
        help_ = f"raise `ulimit -n` where the services are started: {FEWEST} at least, better {ENOUGH_FOR_ALL}"
        raise HostFault(f"{descriptors} file descriptors are too few", help=help_)
    if descriptors < ENOUGH_FOR_ALL:
        log.warning("few file descriptors: a deploy is slow; raise `ulimit -n`", descriptors=descriptors, enough=ENOUGH_FOR_ALL)
    return descriptors


def remove_leftovers(parts: ExecutorParts) -> None:
    """Delete what an executor that was killed left behind, and content that nobody needed for long."""
    shutil.rmtree(parts.settings.staging_dir, ignore_errors=True)
    parts.content.prune(parts.settings.work.content_kept)


async def start_server(server: grpc.aio.Server, parts: ExecutorParts, run_loop: RunLoop) -> tuple[str, Health]:
    """Add the services, bind, start; return the address bound, and the health to keep."""

    def report() -> ExecutorReport:
        return ExecutorReport(
            executor_id=parts.executor_id,
            version=version("maand"),
            hook_api=parts.settings.hook_api,
            run_ids=run_loop.active_run_ids,
            ssh_connections=parts.remotes.open_connections,
            hook_processes=len(parts.hooks.live),
        )

    executor_pb2_grpc.add_ExecutorServiceServicer_to_server(ExecutorServicer(report, Viewers(parts.settings.catalog)), server)
    remote_pb2_grpc.add_RemoteServiceServicer_to_server(RemoteServicer(parts.hooks.live), server)
    health = add_standard_services(server, SERVICES)
    address = bind_server(server, parts.settings.listen, parts.settings.tls)
    await server.start()
    return address, health
