"""Doing the same for many things at once, with a bound; it fails with the error itself, not a group of one. Ending tasks."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


async def side_by_side(items: Iterable[Item], work: Callable[[Item], Awaitable[Result]], *, limit: int = 0) -> list[Result]:
    """Return the results in the order of the items; at most `limit` at once (0 = all).

    The first error ends the others and is raised as it is; when several fail at once, the first in the order of the items.
    """
    slots = asyncio.Semaphore(limit) if limit else None

    async def one(item: Item) -> Result:
        if slots is None:
            return await work(item)
        async with slots:
            return await work(item)

    try:
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(one(item)) for item in items]
    except BaseExceptionGroup as group:
        raise first_error(group) from group
    return [task.result() for task in running]


def first_error(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the first plain error of a group."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


async def end_tasks(*tasks: "asyncio.Task[Any]") -> None:
    """Cancel tasks that still run, and wait until they are over."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
