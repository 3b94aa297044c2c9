"""Wide work shared by executors: tasks claimed once, kept by leases, refused when stale, told to the owner once. Time by hand."""

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest

from maand_catalog.rules.identity import Role
from maand_catalog.store.runs.tasks import settle_lapsed_tasks
from maand_contracts.catalog.v1 import run_event_pb2 as events
from maand_contracts.catalog.v1 import run_pb2
from maand_contracts.catalog.v1 import task_pb2 as pb
from maand_wire.errors import RemoteError, remote_errors
from tests.contracts.catalog.conftest import OpenReplica, ShiftedClock
from tests.contracts.catalog.run_builders import COMMAND, HEALTH, NOWHERE, a_bucket, a_create, an_output
from tests.contracts.catalog.run_verbs import append, create, finish, must_claim, watch
from tests.contracts.catalog.serving import ServedCatalog, serve
from tests.contracts.catalog.task_verbs import (
    COMMAND_WORK,
    LOGIN_WORK,
    a_task,
    an_owned_run,
    cancel,
    claim,
    done,
    end,
    ended,
    let_tasks_lapse,
    must_claim_task,
    refuses_everything,
    renew,
    say,
    split,
)

A_MINUTE = timedelta(minutes=1)


@pytest.fixture
async def run(catalog: ServedCatalog) -> run_pb2.Run:
    """A run owned by the executor `owner`."""
    return await an_owned_run(catalog)


# -- created and claimed ----------------------------------------------------------------------------------------------------


async def test_a_claimed_task_says_what_to_do_for_which_run_and_for_how_long(catalog: ServedCatalog, run: run_pb2.Run) -> None:
    await split(catalog, run, a_task("one"))
    response = await catalog.local.tasks.ClaimTask(pb.ClaimTaskRequest(executor_id="helper"))
    task = response.task
    assert (task.name, list(task.spec.workers), task.spec.WhichOneof("work")) == ("one", ["one-1", "one-2"], "command")
    assert (task.state, task.executor_id, task.fence) == (pb.TASK_STATE_RUNNING, "helper", 1)
    assert (response.run.run_id, response.run.fence, response.run.spec, response.lease_seconds) == (run.run_id, 1, COMMAND, 15)


async def test_tasks_are_claimed_in_the_order_they_were_created_each_once(catalog: ServedCatalog, run: run_pb2.Run) -> None:
    await split(catalog, run, *(a_task(f"{number}") for number in range(5)))
    assert [(await must_claim_task(catalog)).name for _ in range(5)] == list("01234")
    assert await claim(catalog) is None


async def test_creating_tasks_again_changes_nothing(catalog: ServedCatalog, run: run_pb2.Run) -> None:
    await split(catalog, run, a_task("one"))
    await split(catalog, run, a_task("one", LOGIN_WORK), a_task("two"))
    first, second = await must_claim_task(catalog), await must_claim_task(catalog)
    assert (first.name, first.spec.WhichOneof("work"), second.name) == ("one", "command", "two")
    assert await claim(catalog) is None


async def test_a_waiting_executor_is_given_a_task_as_soon_as_it_is_created(catalog: ServedCatalog, run: run_pb2.Run) -> None:
    waiting = asyncio.create_task(must_claim_task(catalog, seconds=30))
    await split(catalog, run, a_task("one"))
    assert (await asyncio.wait_for(waiting, 5)).name == "one"


async def test_an_owner_claims_its_own_tasks_by_name_of_the_run_others_claim_what_is_not_theirs(
    catalog: ServedCatalog, run: run_pb2.Run
) -> None:
    await split(catalog, run, a_task("one"), a_task("two"))
    assert await claim(catalog, "owner") is None, "its long poll for others' tasks leaves its own alone"
    mine = await claim(catalog, "owner", run_id=run.run_id)
    assert mine is not None
    assert mine.name == "one"
    assert (await must_claim_task(catalog, "helper")).name == "two"


