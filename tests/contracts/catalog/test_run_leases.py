"""Who runs a run: claims, leases, fences, takeover. Time is moved by hand."""

import asyncio
from datetime import timedelta
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from maand_catalog.database.database import Database, Transaction
from maand_catalog.rules.runs import Run
from maand_catalog.store.runs import leases
from maand_catalog.store.runs.ends import interrupt_lapsed_runs
from maand_contracts.catalog.v1 import run_pb2 as pb
from maand_wire.errors import RemoteError
from tests.contracts.catalog.conftest import OpenReplica, ShiftedClock
from tests.contracts.catalog.run_builders import COMMAND, DEPLOY, HEALTH, a_bucket, a_create, an_output
from tests.contracts.catalog.run_verbs import (
    append,
    claim,
    claim_within,
    create,
    finish,
    get,
    must_claim,
    record,
    renew,
    steps,
    watch,
)
from tests.contracts.catalog.serving import ServedCatalog, serve

A_MINUTE = timedelta(minutes=1)


@pytest.fixture
async def bucket(catalog: ServedCatalog) -> str:
    return await a_bucket(catalog.database)


async def test_a_claim_names_its_executor_its_fence_and_its_lease(catalog: ServedCatalog, bucket: str) -> None:
    await create(catalog, a_create(bucket))
    response = await catalog.local.runs.ClaimRun(pb.ClaimRunRequest(executor_id="e1"))
    assert (response.run.state, response.run.executor_id, response.run.fence) == (pb.RUN_STATE_RUNNING, "e1", 1)
    assert response.lease_seconds == 15
    assert response.run.HasField("started_at")


async def test_the_oldest_run_is_claimed_first_and_only_of_the_buckets_asked_for(catalog: ServedCatalog, bucket: str) -> None:
    other = await a_bucket(catalog.database)
    first = await create(catalog, a_create(other, COMMAND))
    second = await create(catalog, a_create(bucket, COMMAND))
    only = await catalog.local.runs.ClaimRun(pb.ClaimRunRequest(executor_id="e1", bucket_ids=[bucket]))
    assert only.run.run_id == second.run_id
    assert (await must_claim(catalog)).run_id == first.run_id


async def test_a_waiting_claim_is_answered_as_soon_as_a_run_is_created(catalog: ServedCatalog, bucket: str) -> None:
    waiting = asyncio.create_task(claim_within(catalog, seconds=30))
    run = await create(catalog, a_create(bucket))
    assert (await asyncio.wait_for(waiting, 5)).run.run_id == run.run_id


async def test_a_waiting_claim_ends_empty_when_there_was_nothing(catalog: ServedCatalog) -> None:
    assert not (await claim_within(catalog, seconds=1)).HasField("run")


async def test_the_end_of_an_exclusive_run_lets_the_next_be_claimed_at_once(catalog: ServedCatalog, bucket: str) -> None:
    await create(catalog, a_create(bucket))
    running = await must_claim(catalog)
    following = await create(catalog, a_create(bucket, lock_timeout_seconds=600))
    waiting = asyncio.create_task(claim_within(catalog, seconds=30))
    await finish(catalog, running)
    assert (await asyncio.wait_for(waiting, 5)).run.run_id == following.run_id


async def test_a_renewed_lease_lasts_and_tells_of_a_wish_to_cancel(
    catalog: ServedCatalog, bucket: str, clock: ShiftedClock
) -> None:
    await create(catalog, a_create(bucket))
    run = await must_claim(catalog)
    for _ in range(4):
        clock.advance(timedelta(seconds=10))
        assert (await renew(catalog, run)).cancel == pb.CANCEL_LEVEL_UNSPECIFIED
    await catalog.local.runs.CancelRun(pb.CancelRunRequest(bucket_id=bucket, run_id=run.run_id))
    assert (await renew(catalog, run)).cancel == pb.CANCEL_LEVEL_AFTER_BATCH
    assert (await get(catalog, run)).state == pb.RUN_STATE_RUNNING


