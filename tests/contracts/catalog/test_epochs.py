"""A new epoch: larger than any before, and nothing of the life before goes on by itself."""

import asyncio
import shutil
from datetime import timedelta
from pathlib import Path

import pytest

from maand_catalog.database.database import Database
from maand_catalog.errors import Unauthenticated
from maand_catalog.rules.runs import RunState
from maand_catalog.serving.semaphore_waiters import SemaphoreWaiters
from maand_catalog.store.runs.database_owner import FIRST_EPOCH
from maand_catalog.store.runs.epochs import NewEpoch, begin_epoch, read_epoch
from maand_contracts.catalog.v1 import run_event_pb2 as events
from maand_contracts.catalog.v1 import run_pb2 as pb
from maand_wire.errors import RemoteError, remote_errors
from tests.contracts.catalog.conftest import OpenReplica, ShiftedClock
from tests.contracts.catalog.run_builders import BUILD, COMMAND, HEALTH, a_bucket, a_create, an_output, finished
from tests.contracts.catalog.run_verbs import append, claim, create, finish, get, must_claim, renew, watch
from tests.contracts.catalog.semaphore_builders import Hooks
from tests.contracts.catalog.semaphore_verbs import LONG, in_line, status
from tests.contracts.catalog.serving import ServedCatalog, serve
from tests.contracts.catalog.task_verbs import a_task, an_owned_run, must_claim_task, refuses_everything, split
from tests.contracts.catalog.task_verbs import claim as claim_task

A_MINUTE = timedelta(minutes=1)


@pytest.fixture
async def bucket(catalog: ServedCatalog) -> str:
    return await a_bucket(catalog.database)


async def begin(database: Database, *, above: int = 0) -> NewEpoch:
    return await database.write(lambda tx: begin_epoch(tx, above=above))


async def test_a_database_begins_with_epoch_1_and_every_new_epoch_is_larger(database: Database, clock: ShiftedClock) -> None:
    assert await database.read(read_epoch) == FIRST_EPOCH == 1
    seen = [FIRST_EPOCH]
    for passed in (timedelta(), timedelta(), timedelta(days=3), timedelta(days=-400), timedelta(seconds=1)):
        clock.advance(passed)
        seen.append((await begin(database)).epoch)
        assert await database.read(read_epoch) == seen[-1]
    assert seen == sorted(set(seen))


async def test_a_new_epoch_is_above_what_a_worker_has_seen(database: Database) -> None:
    far = 50_000_000_000
    assert (await begin(database, above=far)).epoch == far + 1
    assert (await begin(database, above=7)).epoch == far + 2


async def test_two_lives_of_one_backup_get_two_epochs(sqlite_url: str, tmp_path: Path, clock: ShiftedClock) -> None:
    lives = []
    for life in ("one", "two"):
        shutil.copyfile(sqlite_url.removeprefix("sqlite:///"), tmp_path / life)
        database = await Database.open(f"sqlite:///{tmp_path / life}", clock=clock)
        lives.append((await begin(database)).epoch)
        await database.close()
        clock.advance(timedelta(seconds=1))
    assert lives[0] < lives[1], "the second life knows nothing of the first"


async def test_a_new_epoch_ends_runs_in_every_open_state_and_leaves_ended_ones(
    catalog: ServedCatalog, bucket: str, clock: ShiftedClock
) -> None:
    await create(catalog, a_create(bucket, HEALTH))
    done = await must_claim(catalog)
    await finish(catalog, done)
    await create(catalog, a_create(bucket, COMMAND))
    interrupted = await must_claim(catalog)
    await create(catalog, a_create(bucket, HEALTH))
    lapsed = await must_claim(catalog)
    clock.advance(A_MINUTE)
    await create(catalog, a_create(bucket))
    holder = await must_claim(catalog, "e2")
    if holder.run_id == lapsed.run_id:  # taken over; the deploy comes next
        holder, lapsed = await must_claim(catalog, "e2"), holder
    child = await create(catalog, a_create(bucket, BUILD, parent_run_id=holder.run_id))
    waiting = await create(catalog, a_create(bucket, lock_timeout_seconds=600))
    await append(catalog, holder, an_output("half way"))
    before = await get(catalog, done)
    still_open = [interrupted, lapsed, holder, child, waiting]

    begun = await begin(catalog.database)

    assert {run.run_id for run in begun.ended} == {run.run_id for run in still_open}
    assert {run.state for run in begun.ended} == {RunState.PENDING, RunState.RUNNING, RunState.INTERRUPTED}
    for run in still_open:
        ended = await get(catalog, run)
        assert ended.state == pb.RUN_STATE_FAILED
        assert "the database was restored from a backup" in ended.result.message
        assert ended.HasField("finished_at")
        told = [event async for event in watch(catalog, run)]
        assert [event.WhichOneof("event") for event in told].count("run_finished") == 1
        assert told[-1].run_finished.result == ended.result
    assert (await get(catalog, holder)).result.next_command == "maand deploy"
    assert await get(catalog, done) == before


