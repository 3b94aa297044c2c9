"""What the catalog does unasked: take runs and tasks whose lease is over, end waits that went on too long, trim old events.

Every replica does it; what one did, another finds done. A failure (the database is away) is logged and tried again next time;
what nobody foresaw is logged with its traceback, and the loop it met begins again (`maand_wire.supervision`): the others go on.
That the look after leases came through lately is how the catalog knows that its database answers, and its loops live.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from functools import partial
from typing import NoReturn

import structlog
from sqlalchemy.exc import SQLAlchemyError

from maand_catalog.database.database import Database
from maand_catalog.errors import CatalogError
from maand_catalog.rules.meter import Meter
from maand_catalog.settings import UpkeepIntervals
from maand_catalog.store.runs.ends import interrupt_lapsed_runs
from maand_catalog.store.runs.leases import count_unfinished_runs, shorten_leases
from maand_catalog.store.runs.retention import Retention, end_long_waits, is_care_due, trim_runs
from maand_catalog.store.runs.tasks import is_any_task_lapsed, settle_lapsed_tasks
from maand_wire.supervision import keep_running

log = structlog.get_logger("maand.catalog.upkeep")

LATELY = timedelta(seconds=5)
"""A look after leases is due every second; none in so long: the database does not answer, or the loop has ended."""


class Housekeeper:
    """Runs its loops until it is stopped."""

    def __init__(self, database: Database, *, upkeep: UpkeepIntervals, retention: Retention, meter: Meter) -> None:
        self._database = database
        self._upkeep = upkeep
        self._retention = retention
        self._meter = meter
        self._task: asyncio.Task[None] | None = None
        self._came_through = time.monotonic()

    def start(self) -> None:
        """Begin."""
        self._task = asyncio.create_task(self._run(), name="catalog-upkeep")

    async def stop(self) -> None:
        """Stop after what is being done."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def is_well(self) -> bool:
        """Whether the database answered lately and the loops live."""
        return time.monotonic() - self._came_through < LATELY.total_seconds()

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            for name, work, every in (
                ("leases of runs", self.look_after_leases, self._upkeep.look_every),
                ("leases of tasks", self.look_after_tasks, self._upkeep.look_every),
                ("count of runs", self.count, self._upkeep.count_every),
                ("trim of events", self.trim, self._upkeep.trim_every),
            ):
                tasks.create_task(keep_running(f"upkeep: {name}", partial(repeat_work, work, every=every)))

    async def look_after_leases(self) -> None:
        """Interrupt and fail what is due; a write happens only when something is."""
        due = await self._database.read(is_care_due)
        self._came_through = time.monotonic()
        self._meter.upkeep_came_through()
        if not due:
            return
        await self._database.write(shorten_leases)
        interrupted = await self._database.write(interrupt_lapsed_runs)
        failed = await self._database.write(end_long_waits)
        for run_id in interrupted:
            log.warning("run interrupted: its lease is over", run=run_id)
        for run_id in failed:
            log.info("run failed: it waited for the bucket too long", run=run_id)

    async def look_after_tasks(self) -> None:
        """Take tasks from executors that let their lease lapse."""
        if not await self._database.read(is_any_task_lapsed):
            return
        settled = await self._database.write(settle_lapsed_tasks)
        self._meter.tasks_lapsed(len(settled))
        for task in settled:
            log.warning(
                "task taken from its executor: its lease is over", run=task.run_id, task=task.name, executor=task.executor_id
            )

    async def count(self) -> None:
        """Tell the meter which runs there are."""
        self._meter.runs_seen(await self._database.read(count_unfinished_runs))

    async def trim(self) -> None:
        """Trim until nothing is left to trim."""
        while trimmed := await self._database.write(lambda tx: trim_runs(tx, self._retention), alone=True):
            log.info("trimmed events of old runs", runs=trimmed)


async def repeat_work(work: Callable[[], Awaitable[None]], *, every: timedelta) -> NoReturn:
    """Do the work, wait, and so on; a database that is away or too slow does not end it."""
    while True:
        try:
            await work()
        except (CatalogError, SQLAlchemyError) as error:
            log.warning("upkeep is postponed", reason=str(error))
        await asyncio.sleep(every.total_seconds())
