"""Putting the catalog together: settings -> parts -> a server that answers. The only place where all parts meet."""

import asyncio
import contextlib
from dataclasses import dataclass, field

import grpc.aio
import structlog

from maand_catalog.database.database import Database
from maand_catalog.database.migrate import migrate_database
from maand_catalog.database.soundness import refuse_damage
from maand_catalog.errors import Unavailable
from maand_catalog.rpc.identification import Identification
from maand_catalog.rpc.services import SERVICE_NAMES, STATUS_BY_ERROR, Parts, add_services
from maand_catalog.sealing.keyring import Keyring
from maand_catalog.serving.activity import Activity, CallMetering
from maand_catalog.serving.prometheus import Metrics
from maand_catalog.serving.semaphore_waiters import SemaphoreWaiters
from maand_catalog.serving.upkeep import Housekeeper
from maand_catalog.settings import CatalogSettings
from maand_catalog.store.runs.epochs import settle_database
from maand_wire.errors import ErrorBoundary
from maand_wire.health import Health
from maand_wire.metrics import MetricsServer, serve_metrics
from maand_wire.servers import add_standard_services, bind_server, make_server
from maand_wire.supervision import keep_running
from maand_wire.tracing import Tracer, make_tracer
from maand_wire.tracing_grpc import make_server_interceptors

log = structlog.get_logger("maand.catalog")


@dataclass(kw_only=True)
class RunningCatalog:
    """A catalog that serves. `address` is what clients dial."""

    address: str
    services_address: str | None
    settings: CatalogSettings
    database: Database
    server: grpc.aio.Server
    health: Health
    health_loop: "asyncio.Task[None]"
    semaphore_waiters: SemaphoreWaiters
    housekeeper: Housekeeper
    metrics: Metrics
    metrics_server: MetricsServer | None
    tracer: Tracer | None
    activity: Activity = field(default_factory=Activity)

    @property
    def metrics_address(self) -> str | None:
        """`host:port` of `/metrics`, when it is served."""
        return self.metrics_server.address if self.metrics_server else None

    @property
    def last_call_at(self) -> float:
        """When somebody last asked for something (monotonic seconds): any call but ClaimRun and health checks."""
        return self.activity.last_call_at

    @property
    def open_streams(self) -> int:
        """Streams that are open now: somebody is watching."""
        return self.activity.open_streams

    async def stop(self) -> None:
        """Stop: health says so, no new calls; who waits is told to try elsewhere, others have a grace; the database is closed."""
        self.health.announce_stop()
        self.health_loop.cancel()
        stopping = asyncio.create_task(self.server.stop(self.settings.stop_grace.total_seconds()))
        await self.housekeeper.stop()
        with contextlib.suppress(Unavailable):  # then its lease in the database ends by itself
            await self.semaphore_waiters.close()
        self.database.bus.close()
        await stopping
        if self.metrics_server is not None:
            await asyncio.to_thread(self.metrics_server.stop)
        if self.tracer is not None:
            await asyncio.to_thread(self.tracer.close)
        await self.database.close()
        log.info("catalog stopped", address=self.address)


async def start_catalog(settings: CatalogSettings) -> RunningCatalog:
    """Open the database, bring its schema up to date, and serve; returns when calls are answered.

    Raises `DatabaseInUse`, `DatabaseDamaged`, `SchemaTooNew`, `Unavailable`, `BadKeyFile`, or the wire's `EndpointError`.
    """
    metrics = Metrics()
    database = await Database.open(settings.database_url, meter=metrics)
    try:
        return await start_serving(settings, database, metrics)
    except BaseException:
        await database.close()
        raise


async def start_serving(settings: CatalogSettings, database: Database, metrics: Metrics | None = None) -> RunningCatalog:
    """Migrate and serve on an open database; `metrics` is what it tells of its work, when it was opened with one."""
    metrics = metrics or Metrics()
    await refuse_damage(database)
    await migrate_database(database)
    await settle_copies(database)
    activity = Activity()
    identification = Identification(database, executors_show_certificates=settings.services_listen is not None)
    tracer = make_tracer("maand-catalog")
    traced = make_server_interceptors(tracer)
    server = make_server([CallMetering(activity, metrics), *traced, ErrorBoundary(STATUS_BY_ERROR), identification])
    keyring, waiters = Keyring(settings.kv_key_file), SemaphoreWaiters(database, metrics)
    metrics.watch(open_streams=lambda: activity.open_streams, waiting=lambda: waiters.waiting)
    add_services(server, Parts(database=database, keyring=keyring, semaphore_waiters=waiters, settings=settings, meter=metrics))
    health = add_standard_services(server, SERVICE_NAMES)
    address = bind_server(server, settings.listen, settings.tls)
    services = bind_server(server, settings.services_listen, settings.tls, mutual=True) if settings.services_listen else None
    metrics_server = serve_metrics([metrics.registry], settings.metrics_listen, settings.tls) if settings.metrics_listen else None
    housekeeper = Housekeeper(database, upkeep=settings.upkeep, retention=settings.retention, meter=metrics)
    await server.start()
    housekeeper.start()
    health.announce(ready=True)
    health_loop = asyncio.create_task(keep_running("health", lambda: health.keep(housekeeper.is_well)), name="health")
    log.info("catalog serves", address=address, services=services, database=database.engines.dialect)
    return RunningCatalog(
        address=address,
        services_address=services,
        settings=settings,
        database=database,
        server=server,
        health=health,
        health_loop=health_loop,
        semaphore_waiters=waiters,
        housekeeper=housekeeper,
        metrics=metrics,
        metrics_server=metrics_server,
        tracer=tracer,
        activity=activity,
    )


async def settle_copies(database: Database) -> None:
    """Begin a new epoch on a copy of a database or a backup, before anybody can claim what was open in it."""
    begun = await database.write(settle_database, alone=True)
    if begun is None:
        return
    what = "is a copy, workers of the original refuse it" if begun.copied else "is a backup that was put back"
    log.warning(f"this database {what}: a new epoch begins", epoch=begun.epoch, runs_ended=len(begun.ended))
    why = "copied" if begun.copied else "restored from a backup"
    for run in begun.ended:
        log.warning(f"run ended: the database was {why}", run=run.run_id, kind=run.kind.value, was=run.state.value)