async def test_only_tasks_of_the_buckets_asked_for_are_claimed(catalog: ServedCatalog, run: run_pb2.Run) -> None:
    other = await an_owned_run(catalog)
    await split(catalog, run, a_task("here"))
    await split(catalog, other, a_task("there"))
    response = await catalog.local.tasks.ClaimTask(pb.ClaimTaskRequest(executor_id="helper", bucket_ids=[other.bucket_id]))
    assert response.task.name == "there"


@pytest.mark.parametrize("task", [pb.NewTask(name="no work"), pb.NewTask(name="nobody", spec=COMMAND_WORK), a_task("")])
async def test_a_task_without_work_workers_or_name_is_refused(catalog: ServedCatalog, run: run_pb2.Run, task: pb.NewTask) -> None:
    with pytest.raises(RemoteError) as caught:
        await split(catalog, run, task)
    assert caught.value.code == "invalid_argument"
    assert caught.value.facts["field"].startswith("tasks.")


async def test_tasks_are_for_executors(catalog: ServedCatalog, run: run_pb2.Run) -> None:
    token = await catalog.token_for(Role.OPERATOR)
    with pytest.raises(RemoteError) as caught, remote_errors():
        await catalog.anonymous().tasks.ClaimTask(pb.ClaimTaskRequest(executor_id="e1"), metadata=token)
    assert caught.value.code == "permission_denied"


async def test_an_unknown_task_is_not_found(catalog: ServedCatalog, run: run_pb2.Run) -> None:
    with pytest.raises(RemoteError) as caught:
        await end(catalog, run, pb.Task(task_id=NOWHERE, fence=1))
    assert caught.value.code == "not_found"


# -- done and told ----------------------------------------------------------------------------------------------------------


async def test_the_owner_is_told_of_every_end_once_and_resumes_where_it_was(catalog: ServedCatalog, run: run_pb2.Run) -> None:
    await split(catalog, run, a_task("one"), a_task("two"))
    one, two = await must_claim_task(catalog), await must_claim_task(catalog)
    waiting = asyncio.create_task(ended(catalog, run, seconds=30))
    await end(catalog, run, two, done("two-1"), done("two-2"))
    (first,) = await asyncio.wait_for(waiting, 5)
    assert (first.name, first.state, first.sequence, first.executor_id) == ("two", pb.TASK_STATE_FINISHED, 1, "helper")
    assert [outcome.worker for outcome in first.outcomes] == ["two-1", "two-2"]
    await end(catalog, run, one)
    assert [task.name for task in await ended(catalog, run, after=1)] == ["one"]
    assert [task.name for task in await ended(catalog, run)] == ["two", "one"]


async def test_outcomes_of_renewals_and_of_the_end_make_one_list_the_newest_of_a_worker_counts(
    catalog: ServedCatalog, run: run_pb2.Run
) -> None:
    await split(catalog, run, a_task("one"))
    task = await must_claim_task(catalog)
    await renew(catalog, run, task, pb.WorkerOutcome(worker="one-1", outcome=events.STEP_OUTCOME_FAILED))
    await renew(catalog, run, task, done("one-1"))
    await end(catalog, run, task, done("one-2"))
    await end(catalog, run, task, done("one-2"))
    (told,) = await ended(catalog, run)
    assert list(told.outcomes) == [done("one-1"), done("one-2")]


async def test_events_are_appended_under_the_claim_of_a_task_in_one_sequence_with_the_owners(
    catalog: ServedCatalog, run: run_pb2.Run
) -> None:
    await split(catalog, run, a_task("one"))
    task = await must_claim_task(catalog)
    await append(catalog, run, an_output("owner"))
    await say(catalog, run, task, "helper")
    await append(catalog, run, an_output("owner again"))
    told = [(event.sequence, *event.output.lines) async for event in watch(catalog, run, follow=False)]
    assert told == [(1, "owner"), (2, "helper"), (3, "owner again")]


async def test_a_task_of_another_run_lets_nobody_append(catalog: ServedCatalog, run: run_pb2.Run) -> None:
    other = await an_owned_run(catalog)
    await split(catalog, other, a_task("theirs"))
    theirs = await must_claim_task(catalog)
    with pytest.raises(RemoteError) as caught:
        await say(catalog, run, theirs, "not mine to say")
    assert caught.value.code in ("not_found", "stale_fence")


