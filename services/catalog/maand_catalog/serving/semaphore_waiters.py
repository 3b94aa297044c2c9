"""Where calls wait for a semaphore: one room per catalog process, with one keeper for everybody in it.

    acquire ──take_place──▶ granted at once
               └─▶ in line ──(woken, or every second) pick_up──▶ held ──▶ the call returns
                      └─ call cancelled, timed out, broken ──leave──▶ out of line, at once

The keeper renews the room's lease, picks up grants, and lets waiters of dead runs and dead catalogs go. It runs while somebody
waits. A call that it finds in no line asks again: the room's lease lapsed while this process was frozen, or a newer call of its
invocation has the place.
"""

import asyncio
import time
import uuid
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial

import structlog
from sqlalchemy.exc import SQLAlchemyError

from maand_catalog.database.database import Database
from maand_catalog.errors import CatalogError, Unavailable
from maand_catalog.rules.meter import Meter, WaitOutcome
from maand_catalog.rules.semaphores import ROOM_LEASE, InvocationEnded, Scope, SemaphoreCapacity, SemaphoreTimeout
from maand_catalog.store.semaphores.locked_semaphore import room_topic
from maand_catalog.store.semaphores.slots import (
    Granted,
    PlaceInLine,
    SlotRequest,
    close_room,
    leave_line,
    pick_up_slots,
    renew_room,
    survey_room,
    take_place,
    tend_semaphores,
)
from maand_wire.supervision import keep_running

log = structlog.get_logger("maand.catalog.semaphore_waiters")

LOOK_AFTER = timedelta(seconds=1)
"""How often the keeper looks without being woken: a lost notification costs a second, a lapsed run too."""


@dataclass(kw_only=True)
class WaitingCall:
    """One call that waits."""

    ask: SlotRequest
    granted: asyncio.Future[Granted] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    is_in_line: bool = False

    @property
    def place(self) -> PlaceInLine:
        """Where it waits."""
        return PlaceInLine(scope=self.ask.scope, invocation_id=self.ask.invocation_id, call_id=self.ask.call_id)

    def end(self) -> None:
        """Note that nobody waits here any more; what it would still have been told has been heard."""
        if self.granted.done() and not self.granted.cancelled():
            self.granted.exception()
        self.ended.set()


