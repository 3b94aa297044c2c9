"""What happened in a run: appended once, in order, and streamed to whoever watches, from any replica."""

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import text

from maand_catalog.database.database import Database, Transaction
from maand_catalog.store.runs.retention import Retention, trim_runs
from maand_contracts.catalog.v1 import run_event_pb2 as events
from maand_contracts.catalog.v1 import run_pb2 as pb
from maand_wire.errors import RemoteError, remote_errors
from tests.contracts.catalog.conftest import OpenReplica, ShiftedClock
from tests.contracts.catalog.run_builders import COMMAND, HEALTH, NOWHERE, a_bucket, a_create, an_output, finished
from tests.contracts.catalog.run_verbs import append, create, finish, get, must_claim, record, steps, watch
from tests.contracts.catalog.serving import ServedCatalog, serve


@pytest.fixture
async def run(catalog: ServedCatalog) -> pb.Run:
    await create(catalog, a_create(await a_bucket(catalog.database), HEALTH))
    return await must_claim(catalog)


async def test_events_are_numbered_from_one_and_kept_as_sent(catalog: ServedCatalog, run: pb.Run) -> None:
    assert await append(catalog, run, an_output("a"), an_output("b", "c")) == 2
    assert await append(catalog, run, an_output("d")) == 3
    told = [event async for event in watch(catalog, run, follow=False)]
    assert [event.sequence for event in told] == [1, 2, 3]
    expected = an_output("b", "c")
    expected.sequence = 2
    assert told[1] == expected
    assert (await get(catalog, run)).last_sequence == 3


async def test_a_repeated_append_with_its_request_id_appends_nothing(catalog: ServedCatalog, run: pb.Run) -> None:
    assert await append(catalog, run, an_output("a"), an_output("b"), request_id="one") == 2
    assert await append(catalog, run, an_output("c"), request_id="two") == 3
    assert await append(catalog, run, an_output("a"), an_output("b"), request_id="one") == 2
    assert await append(catalog, run, an_output("d")) == 4
    told = [event.output.lines[0] async for event in watch(catalog, run, follow=False)]
    assert told == ["a", "b", "c", "d"]


async def test_appends_at_once_leave_no_gap_and_mix_no_batch(catalog: ServedCatalog, run: pb.Run) -> None:
    batches = [[an_output(f"{n}.{i}") for i in range(5)] for n in range(20)]
    ends = await asyncio.gather(*(append(catalog, run, *batch) for batch in batches))
    told = [event async for event in watch(catalog, run, follow=False)]
    assert [event.sequence for event in told] == list(range(1, 101))
    for batch, end in zip(batches, ends, strict=True):
        assert [event.output for event in told[end - 5 : end]] == [event.output for event in batch]


async def test_a_watcher_gets_what_is_stored_then_what_comes_and_is_let_go_at_the_end(
    catalog: ServedCatalog, run: pb.Run
) -> None:
    await append(catalog, run, an_output("stored"))
    stream = watch(catalog, run)
    assert (await anext(stream)).output.lines == ["stored"]
    await append(catalog, run, an_output("live"))
    assert (await asyncio.wait_for(anext(stream), 5)).output.lines == ["live"]
    await finish(catalog, run)
    assert [event.WhichOneof("event") async for event in stream] == ["run_finished"]


async def test_a_watcher_resumes_after_the_last_number_it_saw(catalog: ServedCatalog, run: pb.Run) -> None:
    await append(catalog, run, *(an_output(str(n)) for n in range(1200)))
    await finish(catalog, run)
    told = [event.sequence async for event in watch(catalog, run, after=700)]
    assert told == list(range(701, 1202))


async def test_a_watch_without_follow_ends_after_what_is_stored(catalog: ServedCatalog, run: pb.Run) -> None:
    await append(catalog, run, an_output("a"))
    assert len([event async for event in watch(catalog, run, follow=False)]) == 1
    assert [event async for event in watch(catalog, run, after=1, follow=False)] == []


async def test_watchers_on_another_replica_see_events_at_once(open_replica: OpenReplica, tmp_path: Path) -> None:
    one, two = await open_replica(), await open_replica()
    async with serve(one, tmp_path) as here, serve(two, tmp_path) as there:
        await create(here, a_create(await a_bucket(one), HEALTH))
        run = await must_claim(here)
        stream = watch(there, run)
        for number in range(20):
            await append(here, run, an_output(str(number)))
            assert (await asyncio.wait_for(anext(stream), 5)).sequence == number + 1
        await finish(here, run)
        assert [event.WhichOneof("event") async for event in stream] == ["run_finished"]


async def test_finishing_writes_the_last_event_unless_the_executor_did(catalog: ServedCatalog, run: pb.Run) -> None:
    await append(catalog, run, finished("all well"))
    await finish(catalog, run)
    told = [event async for event in watch(catalog, run)]
    assert [event.WhichOneof("event") for event in told] == ["run_finished"]


