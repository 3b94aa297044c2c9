"""A bucket whose batches are shared by two executors: tasks of two workers each, so that a handful of workers is a crowd.

async with shared_bed(tmp_path, test_bed, workers=6) as bed:      # one executor: bed.deploys.executor
    helper = await bed.start_helper()                             # another executor, in this process, with a gateway of its own
    killed = await bed.start_helper_process()                     # or as a process that can be killed

Whichever of them claims a run owns it: started before a run is asked for, any may; started later, only if the owner dies.
"""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

from sqlalchemy import select

from maand_catalog.database.transaction import Transaction
from maand_catalog.rules.tasks import Task, TaskKind
from maand_catalog.store.runs.task_states import TASK_COLUMNS, to_task
from maand_catalog.store.tables.runs import tasks
from maand_executor.service import RunningExecutor, start_executor
from maand_executor.settings import WorkSettings
from maand_runtime_gateway.service import RunningGateway, start_gateway
from maand_runtime_gateway.settings import GatewaySettings
from maand_wire.endpoints import Endpoint
from tests.integration.executor.deploy_bed import DeployBed, deploy_bed
from tests.testbed.sshd import SshTestBed

WIDTH = 2
LEFT_TO_OTHERS = 60
"""Seconds that the owner of a run leaves tasks of hooks to others: a helper that a test starts in between finds one."""

NARROW_EXECUTOR = f"""
import asyncio
from dataclasses import replace
from datetime import timedelta
from maand_executor.service import start_executor
from maand_executor.settings import ExecutorSettings, WorkSettings

async def main():
    work = WorkSettings(task_width={WIDTH}, left_to_others=timedelta(seconds={LEFT_TO_OTHERS}))
    settings = replace(ExecutorSettings.from_environment(), work=work)
    await start_executor(settings)
    await asyncio.Event().wait()

asyncio.run(main())
"""


@dataclass(kw_only=True)
class SharedBed:
    """Two executors on one catalog."""

    deploys: DeployBed
    helpers: list[RunningExecutor] = field(default_factory=list)
    gateways: list[RunningGateway] = field(default_factory=list)
    processes: list[asyncio.subprocess.Process] = field(default_factory=list)

    async def start_helper(self) -> RunningExecutor:
        """Start a second executor, whose hooks find a gateway of its own."""
        settings = self.deploys.executor_settings
        address = settings.listen.replace("executor.sock", f"helper{len(self.helpers)}.sock")
        gateway = GatewaySettings(listen="127.0.0.1:0", catalog=settings.catalog, executor=Endpoint(address=address))
        self.gateways.append(await start_gateway(gateway))
        state = settings.state_dir.with_name("helper")
        own = replace(settings, listen=address, state_dir=state, hook_api=self.gateways[-1].address)
        self.helpers.append(await start_executor(own))
        return self.helpers[-1]

    async def start_helper_process(self) -> asyncio.subprocess.Process:
        """Start an executor as its own process, with hooks that find the owner's gateway; it splits work as the owner does."""
        settings = self.deploys.executor_settings
        environment = {
            **os.environ,
            "MAAND_CATALOG_ADDRESS": settings.catalog.address,
            "MAAND_EXECUTOR_LISTEN": "127.0.0.1:0",
            "MAAND_SECRETS_DIR": str(settings.secrets_dir),
            "MAAND_STATE_DIR": f"{settings.state_dir}-process-{len(self.processes)}",
            "MAAND_HOOK_API": settings.hook_api,
        }
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", NARROW_EXECUTOR, env=environment, stdout=asyncio.subprocess.DEVNULL
        )
        self.processes.append(process)
        return process

    async def tasks(self, *kinds: TaskKind) -> list[Task]:
        """Return the tasks there were, of these kinds."""
        return [task for task in await read_tasks(self.deploys) if task.kind in (kinds or tuple(TaskKind))]

    async def until(self, what: Callable[[list[Task]], bool], *kinds: TaskKind) -> list[Task]:
        """Wait until the tasks of these kinds are like that."""
        async with asyncio.timeout(60):
            while not what(found := await self.tasks(*kinds)):  # noqa: ASYNC110 - a database tells the test nothing
                await asyncio.sleep(0.05)
        return found

    async def stop(self) -> None:
        """End every helper."""
        for process in self.processes:
            if process.returncode is None:
                process.kill()
            await process.wait()
        for helper in self.helpers:
            await helper.stop()
        for gateway in self.gateways:
            await gateway.stop()


async def read_tasks(bed: DeployBed) -> list[Task]:
    """Return every task there was, oldest first."""

    def read(tx: Transaction) -> list[Task]:
        return [to_task(row) for row in tx.connection.execute(select(*TASK_COLUMNS).order_by(tasks.c.task_id))]

    return await bed.catalog.database.read(read)


@asynccontextmanager
async def shared_bed(
    directory: Path,
    ssh: SshTestBed,
    *,
    workers: int = 6,
    lease: float = 15,
    executor: bool = True,
    gateway: bool = False,
    left_to_others: float = LEFT_TO_OTHERS,
) -> AsyncIterator[SharedBed]:
    """Serve a bucket whose owner of runs splits its work into tasks of `WIDTH` workers."""
    async with deploy_bed(directory, ssh, workers=workers, lease=timedelta(seconds=lease), executor=False) as deploys:
        await deploys.configure(max_ssh_sessions=2 * WIDTH, hook_env=["CLOUD_REGION"])
        work = WorkSettings(task_width=WIDTH, left_to_others=timedelta(seconds=left_to_others))
        deploys.executor_settings = replace(deploys.executor_settings, work=work)
        bed = SharedBed(deploys=deploys)
        try:
            if gateway:
                await deploys.start_gateway()
            elif executor:
                await deploys.start_executor()
            yield bed
        finally:
            await bed.stop()