# -- lapsed, given up, stale ------------------------------------------------------------------------------------------------


async def test_a_lapsed_task_that_only_looks_is_claimed_again_for_the_rest_and_the_late_executor_is_refused(
    catalog: ServedCatalog, run: run_pb2.Run, clock: ShiftedClock
) -> None:
    await split(catalog, run, a_task("look", LOGIN_WORK))
    late = await must_claim_task(catalog, "dead")
    await renew(catalog, run, late, done("look-1"))
    await let_tasks_lapse(catalog, run, clock)
    again = await must_claim_task(catalog, "helper", seconds=30)
    assert (again.task_id, again.fence, again.executor_id, list(again.outcomes)) == (late.task_id, 2, "helper", [done("look-1")])
    await refuses_everything(catalog, run, late)
    await end(catalog, run, again, done("look-2"))
    (told,) = await ended(catalog, run)
    assert (told.state, list(told.outcomes)) == (pb.TASK_STATE_FINISHED, [done("look-1"), done("look-2")])


async def test_a_task_that_its_executors_die_with_is_lost_after_four_claims(
    catalog: ServedCatalog, run: run_pb2.Run, clock: ShiftedClock
) -> None:
    await split(catalog, run, a_task("look", LOGIN_WORK))
    for number in range(4):
        assert (await must_claim_task(catalog, f"e{number}", seconds=30)).fence == number + 1
        await let_tasks_lapse(catalog, run, clock)
    await catalog.database.write(settle_lapsed_tasks)
    assert await claim(catalog, "e5") is None
    (told,) = await ended(catalog, run)
    assert told.state == pb.TASK_STATE_LOST


async def test_a_lapsed_command_is_lost_with_what_was_known_and_never_claimed_again(
    catalog: ServedCatalog, run: run_pb2.Run, clock: ShiftedClock
) -> None:
    await split(catalog, run, a_task("run"))
    late = await must_claim_task(catalog, "dead")
    await renew(catalog, run, late, done("run-1"))
    await let_tasks_lapse(catalog, run, clock)
    (told,) = await ended(catalog, run, seconds=30)
    assert (told.state, told.executor_id, list(told.outcomes)) == (pb.TASK_STATE_LOST, "dead", [done("run-1")])
    assert await claim(catalog) is None
    await refuses_everything(catalog, run, late)


async def test_what_is_given_up_is_claimed_again_or_lost(catalog: ServedCatalog, run: run_pb2.Run) -> None:
    await split(catalog, run, a_task("look", LOGIN_WORK), a_task("run"))
    look, command = await must_claim_task(catalog), await must_claim_task(catalog)
    await end(catalog, run, look, given_up=True)
    await end(catalog, run, command, done("run-2"), given_up=True)
    assert (await must_claim_task(catalog)).name == "look"
    (told,) = await ended(catalog, run)
    assert (told.name, told.state, list(told.outcomes)) == ("run", pb.TASK_STATE_LOST, [done("run-2")])


async def test_an_executor_that_stops_lets_go_of_its_tasks_and_of_no_others(catalog: ServedCatalog, run: run_pb2.Run) -> None:
    await split(catalog, run, a_task("a", LOGIN_WORK), a_task("b", LOGIN_WORK))
    await must_claim_task(catalog, "stops")
    kept = await must_claim_task(catalog, "stays")
    await catalog.local.runs.ReleaseLeases(run_pb2.ReleaseLeasesRequest(executor_id="stops"))
    assert (await must_claim_task(catalog, "third")).name == "a"
    await renew(catalog, run, kept)


# -- the run ends, is cancelled, changes hands ------------------------------------------------------------------------------


async def test_the_end_of_a_run_ends_its_tasks(catalog: ServedCatalog, run: run_pb2.Run) -> None:
    await split(catalog, run, a_task("one"), a_task("two"))
    task = await must_claim_task(catalog)
    await finish(catalog, run)
    await refuses_everything(catalog, run, task)
    assert await claim(catalog) is None