async def test_after_a_new_epoch_nothing_is_claimed_and_the_bucket_is_free(catalog: ServedCatalog, bucket: str) -> None:
    await create(catalog, a_create(bucket))
    running = await must_claim(catalog)
    await create(catalog, a_create(bucket, lock_timeout_seconds=600))
    await begin(catalog.database)
    assert await claim(catalog, "e2") is None
    with pytest.raises(RemoteError) as caught:
        await renew(catalog, running)
    assert caught.value.code == "stale_fence"
    with pytest.raises(RemoteError) as caught, remote_errors():
        await catalog.local.runs.ResumeRun(pb.ResumeRunRequest(bucket_id=bucket, run_id=running.run_id))
    assert caught.value.code == "run_not_interrupted"
    fresh = await create(catalog, a_create(bucket))
    assert (await must_claim(catalog, "e2")).run_id == fresh.run_id


async def test_a_new_epoch_again_ends_nothing_more_and_is_larger(catalog: ServedCatalog, bucket: str) -> None:
    run = await create(catalog, a_create(bucket))
    first = await begin(catalog.database)
    ended = await get(catalog, run)
    second = await begin(catalog.database)
    assert (len(first.ended), second.ended) == (1, ())
    assert second.epoch > first.epoch
    assert await get(catalog, run) == ended


async def test_who_watches_a_run_that_a_new_epoch_ends_is_told_at_once(catalog: ServedCatalog, bucket: str) -> None:
    await create(catalog, a_create(bucket))
    run = await must_claim(catalog)
    await append(catalog, run, an_output("half way"))
    stream = aiter(watch(catalog, run))
    assert (await anext(stream)).output.lines == ["half way"]
    watching = asyncio.ensure_future(anext(stream))
    await begin(catalog.database)
    event = await asyncio.wait_for(watching, 10)
    assert "restored from a backup" in event.run_finished.result.message


async def test_an_end_that_the_executor_told_already_is_not_told_twice(catalog: ServedCatalog, bucket: str) -> None:
    await create(catalog, a_create(bucket))
    run = await must_claim(catalog)
    await append(catalog, run, finished("all promoted"))
    await begin(catalog.database)
    told = [event async for event in watch(catalog, run)]
    assert [event.WhichOneof("event") for event in told] == ["run_finished"]
    assert (await get(catalog, run)).state == pb.RUN_STATE_FAILED


async def test_a_new_epoch_frees_semaphores_and_refuses_the_hooks_that_held_them(hooks: Hooks, room: SemaphoreWaiters) -> None:
    one, two = await hooks.begin(2)
    await room.acquire(hooks.ask(one), LONG)
    [waiter] = await in_line(hooks, room, [two])

    await begin(hooks.database)

    async with asyncio.timeout(10):
        with pytest.raises(Unauthenticated):
            await waiter
    assert (await status(hooks)).claims == ()
    with pytest.raises(Unauthenticated):
        await room.acquire(hooks.ask(one, name="other"), LONG)


async def test_a_new_epoch_drops_the_tasks_of_what_it_ends(catalog: ServedCatalog) -> None:
    run = await an_owned_run(catalog)
    await split(catalog, run, a_task("one"), a_task("two"))
    begun = await must_claim_task(catalog)
    await begin(catalog.database)
    assert await claim_task(catalog, "another") is None
    await refuses_everything(catalog, run, begun)


async def test_replicas_that_begin_epochs_at_once_begin_different_ones(open_replica: OpenReplica, tmp_path: Path) -> None:
    replicas = [await open_replica() for _ in range(3)]
    bucket_id = await a_bucket(replicas[0])
    async with serve(replicas[0], tmp_path) as catalog:
        for _ in range(5):
            await create(catalog, a_create(bucket_id, HEALTH))
        runs = [await must_claim(catalog) for _ in range(3)]
        watching = asyncio.ensure_future(anext(aiter(watch(catalog, runs[0]))))
        begun = await asyncio.gather(*(begin(replica) for replica in replicas[1:] * 3))
        assert len({each.epoch for each in begun}) == 6
        assert max(each.epoch for each in begun) == await replicas[0].read(read_epoch)
        assert sorted(len(each.ended) for each in begun) == [0, 0, 0, 0, 0, 5]
        event: events.RunEvent = await asyncio.wait_for(watching, 10)
        assert event.WhichOneof("event") == "run_finished", "heard at another replica"
