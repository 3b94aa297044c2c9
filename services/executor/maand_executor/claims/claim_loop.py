"""Claiming one thing after the other while there is room, and having each carried out beside the others.

    room ──▶ claim (a long poll) ──▶ carried out, side by side ──▶ room again

An accident while claiming begins the loop again; what is being carried out meanwhile goes on. An accident of one claim ends that
claim only. Runs (`claimed_runs`) and tasks of other executors' runs (`claimed_tasks`) are claimed alike.
"""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from functools import partial
from typing import Generic, NoReturn, TypeVar

import structlog

from maand_wire.errors import RemoteError
from maand_wire.supervision import PAUSES, RestartPauses, keep_running

log = structlog.get_logger("maand.executor")

Claim = TypeVar("Claim")


class ClaimLoop(Generic[Claim]):
    """RunLoop and carries out until it is cancelled. `claim` answers None when there was nothing, after some time."""

    def __init__(
        self,
        name: str,
        *,
        at_once: int,
        claim: Callable[[], Awaitable[Claim | None]],
        carry_out: Callable[[Claim], Awaitable[None]],
        pauses: RestartPauses = PAUSES,
    ) -> None:
        self._pauses = pauses
        self._name = name
        self._room = asyncio.Semaphore(at_once)
        self._claim = claim
        self._carry_out = carry_out

    async def run(self) -> None:
        """Claim and carry out until cancelled; then everything that was claimed is ended before this returns."""
        async with asyncio.TaskGroup() as tasks:
            await keep_running(self._name, partial(self._claim_on, tasks), pauses=self._pauses)

    async def _claim_on(self, tasks: asyncio.TaskGroup) -> NoReturn:
        while True:
            await self._room.acquire()
            try:
                claim = await self._claim()
            except BaseException:
                self._room.release()
                raise
            if claim is None:
                self._room.release()
            else:
                tasks.create_task(self._see_through(claim))

    async def _see_through(self, claim: Claim) -> None:
        try:
            await self._carry_out(claim)
        except Exception:  # nothing may reach the group, which would end everybody else
            log.exception("claim abandoned", loop=self._name)
        finally:
            self._room.release()


async def ask_or_pause(what: str, ask: Callable[[], Awaitable[Claim | None]], *, pause: timedelta) -> Claim | None:
    """Ask for something to claim; nothing, after a pause, when the catalog cannot be asked."""
    try:
        return await ask()
    except RemoteError as error:
        log.warning(f"cannot ask for {what}", reason=error.message)
    except Exception:  # an answer that makes no sense must not end the loop
        log.exception("a claim could not be understood")
    await asyncio.sleep(pause.total_seconds())
    return None