async def test_a_lapsed_run_is_taken_over_under_a_larger_fence_with_its_steps(
    catalog: ServedCatalog, bucket: str, clock: ShiftedClock
) -> None:
    await create(catalog, a_create(bucket))
    first = await must_claim(catalog, "e1")
    await record(catalog, first, "api/10.0.0.1/copy", "api/10.0.0.1/start")
    clock.advance(A_MINUTE)
    assert (await get(catalog, first)).state == pb.RUN_STATE_INTERRUPTED
    second = await must_claim(catalog, "e2")
    assert (second.run_id, second.fence, second.executor_id) == (first.run_id, 2, "e2")
    assert second.started_at == first.started_at
    assert list(await steps(catalog, second)) == ["api/10.0.0.1/copy", "api/10.0.0.1/start"]


async def test_a_claim_that_has_waited_leaves_what_was_taken_from_its_executor_to_others(
    catalog: ServedCatalog, bucket: str, clock: ShiftedClock
) -> None:
    await create(catalog, a_create(bucket))
    lost = await must_claim(catalog, "e1")
    clock.advance(A_MINUTE)

    async def claim_as(executor_id: str) -> Run | None:
        ask = partial(leases.claim_run, executor_id=executor_id, bucket_ids=[], lease=leases.LEASE, has_waited=True)
        return await catalog.database.write(ask)

    assert await claim_as("e1") is None, "it may be frozen: nobody knows since when it waits"
    taken_over = await claim_as("e2")
    assert taken_over is not None
    assert taken_over.run_id == lost.run_id
    await catalog.local.runs.ReleaseLeases(pb.ReleaseLeasesRequest(executor_id="e2"))
    assert (await must_claim(catalog, "e2")).run_id == lost.run_id, "a new call shows that it lives"


async def test_the_old_owner_can_write_nothing_after_a_takeover(catalog: ServedCatalog, bucket: str, clock: ShiftedClock) -> None:
    await create(catalog, a_create(bucket))
    old = await must_claim(catalog, "e1")
    clock.advance(A_MINUTE)
    new = await must_claim(catalog, "e2")
    for act in (
        renew(catalog, old),
        append(catalog, old, an_output("late")),
        record(catalog, old, "api/10.0.0.1/copy"),
        finish(catalog, old),
    ):
        with pytest.raises(RemoteError) as caught:
            await act
        assert caught.value.code == "stale_fence"
        assert caught.value.facts == {"fence": "2", "state": "running"}
    assert list(await steps(catalog, new)) == []
    assert (await get(catalog, new)).state == pb.RUN_STATE_RUNNING


async def test_a_lapsed_lease_is_lost_even_before_anybody_takes_over(
    catalog: ServedCatalog, bucket: str, clock: ShiftedClock
) -> None:
    await create(catalog, a_create(bucket))
    run = await must_claim(catalog)
    clock.advance(A_MINUTE)
    with pytest.raises(RemoteError) as caught:
        await renew(catalog, run)
    assert caught.value.code == "stale_fence"


async def test_a_shell_command_is_not_taken_over_until_a_person_resumes_it(
    catalog: ServedCatalog, bucket: str, clock: ShiftedClock
) -> None:
    await create(catalog, a_create(bucket, COMMAND))
    run = await must_claim(catalog)
    clock.advance(A_MINUTE)
    assert await claim(catalog, "e2") is None
    told = [event async for event in watch(catalog, run)]
    assert [event.WhichOneof("event") for event in told] == ["notice"], "the stream ends: nothing more will happen by itself"
    assert f"maand runs resume {run.run_id}" in told[0].notice.text
    resumed = await catalog.local.runs.ResumeRun(pb.ResumeRunRequest(bucket_id=bucket, run_id=run.run_id))
    assert resumed.run.state == pb.RUN_STATE_PENDING
    again = await must_claim(catalog, "e2")
    assert (again.run_id, again.fence) == (run.run_id, 2)


