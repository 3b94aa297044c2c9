"""Calls that may last: they end when the client goes away or the gateway stops, and the service is told so at once."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from maand_runtime_gateway.errors import ClientGone, GatewayStopping

ResultT = TypeVar("ResultT")

Receive = Callable[[], Awaitable[Any]]


async def while_wanted(work: Awaitable[ResultT], *, receive: Receive, stopping: asyncio.Event) -> ResultT:
    """Return the result of `work`; cancel it and raise when nobody wants it any more.

    The three tasks live only inside this call: whichever is left is cancelled and awaited before it returns. A `TaskGroup`
    would wrap the one error that the caller is to see.
    """
    answered = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(disconnect(receive))
    stopped = asyncio.ensure_future(stopping.wait())
    tasks = (answered, gone, stopped)
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if answered.done():
            return answered.result()
        raise ClientGone if gone.done() else GatewayStopping
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def disconnect(receive: Receive) -> None:
    """Return when the client has closed its connection."""
    while (await receive())["type"] != "http.disconnect":
        pass
