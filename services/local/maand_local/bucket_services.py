"""Starting the three services of a bucket in order, announcing them, and stopping them in the opposite order.

    catalog -> leases of dead executors given up -> gateway (8080, or a free port) -> executor -> run/services.json

The executor comes last because it claims runs at once and must tell their hooks where the gateway is.
"""

import asyncio
import json
import os
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import structlog

from maand_catalog.service import RunningCatalog, start_catalog
from maand_catalog.settings import CatalogSettings, read_retention
from maand_contracts.catalog.v1 import run_pb2, run_pb2_grpc
from maand_executor.service import RunningExecutor, require_descriptors, start_executor
from maand_executor.settings import ExecutorSettings, WorkSettings, read_hook_processes
from maand_local.layout import Layout, make_socket_directory, remove_if_empty, socket_directory
from maand_runtime_gateway.errors import PortTaken
from maand_runtime_gateway.service import RunningGateway, start_gateway
from maand_runtime_gateway.settings import GatewaySettings
from maand_wire.channels import open_channel
from maand_wire.endpoints import Endpoint
from maand_wire.errors import remote_errors
from maand_wire.metrics import serve_metrics

log = structlog.get_logger("maand.local")


@dataclass(frozen=True, kw_only=True)
class Announcement:
    """What `run/services.json` says.

    `bucket`, `device` and `inode` say which directory is served: a copy of the bucket brings a copy of this file, and a client
    that believed it there would work on the original.
    """

    bucket: str
    device: int
    inode: int
    pid: int
    version: str
    catalog: str
    executor: str
    hook_api: str
    started_at: str


@dataclass(frozen=True, kw_only=True)
class Activity:
    """What the services are doing. Times are monotonic seconds."""

    active_runs: int
    open_streams: int
    last_call_at: float


@dataclass(frozen=True, kw_only=True)
class RunningHost:
    """Three services that serve."""

    catalog: RunningCatalog
    executor: RunningExecutor
    gateway: RunningGateway

    def activity(self) -> Activity:
        """Return what they are doing."""
        return Activity(
            active_runs=self.executor.active_runs,
            open_streams=self.catalog.open_streams,
            last_call_at=self.catalog.last_call_at,
        )


@asynccontextmanager
async def run_services(layout: Layout, *, metrics_listen: str | None = None) -> AsyncIterator[RunningHost]:
    """Serve a bucket while the block runs. Whoever calls this holds the bucket's lock, so no other executor of it lives.

    The metrics of all three are served together, at an address of their own, only where one is named.
    """
    require_descriptors()  # before the catalog, which would not start for want of them, and say something else
    sockets = make_socket_directory(socket_directory(layout, temporary=Path(tempfile.gettempdir()), uid=os.getuid()))
    catalog_at, executor_at = (Endpoint(address=f"unix:{sockets / name}") for name in ("catalog.sock", "executor.sock"))
    async with AsyncExitStack() as stack:
        if sockets != layout.run:
            stack.callback(remove_if_empty, sockets)
        catalog = await start_catalog(make_catalog_settings(layout, catalog_at))
        stack.push_async_callback(catalog.stop)
        await release_dead_leases(catalog_at)
        gateway = await start_gateway_somewhere(catalog_at, executor_at)
        stack.push_async_callback(gateway.stop)
        executor = await start_executor(make_executor_settings(layout, catalog_at, executor_at, hook_api=gateway.address))
        stack.push_async_callback(executor.stop)
        if metrics_listen:
            registries = [part.metrics.registry for part in (catalog, executor, gateway)]
            stack.push_async_callback(asyncio.to_thread, serve_metrics(registries, metrics_listen).stop)
        write_announcement(layout, catalog=catalog_at, executor=executor_at, hook_api=gateway.address)
        stack.callback(remove_announcement, layout)
        yield RunningHost(catalog=catalog, executor=executor, gateway=gateway)


def make_catalog_settings(layout: Layout, listen: Endpoint) -> CatalogSettings:
    """Tell the catalog where this bucket keeps what."""
    return CatalogSettings(
        listen=listen.address,
        database_url=f"sqlite:///{layout.database}",
        kv_key_file=layout.secrets / "kv.key",
        ca_dir=layout.secrets,
        retention=read_retention(os.environ),
    )


def make_executor_settings(layout: Layout, catalog: Endpoint, listen: Endpoint, *, hook_api: str) -> ExecutorSettings:
    """Tell the executor where this bucket keeps what, and where its hooks find the gateway."""
    return ExecutorSettings(
        listen=listen.address,
        catalog=catalog,
        secrets_dir=layout.secrets,
        state_dir=layout.state,
        workspace_dir=layout.workspace,
        hook_api=hook_api,
        work=WorkSettings(hook_processes=read_hook_processes(os.environ)),
    )


async def start_gateway_somewhere(catalog: Endpoint, executor: Endpoint) -> RunningGateway:
    """Start the gateway on its usual port, or on a free one when somebody has that."""
    try:
        return await start_gateway(GatewaySettings(catalog=catalog, executor=executor))
    except PortTaken:
        log.info("usual port of the hook API is taken, using a free one")
        return await start_gateway(GatewaySettings(listen="127.0.0.1:0", catalog=catalog, executor=executor))


async def release_dead_leases(catalog: Endpoint) -> None:
    """Give up the leases of every earlier executor, so that its runs go on now and not when the leases lapse."""
    async with open_channel(catalog) as channel:
        stub = run_pb2_grpc.RunServiceStub(channel)
        with remote_errors():
            response = await stub.ReleaseLeases(run_pb2.ReleaseLeasesRequest(), timeout=10)
    if response.run_ids:
        log.info("took over from a host that died", runs=",".join(response.run_ids))


def write_announcement(layout: Layout, *, catalog: Endpoint, executor: Endpoint, hook_api: str) -> None:
    """Write `run/services.json`, whole or not at all."""
    status = layout.bucket.stat()
    announcement = Announcement(
        bucket=str(layout.bucket),
        device=status.st_dev,
        inode=status.st_ino,
        pid=os.getpid(),
        version=version("maand"),
        catalog=catalog.address,
        executor=executor.address,
        hook_api=hook_api,
        started_at=datetime.now(tz=UTC).isoformat(timespec="seconds"),
    )
    fresh = layout.services_file.with_suffix(".new")
    fresh.touch(mode=0o600)
    fresh.write_text(json.dumps(asdict(announcement)))
    fresh.replace(layout.services_file)


def remove_announcement(layout: Layout) -> None:
    """Remove `run/services.json` where it is this host's own: where a bucket was moved away, another one may stand and serve."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        if json.loads(layout.services_file.read_text())["pid"] == os.getpid():
            layout.services_file.unlink()