async def test_an_interrupted_exclusive_run_goes_before_those_that_came_later(
    catalog: ServedCatalog, bucket: str, clock: ShiftedClock
) -> None:
    await create(catalog, a_create(bucket))
    first = await must_claim(catalog)
    await create(catalog, a_create(bucket, lock_timeout_seconds=600))
    clock.advance(A_MINUTE)
    assert (await must_claim(catalog, "e2")).run_id == first.run_id
    assert await claim(catalog, "e3") is None


async def test_giving_up_leases_interrupts_the_runs_of_that_executor_only(catalog: ServedCatalog, bucket: str) -> None:
    for _ in range(3):
        await create(catalog, a_create(bucket, HEALTH))
    mine, yours, also_mine = [await must_claim(catalog, executor_id) for executor_id in ("e1", "e2", "e1")]
    released = await catalog.local.runs.ReleaseLeases(pb.ReleaseLeasesRequest(executor_id="e1"))
    assert set(released.run_ids) == {mine.run_id, also_mine.run_id}
    assert (await get(catalog, yours)).state == pb.RUN_STATE_RUNNING
    assert {(await must_claim(catalog, "e3")).run_id for _ in range(2)} == {mine.run_id, also_mine.run_id}


async def test_a_new_executor_of_a_local_bucket_takes_all_leases_from_its_dead_predecessors(
    catalog: ServedCatalog, bucket: str
) -> None:
    await create(catalog, a_create(bucket))
    run = await must_claim(catalog, "dead")
    released = await catalog.local.runs.ReleaseLeases(pb.ReleaseLeasesRequest(except_executor_id="alive"))
    assert list(released.run_ids) == [run.run_id]
    assert (await must_claim(catalog, "alive")).fence == 2


async def test_a_run_that_was_asked_to_stop_and_lost_its_executor_is_cancelled(
    catalog: ServedCatalog, bucket: str, clock: ShiftedClock
) -> None:
    await create(catalog, a_create(bucket))
    run = await must_claim(catalog)
    await catalog.local.runs.CancelRun(pb.CancelRunRequest(bucket_id=bucket, run_id=run.run_id))
    clock.advance(A_MINUTE)
    kinds = [event.WhichOneof("event") async for event in watch(catalog, run)]
    assert kinds == ["notice", "run_finished"]
    assert (await get(catalog, run)).state == pb.RUN_STATE_CANCELLED


async def test_an_interrupted_run_is_cancelled_at_once(catalog: ServedCatalog, bucket: str, clock: ShiftedClock) -> None:
    await create(catalog, a_create(bucket, COMMAND))
    run = await must_claim(catalog)
    clock.advance(A_MINUTE)
    await catalog.local.runs.CancelRun(pb.CancelRunRequest(bucket_id=bucket, run_id=run.run_id))
    ended = await get(catalog, run)
    assert (ended.state, ended.message) == (pb.RUN_STATE_CANCELLED, "cancelled by local after it was interrupted")


async def test_an_executor_may_hand_a_run_back(catalog: ServedCatalog, bucket: str) -> None:
    await create(catalog, a_create(bucket))
    run = await must_claim(catalog, "e1")
    await finish(catalog, run, pb.RUN_STATE_INTERRUPTED)
    assert (await get(catalog, run)).state == pb.RUN_STATE_INTERRUPTED
    assert (await must_claim(catalog, "e2")).run_id == run.run_id


async def test_claims_raced_by_executors_on_two_replicas_give_every_run_to_one(open_replica: OpenReplica, tmp_path: Path) -> None:
    one, two = await open_replica(), await open_replica()
    async with serve(one, tmp_path) as here, serve(two, tmp_path) as there:
        buckets = [await a_bucket(one) for _ in range(4)]
        asked = [await create(here, a_create(bucket, HEALTH)) for bucket in buckets for _ in range(5)]
        claims = await asyncio.gather(*(claim(catalog, f"e{n}") for n in range(20) for catalog in (here, there)))
    claimed = [run.run_id for run in claims if run is not None]
    assert sorted(claimed) == sorted(run.run_id for run in asked)