async def test_tasks_of_a_lapsed_run_are_not_to_be_had_and_their_executors_are_refused(
    catalog: ServedCatalog, run: run_pb2.Run, clock: ShiftedClock
) -> None:
    await split(catalog, run, a_task("one"), a_task("two"))
    task = await must_claim_task(catalog)
    clock.advance(A_MINUTE)
    assert await claim(catalog) is None
    await refuses_everything(catalog, run, task)


async def test_after_a_takeover_only_tasks_of_the_new_owner_count(catalog: ServedCatalog, clock: ShiftedClock) -> None:
    await create(catalog, a_create(await a_bucket(catalog.database), HEALTH))
    old = await must_claim(catalog, "dead")
    await split(catalog, old, a_task("one", LOGIN_WORK), a_task("two", LOGIN_WORK))
    stale = await must_claim_task(catalog)
    clock.advance(A_MINUTE)
    new = await must_claim(catalog, "owner")
    with pytest.raises(RemoteError) as caught:
        await split(catalog, old, a_task("three"))
    assert caught.value.code == "stale_fence"
    await split(catalog, new, a_task("one", LOGIN_WORK))
    await refuses_everything(catalog, new, stale)
    fresh = await must_claim_task(catalog)
    await end(catalog, new, fresh)
    assert [task.task_id for task in await ended(catalog, new)] == [fresh.task_id]
    assert await claim(catalog) is None
    with pytest.raises(RemoteError) as caught:
        await ended(catalog, old)
    assert caught.value.code == "stale_fence"


async def test_a_wish_to_cancel_reaches_executors_of_tasks_and_now_leaves_nothing_to_claim(
    catalog: ServedCatalog, run: run_pb2.Run
) -> None:
    await split(catalog, run, a_task("one"), a_task("two"), a_task("three"))
    task = await must_claim_task(catalog)
    assert (await renew(catalog, run, task)).cancel == run_pb2.CANCEL_LEVEL_UNSPECIFIED
    await cancel(catalog, run)
    assert (await renew(catalog, run, task)).cancel == run_pb2.CANCEL_LEVEL_AFTER_BATCH
    second = await must_claim_task(catalog)
    await cancel(catalog, run)
    assert (await renew(catalog, run, task)).cancel == run_pb2.CANCEL_LEVEL_NOW
    assert await claim(catalog) is None
    await end(catalog, run, task, given_up=True)
    await end(catalog, run, second, done("two-1"))
    states = {one.name: one.state for one in await ended(catalog, run)}
    assert states == {"three": pb.TASK_STATE_DROPPED, "one": pb.TASK_STATE_LOST, "two": pb.TASK_STATE_FINISHED}


# -- several catalogs -------------------------------------------------------------------------------------------------------


async def test_claims_raced_on_two_replicas_give_every_task_to_one_and_ends_are_numbered_without_gaps(
    open_replica: OpenReplica, tmp_path: Path
) -> None:
    one, two = await open_replica(), await open_replica()
    async with serve(one, tmp_path) as here, serve(two, tmp_path) as there:
        run = await an_owned_run(here)
        await split(here, run, *(a_task(f"{number}") for number in range(20)))
        claims = await asyncio.gather(*(claim(c, f"e{n}") for n in range(15) for c in (here, there)))
        won = [task for task in claims if task is not None]
        assert sorted(task.name for task in won) == sorted(f"{number}" for number in range(20))
        await asyncio.gather(*(end(c, run, task) for task, c in zip(won, (here, there) * 10, strict=True)))
        told = await ended(there, run)
    assert [task.sequence for task in told] == list(range(1, 21))


async def test_a_task_created_at_one_replica_wakes_an_executor_that_waits_at_another(
    open_replica: OpenReplica, tmp_path: Path
) -> None:
    one, two = await open_replica(), await open_replica()
    async with serve(one, tmp_path) as here, serve(two, tmp_path) as there:
        run = await an_owned_run(here)
        waiting = asyncio.create_task(must_claim_task(there, seconds=30))
        await split(here, run, a_task("one"))
        task = await asyncio.wait_for(waiting, 5)
        telling = asyncio.create_task(ended(here, run, seconds=30))
        await end(there, run, task)
        assert len(await asyncio.wait_for(telling, 5)) == 1
