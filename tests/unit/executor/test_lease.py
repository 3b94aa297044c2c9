"""A lease is kept, lost in time, and carries the wish to cancel."""

import asyncio
from datetime import timedelta

import grpc
import pytest
from structlog.testing import capture_logs

from maand_contracts.catalog.v1 import run_spec_pb2
from maand_executor.catalog_client import ClaimedRun, RenewedLease
from maand_executor.errors import LeaseLost
from maand_executor.rules.cancel import CancelLevel, CancelSignal
from maand_executor.rules.facts import RunIdentity
from maand_executor.settings import LeaseSettings
from maand_executor.steps.lease import Lease
from maand_wire.errors import RemoteError

AWAY = RemoteError(grpc.StatusCode.UNAVAILABLE, "the catalog is away")
STALE = RemoteError(grpc.StatusCode.FAILED_PRECONDITION, "another executor has it", code="stale_fence")
FAST = LeaseSettings(renew_every=timedelta(milliseconds=5), retry_pause=timedelta(milliseconds=5))
RUN = RunIdentity(bucket_id="bucket", run_id="run", seq=1, fence=1)


class Catalog:
    """Answers renewals from a list; the last answer counts for all that follow."""

    def __init__(self, *answers: RenewedLease | Exception) -> None:
        self.answers = list(answers)
        self._asked = asyncio.Semaphore(0)

    async def renew_lease(self, run: RunIdentity, *, deadline: timedelta) -> RenewedLease:
        self._asked.release()
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def until_asked(self, times: int) -> None:
        """Return when that many renewals were asked for."""
        for _ in range(times):
            await self._asked.acquire()


def renewed(seconds: float = 15.0, cancel: CancelLevel = CancelLevel.NOT_ASKED) -> RenewedLease:
    return RenewedLease(lease=timedelta(seconds=seconds), cancel=cancel)


def claimed(seconds: float, cancel: CancelLevel = CancelLevel.NOT_ASKED) -> ClaimedRun:
    lease = timedelta(seconds=seconds)
    return ClaimedRun(identity=RUN, kind="deploy", spec=run_spec_pb2.RunSpec(), lease=lease, cancel=cancel)


async def test_a_lease_that_is_renewed_is_kept() -> None:
    catalog = Catalog(renewed())
    keeping = asyncio.create_task(Lease(catalog, claimed(0.5), CancelSignal(), FAST).keep())
    await catalog.until_asked(20)
    assert not keeping.done()
    keeping.cancel()


async def test_a_lease_that_cannot_be_renewed_is_lost_before_it_lapses() -> None:
    now = [100.0]
    catalog = Catalog(AWAY)
    lease = Lease(catalog, claimed(15), CancelSignal(), FAST, clock=lambda: now[0])
    keeping = asyncio.create_task(lease.keep())
    await catalog.until_asked(3)
    assert not keeping.done()
    now[0] += 14
    with pytest.raises(LeaseLost, match="could not be renewed in time"):
        await keeping
    assert not lease.holds


async def test_a_renewal_that_fails_once_is_tried_again() -> None:
    catalog = Catalog(AWAY, AWAY, renewed())
    keeping = asyncio.create_task(Lease(catalog, claimed(60), CancelSignal(), FAST).keep())
    await catalog.until_asked(5)
    assert not keeping.done()
    keeping.cancel()


async def test_a_refused_renewal_loses_the_lease_at_once() -> None:
    with pytest.raises(LeaseLost, match="another executor has it"):
        await Lease(Catalog(STALE), claimed(60), CancelSignal(), FAST).keep()


async def test_a_wish_to_cancel_arrives_with_the_renewal() -> None:
    cancel = CancelSignal()
    keeping = asyncio.create_task(Lease(Catalog(renewed(cancel=CancelLevel.NOW)), claimed(15), cancel, FAST).keep())
    async with asyncio.timeout(60):
        await cancel.wait(CancelLevel.NOW)
    keeping.cancel()


async def test_a_wish_to_cancel_may_come_with_the_claim() -> None:
    cancel = CancelSignal()
    Lease(Catalog(renewed()), claimed(15, CancelLevel.AFTER_BATCH), cancel, FAST)
    assert cancel.level is CancelLevel.AFTER_BATCH


def test_a_frozen_executor_that_wakes_begins_nothing_more() -> None:
    now = [100.0]
    lease = Lease(Catalog(renewed()), claimed(15), CancelSignal(), FAST, clock=lambda: now[0])
    lease.check()
    now[0] += 12.5
    with pytest.raises(LeaseLost):
        lease.check()


async def test_a_cancel_level_never_goes_back() -> None:
    cancel = CancelSignal()
    cancel.raise_to(CancelLevel.NOW)
    cancel.raise_to(CancelLevel.AFTER_BATCH)
    assert cancel.level is CancelLevel.NOW
    await cancel.wait(CancelLevel.AFTER_BATCH)


async def test_a_renewal_that_nobody_understands_is_logged_and_the_lease_kept_by_the_next() -> None:
    catalog = Catalog(KeyError("an answer that makes no sense"), renewed(), renewed(), renewed())
    with capture_logs() as logs:
        keeping = asyncio.create_task(Lease(catalog, claimed(15), CancelSignal(), FAST).keep())
        await catalog.until_asked(3)
    assert not keeping.done()
    assert [line["event"] for line in logs] == ["a renewal could not be understood"]
    keeping.cancel()


async def test_a_lease_that_can_only_be_misunderstood_is_lost_in_time() -> None:
    with pytest.raises(LeaseLost, match="not renewed in time"):
        await Lease(Catalog(KeyError("nonsense")), claimed(0.1), CancelSignal(), FAST).keep()
