"""Keeping the lease of one run, and letting go of it before anybody else may take the run over.

    claimed --renew every 3 s--> kept --no renewal for 0.8 of the lease--> LeaseLost: the run's work is ended, nothing is recorded

The lease lives on the database's clock; this side measures from before each renewal was sent, so it always believes the lease to
be shorter than it is. A wish to cancel arrives with the renewals.
"""

import asyncio
import time
from collections.abc import Callable
from datetime import timedelta
from typing import NoReturn, Protocol

import grpc
import structlog

from maand_executor.catalog_client import RenewedLease
from maand_executor.errors import LeaseLost
from maand_executor.rules.cancel import CancelLevel, CancelSignal
from maand_executor.rules.facts import RunIdentity
from maand_executor.settings import LeaseSettings
from maand_wire.errors import RemoteError

log = structlog.get_logger("maand.executor.lease")


class LeaseCalls(Protocol):
    """What is needed of the catalog."""

    async def renew_lease(self, run: RunIdentity, *, deadline: timedelta) -> RenewedLease:
        """Extend the lease."""


class Claim(Protocol):
    """What a lease begins with: a claimed run, or a claimed task of one."""

    @property
    def identity(self) -> RunIdentity:
        """Whose it is."""

    @property
    def lease(self) -> timedelta:
        """How long it lasts without renewal."""

    @property
    def cancel(self) -> CancelLevel:
        """How urgently it was asked to stop when it was claimed."""


class Lease:
    """The lease of one run or task."""

    def __init__(
        self,
        catalog: LeaseCalls,
        claim: Claim,
        cancel: CancelSignal,
        settings: LeaseSettings,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._catalog = catalog
        self._run = claim.identity
        self._cancel = cancel
        self._settings = settings
        self._clock = clock
        self._good_for = self._share(claim.lease)
        self._good_until = clock() + self._good_for
        cancel.raise_to(claim.cancel)

    @property
    def holds(self) -> bool:
        """Whether it is certain that nobody else owns the run: ask before beginning anything that lasts."""
        return self._clock() < self._good_until

    def check(self) -> None:
        """Raise `LeaseLost` when it is not certain any more."""
        if not self.holds:
            raise LeaseLost(f"run {self._run.run_id}: the lease was not renewed in time")

    async def keep(self) -> NoReturn:
        """Renew until cancelled. Raises `LeaseLost` when the run has, or may soon have, another owner."""
        while True:
            # A quarter where a catalog grants short leases: three more tries fit in what is left of such a one. And never past
            # its end: what could not be renewed by then is found lost at that moment, not `renew_every` later.
            await asyncio.sleep(min(self._settings.renew_every.total_seconds(), self._good_for / 4, self._left()))
            await self.renew()

    async def renew(self) -> None:
        """Renew now, if the catalog answers: a wish to cancel that came before is known then. Raises `LeaseLost`."""
        asked_at = self._clock()
        try:
            renewed = await self._catalog.renew_lease(self._run, deadline=timedelta(seconds=max(self._left(), 0.1)))
        except Exception as error:  # noqa: BLE001 - logged: while the lease may still be kept, nothing ends the keeper
            self._not_renewed(error)
            await asyncio.sleep(min(self._settings.retry_pause.total_seconds(), self._left()))
            return
        self._good_for = self._share(renewed.lease)
        self._good_until = asked_at + self._good_for
        self._cancel.raise_to(renewed.cancel)

    def _not_renewed(self, error: Exception) -> None:
        if isinstance(error, RemoteError):
            self._refused(error)
            return
        log.error("a renewal could not be understood", run=self._run.run_id, exc_info=error)
        self.check()

    def _refused(self, error: RemoteError) -> None:
        log.warning("lease not renewed", run=self._run.run_id, reason=error.message, seconds_left=round(self._left(), 1))
        if error.status is grpc.StatusCode.FAILED_PRECONDITION or error.status is grpc.StatusCode.NOT_FOUND:
            raise LeaseLost(f"run {self._run.run_id} is no longer this executor's: {error.message}") from error
        if self._left() <= 0:
            raise LeaseLost(f"run {self._run.run_id}: the lease could not be renewed in time: {error.message}") from error

    def _left(self) -> float:
        return max(self._good_until - self._clock(), 0.0)

    def _share(self, lease: timedelta) -> float:
        return lease.total_seconds() * self._settings.give_up_at