async def test_exclusive_runs_raced_on_two_replicas_never_run_side_by_side(open_replica: OpenReplica, tmp_path: Path) -> None:
    one, two = await open_replica(), await open_replica()
    async with serve(one, tmp_path) as here, serve(two, tmp_path) as there:
        bucket = await a_bucket(one)
        await asyncio.gather(*(create(c, a_create(bucket, DEPLOY, lock_timeout_seconds=600)) for c in (here, there) * 5))
        order = await asyncio.gather(*(execute_until_none(catalog, f"e{n}") for n, catalog in enumerate((here, there) * 2)))
    spans = sorted(span for spans in order for span in spans)
    assert len(spans) == 10
    assert [seq for _, _, seq in spans] == list(range(1, 11)), "in the order of their numbers"
    assert all(earlier[1] <= later[0] for earlier, later in pairwise(spans)), "one after the other"


async def execute_until_none(catalog: ServedCatalog, executor_id: str) -> list[tuple[float, float, int]]:
    """Run what is to be had until there is nothing for a second; return when each began and ended."""
    loop, spans = asyncio.get_running_loop(), []
    while (response := await claim_within(catalog, seconds=1, executor_id=executor_id)).HasField("run"):
        began = loop.time()
        await append(catalog, response.run, an_output("working"))
        ended = loop.time()
        await finish(catalog, response.run)
        spans.append((began, ended, response.run.seq))
    return spans


async def test_a_takeover_crosses_replicas_in_real_time(open_replica: OpenReplica, tmp_path: Path) -> None:
    one, two = await open_replica(), await open_replica()
    lease = timedelta(seconds=1)
    async with serve(one, tmp_path, lease=lease) as here, serve(two, tmp_path, lease=lease) as there:
        await create(here, a_create(await a_bucket(one)))
        first = await must_claim(here, "e1")
        response = await claim_within(there, seconds=10, executor_id="e2")
    assert (response.run.run_id, response.run.fence) == (first.run_id, 2)


async def test_runs_survive_a_restart_of_the_catalog(database_url: str, tmp_path: Path) -> None:
    first_life = await Database.open(database_url)
    async with serve(first_life, tmp_path) as catalog:
        await create(catalog, a_create(await a_bucket(first_life)))
        run = await must_claim(catalog)
        await append(catalog, run, an_output("before"))
    second_life = await Database.open(database_url)
    async with serve(second_life, tmp_path) as catalog:
        await append(catalog, run, an_output("after"))
        await finish(catalog, run)
        told = [event async for event in watch(catalog, run)]
    assert [event.WhichOneof("event") for event in told] == ["output", "output", "run_finished"]


async def test_upkeep_that_meets_what_nobody_foresaw_is_seen_and_other_upkeep_goes_on(
    database: Database, clock: ShiftedClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted, interrupted = asyncio.Event(), asyncio.Event()

    def unlucky(_: Transaction) -> None:
        counted.set()
        raise RuntimeError("nobody foresaw this")

    def interrupt(tx: Transaction) -> list[str]:
        interrupted.set()
        return interrupt_lapsed_runs(tx)

    monkeypatch.setattr("maand_catalog.serving.upkeep.count_unfinished_runs", unlucky)
    monkeypatch.setattr("maand_catalog.serving.upkeep.interrupt_lapsed_runs", interrupt)
    with capture_logs() as logs:
        async with serve(database, tmp_path) as catalog, asyncio.timeout(20):
            await counted.wait()
            await create(catalog, a_create(await a_bucket(database)))
            await must_claim(catalog, "e1")
            clock.advance(A_MINUTE)
            await interrupted.wait()
    seen = [line for line in logs if line.get("loop") == "upkeep: count of runs"]
    assert isinstance(seen[0]["exc_info"], RuntimeError)