class SemaphoreWaiters:
    """All calls of this process that wait for a semaphore."""

    def __init__(self, database: Database, meter: Meter | None = None) -> None:
        self._meter = meter or Meter()
        self.room_id = str(uuid.uuid4())
        self._database = database
        self._calls: dict[str, WaitingCall] = {}
        self._leaving: set[asyncio.Task[None]] = set()
        self._keeper: asyncio.Task[None] | None = None
        self._lease_renewed_at = float("-inf")

    @property
    def waiting(self) -> int:
        """How many calls wait here now."""
        return len(self._calls)

    async def acquire(self, ask: SlotRequest, timeout: timedelta) -> Granted:  # noqa: ASYNC109 - the contract's timeout, with an error of its own
        """Return once the slot is granted. `SemaphoreTimeout`, `SemaphoreCapacity`; a cancelled call leaves the line.

        `ask` carries who asks and for what; call and room are filled in here.
        """
        call_id = str(uuid.uuid4())
        ask = replace(ask, call_id=call_id, room_id=self.room_id, request_id=ask.request_id or call_id)
        call = self._calls[call_id] = WaitingCall(ask=ask)
        joining = asyncio.create_task(self._join(call))
        began = time.monotonic()
        outcome: WaitOutcome = "granted"
        try:
            async with asyncio.timeout(timeout.total_seconds()):
                return await asyncio.shield(joining) or await call.granted
        except BaseException as error:
            outcome = wait_outcome(error)
            await asyncio.shield(self._let_go(call, joining))
            if isinstance(error, TimeoutError):
                raise timeout_error(ask.scope, timeout) from error
            raise
        finally:
            self._calls.pop(call_id, None)
            call.end()
            self._meter.semaphore_asked(outcome, time.monotonic() - began)

    async def close(self) -> None:
        """Let everybody go: the process stops. Callers find another replica, where a repeated request keeps its place.

        `Unavailable` when the database is closed already; then the room's lease ends by itself.
        """
        calls = list(self._calls.values())
        self._fail_all(Unavailable("the catalog stops", help="try again with the same request_id"))
        await asyncio.gather(*(call.ended.wait() for call in calls))
        await asyncio.gather(*self._leaving, return_exceptions=True)
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        if self._lease_renewed_at > float("-inf"):
            self._database.bus.check_open()
            await self._database.write(lambda tx: close_room(tx, self.room_id))

    async def _join(self, call: WaitingCall) -> Granted | None:
        """Take a place in line; the keeper watches over it from then on."""
        await self._renew_lease()
        granted = await self._database.write(lambda tx: take_place(tx, call.ask))
        call.is_in_line = granted is None
        if self._keeper is None and self._calls:
            self._keeper = asyncio.create_task(self._keep(), name="catalog-semaphore-waiters")
        return granted

    def _let_go(self, call: WaitingCall, joining: asyncio.Task[Granted | None]) -> asyncio.Task[None]:
        """Begin to take a call out of the line; it happens even when the caller is cancelled again meanwhile."""
        self._calls.pop(call.ask.call_id, None)

        leaving = asyncio.create_task(self._leave(call, joining))
        self._leaving.add(leaving)
        leaving.add_done_callback(self._leaving.discard)
        return leaving

    async def _leave(self, call: WaitingCall, joining: asyncio.Task[Granted | None]) -> None:
        """Leave the line; when the database is away the claim stays until the keeper, or the room's lease, removes it."""
        await asyncio.gather(joining, return_exceptions=True)
        try:
            self._database.bus.check_open()
            await self._database.write(lambda tx: leave_line(tx, call.place))
        except (CatalogError, SQLAlchemyError) as error:
            log.warning("could not leave the line", semaphore=call.ask.scope.name, reason=str(error))

    async def _renew_lease(self) -> None:
        """Renew the room's lease when a third of it is over, before anybody relies on it."""
        now = time.monotonic()
        if now - self._lease_renewed_at > ROOM_LEASE.total_seconds() / 3:
            await self._database.write(lambda tx: renew_room(tx, self.room_id))
            self._lease_renewed_at = now

    # -- the keeper -----------------------------------------------------------------------------------------------------------

    async def _keep(self) -> None:
        try:
            await keep_running("semaphore waiters", self._look_while_anybody_waits)
        finally:
            self._keeper = None

    async def _look_while_anybody_waits(self) -> None:
        looked_at = time.monotonic()
        try:
            with self._database.bus.subscribe(room_topic(self.room_id)) as woken:
                while self._calls:
                    await woken.wait(LOOK_AFTER)
                    is_due = time.monotonic() - looked_at >= LOOK_AFTER.total_seconds()
                    looked_at = time.monotonic() if is_due else looked_at
                    await self._look(thoroughly=is_due)
        except Unavailable as stopping:
            self._fail_all(stopping)

    def _fail_all(self, error: Unavailable) -> None:
        for call in self._calls.values():
            if not call.granted.done():
                call.granted.set_exception(error)

    async def _look(self, *, thoroughly: bool) -> None:
        """Do the keeper's work once. Whatever fails is tried again at the next look: everybody in the room relies on it."""
        try:
            await self._pick_up()
            if thoroughly:
                await self._renew_lease()
                await self._tend()
        except Unavailable as error:
            log.warning("could not look after the semaphores", reason=str(error))
        except Exception:
            log.exception("looking after the semaphores failed")

    async def _pick_up(self) -> None:
        """Tell calls that their slot was granted. A call that went away meanwhile gives it back by itself."""
        for granted in await self._database.write(lambda tx: pick_up_slots(tx, self.room_id)):
            call = self._calls.get(granted.call_id)
            if call is not None and not call.granted.done():
                call.granted.set_result(granted)

    async def _tend(self) -> None:
        """Let go of who is gone and of calls that could not leave, and ask again for calls that are in no line any more."""
        waiting = [call for call in self._calls.values() if call.is_in_line]
        found = await self._database.read(lambda tx: survey_room(tx, self.room_id))
        if found.untended:
            await self._database.write(lambda tx: tend_semaphores(tx, found.untended))
        for place in found.in_line:
            if place.call_id not in self._calls:
                await self._database.write(partial(leave_line, place=place))
        in_line = {place.call_id for place in found.in_line}
        for call in waiting:
            if call.ask.call_id not in in_line and not call.granted.done():
                await self._ask_again(call)

    async def _ask_again(self, call: WaitingCall) -> None:
        try:
            granted = await self._database.write(lambda tx: take_place(tx, call.ask, waited=True))
        except (InvocationEnded, SemaphoreCapacity) as error:
            if not call.granted.done():
                call.granted.set_exception(error)
            return
        if granted is not None and not call.granted.done():
            call.granted.set_result(granted)
        if call.ask.call_id not in self._calls:  # it went away meanwhile, and may have left before it asked
            await self._database.write(lambda tx: leave_line(tx, call.place))


def wait_outcome(error: BaseException) -> WaitOutcome:
    """Say why a call did not get its slot: its time was over, whoever asked went away, or it was refused."""
    if isinstance(error, TimeoutError):
        return "timed_out"
    return "gone" if isinstance(error, asyncio.CancelledError) else "refused"


def timeout_error(scope: Scope, waited: timedelta) -> SemaphoreTimeout:
    """Return the error for a call whose time is over."""
    return SemaphoreTimeout(f"semaphore {scope.name} was not granted within {waited.total_seconds():.0f} s")
