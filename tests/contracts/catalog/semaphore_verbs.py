"""What tests do with semaphores, in short words."""

import asyncio
from dataclasses import replace
from datetime import timedelta

from maand_catalog.rules.semaphores import Claim, Semaphore
from maand_catalog.serving.semaphore_waiters import SemaphoreWaiters
from maand_catalog.store.semaphores import slots as store
from maand_catalog.store.semaphores.slots import Granted
from tests.contracts.catalog.semaphore_builders import Hooks

LONG = timedelta(seconds=60)

SOON = timedelta(milliseconds=200)


async def status(hooks: Hooks, name: str = "ddl") -> Semaphore:
    return await hooks.database.read(lambda tx: store.get_semaphore(tx, hooks.scope(name)))


async def release(hooks: Hooks, invocation: str) -> None:
    await hooks.database.write(lambda tx: store.release_slot(tx, hooks.scope(), invocation))


async def waiting(hooks: Hooks, count: int) -> None:
    """Return once so many wait in line."""
    async with asyncio.timeout(20):
        while len((await status(hooks)).waiters) != count:  # noqa: ASYNC110 - what is waited for is in the database
            await asyncio.sleep(0.01)


async def in_line(hooks: Hooks, room: SemaphoreWaiters, invocations: list[str], **more: object) -> list[asyncio.Task[Granted]]:
    """Let them ask one after another, and return when all are in line."""
    already = len((await status(hooks)).waiters)
    tasks = []
    for number, invocation in enumerate(invocations, start=1):
        tasks.append(asyncio.create_task(room.acquire(hooks.ask(invocation, **more), LONG)))  # type: ignore[arg-type]
        await waiting(hooks, already + number)
    return tasks


async def take_place(hooks: Hooks, invocation: str) -> Granted | None:
    ask = replace(hooks.ask(invocation), request_id=invocation, call_id=invocation, room_id="room")
    return await hooks.database.write(lambda tx: store.take_place(tx, ask))


async def force(hooks: Hooks, allocation_id: str = "") -> list[Claim]:
    return list(await hooks.database.write(lambda tx: store.force_slot_free(tx, hooks.scope(), allocation_id)))