async def test_a_finished_run_carries_its_result_and_takes_nothing_more(catalog: ServedCatalog, run: pb.Run) -> None:
    result = events.RunResult(message="2 promoted", counts={"promoted": 2}, next_command="maand cat deployments")
    request = pb.FinishRunRequest(
        bucket_id=run.bucket_id, run_id=run.run_id, fence=run.fence, state=pb.RUN_STATE_SUCCEEDED, result=result
    )
    await catalog.local.runs.FinishRun(request)
    await catalog.local.runs.FinishRun(request)
    ended = await get(catalog, run)
    assert (ended.state, ended.message, ended.result) == (pb.RUN_STATE_SUCCEEDED, "2 promoted", result)
    assert ended.HasField("finished_at")
    with pytest.raises(RemoteError) as caught:
        await append(catalog, run, an_output("late"))
    assert caught.value.code == "stale_fence"


@pytest.mark.parametrize("state", [pb.RUN_STATE_UNSPECIFIED, pb.RUN_STATE_PENDING, pb.RUN_STATE_RUNNING, 99])
async def test_a_run_cannot_finish_in_a_state_that_is_no_end(
    catalog: ServedCatalog, run: pb.Run, state: pb.RunState.ValueType
) -> None:
    with pytest.raises(RemoteError) as caught:
        await finish(catalog, run, state)
    assert caught.value.code == "invalid_argument"
    assert (await get(catalog, run)).state == pb.RUN_STATE_RUNNING


async def test_steps_are_recorded_once_in_order(catalog: ServedCatalog, run: pb.Run) -> None:
    await record(catalog, run, "b", "a")
    await record(catalog, run, "a", "c", "c")
    assert list(await steps(catalog, run)) == ["b", "a", "c"]


async def test_what_a_run_is_doing_is_told_in_its_message(catalog: ServedCatalog, run: pb.Run) -> None:
    waiting = events.RunEvent(waiting=events.Waiting(reason="health of api (2 of 3)"))
    await append(catalog, run, an_output("x"), waiting)
    assert (await get(catalog, run)).message == "waits for health of api (2 of 3)"


@pytest.mark.parametrize("fence", [0, 2, 2**63 - 1])
async def test_another_fence_than_the_current_one_is_refused(catalog: ServedCatalog, run: pb.Run, fence: int) -> None:
    run.fence = fence
    with pytest.raises(RemoteError) as caught:
        await append(catalog, run, an_output("x"))
    assert caught.value.code == "stale_fence"


async def test_events_of_an_unknown_run_are_not_found(catalog: ServedCatalog, run: pb.Run) -> None:
    run.run_id = NOWHERE
    for act in (append(catalog, run, an_output("x")), record(catalog, run, "a"), steps(catalog, run), finish(catalog, run)):
        with pytest.raises(RemoteError) as caught:
            await act
        assert caught.value.code == "not_found"
    with pytest.raises(RemoteError) as caught:
        await anext(watch(catalog, run))
    assert caught.value.code == "not_found"


async def test_events_that_say_nothing_or_too_much_are_refused_and_none_is_kept(catalog: ServedCatalog, run: pb.Run) -> None:
    bad = {
        "invalid_argument": [an_output("x"), events.RunEvent(job="api")],
        "limit_exceeded": [an_output("x")] * 10_001,
    }
    for code, sent in bad.items():
        with pytest.raises(RemoteError) as caught:
            await append(catalog, run, *sent)
        assert caught.value.code == code
    huge = pb.RecordStepsRequest(bucket_id=run.bucket_id, run_id=run.run_id, fence=run.fence, names=["x" * 600])
    with pytest.raises(RemoteError) as caught, remote_errors():
        await catalog.local.runs.RecordSteps(huge)
    assert caught.value.code == "limit_exceeded"
    assert (await get(catalog, run)).last_sequence == 0


async def test_retention_keeps_the_newest_runs_and_the_young_and_every_summary(
    catalog: ServedCatalog, clock: ShiftedClock
) -> None:
    bucket = await a_bucket(catalog.database)
    ended = [await an_ended_run(catalog, bucket) for _ in range(4)]
    clock.advance(timedelta(days=20))
    young = await an_ended_run(catalog, bucket)
    clock.advance(timedelta(days=20))
    await create(catalog, a_create(bucket, COMMAND))
    assert await trim(catalog.database, Retention(newest_runs=3)) == 3
    assert await trim(catalog.database, Retention(newest_runs=3)) == 0
    kept = [len([event async for event in watch(catalog, run)]) for run in (*ended, young)]
    assert kept == [1, 1, 1, 3, 3], "the last event stays, so that a watcher is still told the result"
    assert (await get(catalog, ended[0])).result.message == ""
    assert (await get(catalog, ended[0])).state == pb.RUN_STATE_SUCCEEDED
    left = await catalog.database.read(steps_left)
    assert left == {ended[3].run_id, young.run_id}


async def an_ended_run(catalog: ServedCatalog, bucket: str) -> pb.Run:
    await create(catalog, a_create(bucket, COMMAND))
    run = await must_claim(catalog)
    await append(catalog, run, an_output("a"), an_output("b"), request_id="once")
    await record(catalog, run, "step")
    await finish(catalog, run)
    return run


async def trim(database: Database, retention: Retention) -> int:
    return await database.write(lambda tx: trim_runs(tx, retention))


def steps_left(tx: Transaction) -> set[str]:
    return set(tx.connection.execute(text("SELECT run_id FROM run_steps")).scalars())
