"""A clock that is set forward or back ends no lease: of no run, task, hook or waiting call. What is dead still lapses."""

from datetime import timedelta

import pytest

from maand_catalog.database.clock import LONGEST_LEASE
from maand_catalog.rules.semaphores import ROOM_LEASE
from maand_catalog.serving.semaphore_waiters import SemaphoreWaiters
from maand_catalog.store.runs.ends import interrupt_lapsed_runs
from maand_catalog.store.runs.leases import LEASE, shorten_leases
from maand_catalog.store.runs.retention import is_care_due
from maand_catalog.store.runs.tasks import settle_lapsed_tasks
from maand_catalog.store.semaphores import slots
from maand_contracts.catalog.v1 import run_pb2
from tests.contracts.catalog import task_verbs
from tests.contracts.catalog.conftest import ShiftedClock
from tests.contracts.catalog.run_builders import a_bucket, a_create
from tests.contracts.catalog.run_verbs import claim, create, finish, get, must_claim, record, renew
from tests.contracts.catalog.semaphore_builders import Hooks
from tests.contracts.catalog.semaphore_verbs import LONG, in_line, status
from tests.contracts.catalog.serving import ServedCatalog

FORTH_AND_BACK = [timedelta(hours=1), timedelta(days=1), timedelta(hours=-1), timedelta(days=-1)]
MORE = LONGEST_LEASE + timedelta(seconds=1)


@pytest.fixture
async def owned(catalog: ServedCatalog) -> run_pb2.Run:
    await create(catalog, a_create(await a_bucket(catalog.database)))
    return await must_claim(catalog, "e1")


async def keep_up(catalog: ServedCatalog) -> list[str]:
    """Do what the catalog does every second; return the runs that it took from their executors."""
    await catalog.database.read(is_care_due)
    await catalog.database.write(shorten_leases)
    await catalog.database.write(settle_lapsed_tasks)
    return await catalog.database.write(interrupt_lapsed_runs)


def test_no_lease_is_longer_than_what_a_jump_is_forgiven_for() -> None:
    assert max(LEASE, ROOM_LEASE) <= LONGEST_LEASE


@pytest.mark.parametrize("jump", FORTH_AND_BACK)
async def test_an_owner_that_is_well_keeps_its_run_across_a_jump_and_ends_it(
    catalog: ServedCatalog, owned: run_pb2.Run, clock: ShiftedClock, jump: timedelta
) -> None:
    clock.jump(jump)
    assert await keep_up(catalog) == []
    assert await claim(catalog, "e2") is None
    assert (await get(catalog, owned)).state == run_pb2.RUN_STATE_RUNNING
    for _ in range(8):
        await renew(catalog, owned)
        clock.advance(timedelta(seconds=3))
        assert await keep_up(catalog) == []
    await record(catalog, owned, "api/10.0.0.1/promoted")
    await finish(catalog, owned)
    ended = await get(catalog, owned)
    assert ended.state == run_pb2.RUN_STATE_SUCCEEDED
    assert ended.finished_at.ToDatetime() >= ended.started_at.ToDatetime() >= ended.created_at.ToDatetime()


@pytest.mark.parametrize("jump", FORTH_AND_BACK)
async def test_a_run_whose_owner_died_is_taken_over_a_lease_or_two_after_a_jump(
    catalog: ServedCatalog, owned: run_pb2.Run, clock: ShiftedClock, jump: timedelta
) -> None:
    clock.jump(jump)
    await keep_up(catalog)
    for _ in range(3):
        clock.advance(MORE)
        await keep_up(catalog)
    assert (await must_claim(catalog, "e2")).run_id == owned.run_id


async def test_a_run_that_pauses_before_its_next_takeover_does_not_wait_for_a_clock_that_was_set_back(
    catalog: ServedCatalog, owned: run_pb2.Run, clock: ShiftedClock
) -> None:
    for executor in ("e2", "e3"):
        clock.advance(MORE)
        await keep_up(catalog)
        if executor == "e2":
            assert (await must_claim(catalog, executor)).run_id == owned.run_id
    assert await claim(catalog, "e4") is None, "it pauses"
    clock.jump(timedelta(hours=-1))
    assert (await must_claim(catalog, "e4")).run_id == owned.run_id


@pytest.mark.parametrize("jump", FORTH_AND_BACK)
async def test_a_task_is_kept_across_a_jump_and_taken_from_who_died(
    catalog: ServedCatalog, clock: ShiftedClock, jump: timedelta
) -> None:
    run = await task_verbs.an_owned_run(catalog)
    await task_verbs.split(catalog, run, task_verbs.a_task("one", task_verbs.LOGIN_WORK))
    task = await task_verbs.must_claim_task(catalog)
    clock.jump(jump)
    await keep_up(catalog)
    await renew(catalog, run)
    await task_verbs.renew(catalog, run, task)
    assert await task_verbs.claim(catalog, "another") is None
    for _ in range(20):
        clock.advance(timedelta(seconds=3))
        await renew(catalog, run)
        await keep_up(catalog)
    assert (await task_verbs.must_claim_task(catalog, "another")).fence == task.fence + 1


@pytest.mark.parametrize("jump", FORTH_AND_BACK)
async def test_slots_and_places_in_line_are_kept_across_a_jump(
    hooks: Hooks, room: SemaphoreWaiters, clock: ShiftedClock, jump: timedelta
) -> None:
    one, two = await hooks.begin(2)
    await room.acquire(hooks.ask(one), LONG)
    [waiter] = await in_line(hooks, room, [two])
    clock.jump(jump)
    await hooks.database.write(lambda tx: slots.renew_room(tx, "another"))
    assert [claim.invocation_id for claim in (await status(hooks)).holders] == [one]
    await hooks.end(one)
    await waiter
