"""Runs that end their executors are not taken over without end; and what commands of a claim carry to workers."""

from datetime import timedelta

import pytest

from maand_catalog.rules.runs import ClaimEnd, RunKind
from maand_catalog.store.runs.ends import interrupt_lapsed_runs
from maand_contracts.catalog.v1 import run_event_pb2, run_pb2, run_spec_pb2
from maand_wire.errors import RemoteError
from tests.contracts.catalog.conftest import ShiftedClock
from tests.contracts.catalog.run_builders import COMMAND, DEPLOY, HOOKS, a_bucket, a_create
from tests.contracts.catalog.run_verbs import claim, create, get, must_claim, record, resume, watch
from tests.contracts.catalog.serving import ServedCatalog

A_MINUTE = timedelta(minutes=1)
STATUS = run_spec_pb2.RunSpec(job_control=run_spec_pb2.JobControlSpec(job="api", action=run_spec_pb2.JOB_ACTION_STATUS))
DRY_RUN = run_spec_pb2.RunSpec(deploy=run_spec_pb2.DeploySpec(dry_run=True))
RUN_TARGET = run_spec_pb2.RunSpec(
    job_control=run_spec_pb2.JobControlSpec(job="api", action=run_spec_pb2.JOB_ACTION_RUN, target="status")
)


@pytest.fixture
async def bucket(catalog: ServedCatalog) -> str:
    return await a_bucket(catalog.database)


async def lose(catalog: ServedCatalog, clock: ShiftedClock) -> None:
    """Let the lease of whoever runs something lapse, and have that noticed."""
    clock.advance(A_MINUTE)
    await catalog.database.write(interrupt_lapsed_runs)


async def notices(catalog: ServedCatalog, run: run_pb2.Run) -> list[str]:
    return [event.notice.text async for event in watch(catalog, run, follow=False) if event.HasField("notice")]


async def test_a_run_taken_over_three_times_without_a_new_step_fails_says_why_and_frees_the_bucket(
    catalog: ServedCatalog, bucket: str, clock: ShiftedClock
) -> None:
    run = await create(catalog, a_create(bucket))
    for executor in ("e1", "e2", "e3", "e4"):
        assert (await must_claim(catalog, executor)).run_id == run.run_id
        await lose(catalog, clock)
        clock.advance(A_MINUTE)

    assert await claim(catalog, "e5") is None
    ended = await get(catalog, run)
    assert ended.state == run_pb2.RUN_STATE_FAILED
    assert "given up after 3 takeovers in a row that recorded nothing" in ended.message
    assert "its lease was lost: executor e4 did not renew it in time" in ended.message
    assert [failure.kind for failure in ended.result.failures] == [run_event_pb2.FAILURE_KIND_INTERNAL]
    events = [event async for event in watch(catalog, run)]
    assert events[-1].run_finished.result == ended.result
    assert (await must_claim_a_new_one(catalog, bucket)).run_id != run.run_id


@pytest.mark.parametrize("ending", ["executor_died", "lease_lost", "catalog_away"])
async def test_each_ending_has_its_word_and_its_sentence_and_the_last_is_the_reason_of_giving_up(
    catalog: ServedCatalog, bucket: str, clock: ShiftedClock, ending: str
) -> None:
    run = await create(catalog, a_create(bucket))
    for executor in ("e1", "e2", "e3", "e4"):
        await must_claim(catalog, executor)
        match ending:
            case "executor_died":
                await catalog.local.runs.ReleaseLeases(run_pb2.ReleaseLeasesRequest(except_executor_id="e"))
            case "lease_lost":
                clock.advance(timedelta(seconds=20))
            case "catalog_away":
                clock.sleep(timedelta(seconds=20))
        await catalog.database.write(interrupt_lapsed_runs)
        clock.advance(A_MINUTE)
    told = [event.notice async for event in watch(catalog, run) if event.HasField("notice")]
    word = run_event_pb2.ClaimEnd.Value(f"CLAIM_END_{ending.upper()}")
    assert [notice.claim_end for notice in told] == [word] * 3
    assert all(notice.text.startswith(ClaimEnd(ending).sentence(f"e{n}")) for n, notice in enumerate(told, 1))
    ended = await get(catalog, run)
    assert ended.message.endswith(f"the last ended like this: {ClaimEnd(ending).sentence('e4')}")


async def test_a_catalog_that_was_away_for_a_moment_is_not_why_a_lease_was_lost(
    catalog: ServedCatalog, bucket: str, clock: ShiftedClock
) -> None:
    run = await create(catalog, a_create(bucket))
    await must_claim(catalog)
    clock.sleep(timedelta(seconds=5))
    await get(catalog, run)
    await lose(catalog, clock)
    [said] = await notices(catalog, run)
    assert said.startswith("its lease was lost")


async def must_claim_a_new_one(catalog: ServedCatalog, bucket: str) -> run_pb2.Run:
    await create(catalog, a_create(bucket))
    return await must_claim(catalog)


async def test_the_pause_before_the_next_takeover_grows_and_the_first_has_none(
    catalog: ServedCatalog, bucket: str, clock: ShiftedClock
) -> None:
    run = await create(catalog, a_create(bucket))
    await must_claim(catalog, "e1")
    await lose(catalog, clock)
    await must_claim(catalog, "e2")
    await lose(catalog, clock)
    assert await claim(catalog, "e3") is None
    clock.advance(timedelta(seconds=5))
    await must_claim(catalog, "e3")
    await lose(catalog, clock)
    clock.advance(timedelta(seconds=19))
    assert await claim(catalog, "e4") is None
    clock.advance(timedelta(seconds=1))
    await must_claim(catalog, "e4")

    said = await notices(catalog, run)
    assert [text.partition("; ")[2] for text in said] == [
        "another executor may continue it",
        "another executor may continue it in 5 s",
        "another executor may continue it in 20 s",
    ]


async def test_a_new_recorded_step_begins_the_count_anew(catalog: ServedCatalog, bucket: str, clock: ShiftedClock) -> None:
    await create(catalog, a_create(bucket))
    for number in range(8):
        run = await must_claim(catalog, f"e{number}")
        if number % 2:
            await record(catalog, run, f"api/10.0.0.{number}/promoted")
        await lose(catalog, clock)
        clock.advance(A_MINUTE)
    assert (await get(catalog, run)).state == run_pb2.RUN_STATE_INTERRUPTED


async def test_repeating_a_recorded_step_is_no_progress(catalog: ServedCatalog, bucket: str, clock: ShiftedClock) -> None:
    await create(catalog, a_create(bucket))
    for number in range(5):
        run = await must_claim(catalog, f"e{number}")
        await record(catalog, run, "api/10.0.0.1/promoted")
        await lose(catalog, clock)
        clock.advance(A_MINUTE)
        if (await get(catalog, run)).state == run_pb2.RUN_STATE_FAILED:
            break
    assert number == 3


async def test_an_executor_that_is_stopped_in_an_orderly_way_does_not_count_and_one_that_died_does(
    catalog: ServedCatalog, bucket: str, clock: ShiftedClock
) -> None:
    await create(catalog, a_create(bucket))
    for _ in range(6):
        run = await must_claim(catalog, "e1")
        await catalog.local.runs.ReleaseLeases(run_pb2.ReleaseLeasesRequest(executor_id="e1"))
    assert (await get(catalog, run)).state == run_pb2.RUN_STATE_INTERRUPTED
    for _ in range(3):
        await must_claim(catalog, "e1")
        await catalog.local.runs.ReleaseLeases(run_pb2.ReleaseLeasesRequest())
        clock.advance(A_MINUTE)
    ended = await get(catalog, run)
    assert ended.state == run_pb2.RUN_STATE_FAILED
    assert ended.message.endswith("the last ended like this: its executor e1 died")
    said = await notices(catalog, run)
    assert (said[0].partition("; ")[0], said[-1].partition("; ")[0]) == ("its executor e1 was stopped", "its executor e1 died")


async def test_a_run_that_was_asked_to_stop_is_cancelled_not_failed(
    catalog: ServedCatalog, bucket: str, clock: ShiftedClock
) -> None:
    run = await create(catalog, a_create(bucket))
    for executor in ("e1", "e2", "e3"):
        await must_claim(catalog, executor)
        await lose(catalog, clock)
        clock.advance(A_MINUTE)
    await must_claim(catalog, "e4")
    await catalog.local.runs.CancelRun(run_pb2.CancelRunRequest(bucket_id=bucket, run_id=run.run_id))
    await lose(catalog, clock)
    assert (await get(catalog, run)).state == run_pb2.RUN_STATE_CANCELLED


async def test_a_person_who_resumes_a_run_gives_it_all_its_tries_at_once(
    catalog: ServedCatalog, bucket: str, clock: ShiftedClock
) -> None:
    run = await create(catalog, a_create(bucket))
    for executor in ("e1", "e2", "e3"):
        await must_claim(catalog, executor)
        await lose(catalog, clock)
        if executor != "e3":
            clock.advance(A_MINUTE)
    assert await claim(catalog, "e4") is None, "it pauses"
    await resume(catalog, run)
    for executor in ("e4", "e5"):
        await must_claim(catalog, executor)
        await lose(catalog, clock)
        clock.advance(A_MINUTE)
    assert (await get(catalog, run)).state == run_pb2.RUN_STATE_INTERRUPTED


async def test_a_command_waits_for_a_person_however_often_it_was_lost(
    catalog: ServedCatalog, bucket: str, clock: ShiftedClock
) -> None:
    run = await create(catalog, a_create(bucket, COMMAND))
    for number in range(5):
        await must_claim(catalog, f"e{number}")
        await lose(catalog, clock)
        assert (await get(catalog, run)).state == run_pb2.RUN_STATE_INTERRUPTED
        assert await claim(catalog, "e") is None
        again = await resume(catalog, run, again=bool(number % 2))
        assert again.spec.run_command.again is bool(number % 2)


async def test_only_a_command_is_resumed_with_again(catalog: ServedCatalog, bucket: str, clock: ShiftedClock) -> None:
    run = await create(catalog, a_create(bucket))
    await must_claim(catalog)
    clock.advance(A_MINUTE)
    with pytest.raises(RemoteError) as refused:
        await resume(catalog, run, again=True)
    assert refused.value.status.name == "INVALID_ARGUMENT"
    assert (await get(catalog, run)).state == run_pb2.RUN_STATE_INTERRUPTED


async def claimed_fence(catalog: ServedCatalog, *, executor_id: str = "e1") -> tuple[int, int] | None:
    """Claim a run and return (seq, fence) of what its commands carry; None when they leave no mark."""
    response = await catalog.local.runs.ClaimRun(run_pb2.ClaimRunRequest(executor_id=executor_id))
    assert response.HasField("run")
    if not response.HasField("worker_fence"):
        return None
    assert response.worker_fence.epoch > 0
    return response.worker_fence.seq, response.worker_fence.fence


async def test_runs_that_hold_the_bucket_carry_their_own_numbers_and_those_that_look_carry_none(
    catalog: ServedCatalog, bucket: str, clock: ShiftedClock
) -> None:
    deploy = await create(catalog, a_create(bucket, DEPLOY))
    assert await claimed_fence(catalog) == (deploy.seq, 1)
    for spec in (STATUS, DRY_RUN, COMMAND, HOOKS):
        await create(catalog, a_create(bucket, spec))
        assert await claimed_fence(catalog) is None, spec
    clock.advance(A_MINUTE)
    assert await claimed_fence(catalog, executor_id="e2") == (deploy.seq, 2)


CHANGES = {
    RunKind.BUILD: run_spec_pb2.RunSpec(build=run_spec_pb2.BuildSpec(snapshot_id="s")),
    RunKind.DEPLOY: DEPLOY,
    RunKind.JOB_CONTROL: RUN_TARGET,
    RunKind.GC: run_spec_pb2.RunSpec(gc=run_spec_pb2.GcSpec()),
}
LOOKS = {
    RunKind.DEPLOY: DRY_RUN,
    RunKind.JOB_CONTROL: STATUS,
    RunKind.HOOKS: HOOKS,
    RunKind.RUN_COMMAND: COMMAND,
    RunKind.HEALTH_CHECK: run_spec_pb2.RunSpec(health_check=run_spec_pb2.HealthCheckSpec()),
    RunKind.WORKER_PROBE: run_spec_pb2.RunSpec(worker_probe=run_spec_pb2.WorkerProbeSpec(probe=run_spec_pb2.WORKER_PROBE_PING)),
}


@pytest.mark.parametrize("kind", RunKind)
async def test_every_kind_carries_a_fence_where_it_changes_workers_alone_or_in_a_hook_and_none_where_it_only_looks(
    catalog: ServedCatalog, bucket: str, kind: RunKind
) -> None:
    assert kind in CHANGES | LOOKS
    if kind in CHANGES:
        alone = await create(catalog, a_create(bucket, CHANGES[kind]))
        assert await claimed_fence(catalog) == (alone.seq, 1)
        await catalog.local.runs.ReleaseLeases(run_pb2.ReleaseLeasesRequest(executor_id="e1"))
        assert await claimed_fence(catalog) == (alone.seq, 2)
        nested = await create(catalog, a_create(bucket, CHANGES[kind], parent_run_id=alone.run_id))
        assert nested.seq > alone.seq
        assert await claimed_fence(catalog) == (alone.seq, 2), "its holder's"
    if kind in LOOKS:
        await create(catalog, a_create(bucket, LOOKS[kind]))
        assert await claimed_fence(catalog) is None
        parent = await create(catalog, a_create(await a_bucket(catalog.database), DEPLOY))
        assert await claimed_fence(catalog) == (parent.seq, 1)
        await create(catalog, a_create(parent.bucket_id, LOOKS[kind], parent_run_id=parent.run_id))
        assert await claimed_fence(catalog) is None


async def test_a_run_started_in_a_hook_carries_the_numbers_of_the_run_whose_hold_it_joined(
    catalog: ServedCatalog, bucket: str, clock: ShiftedClock
) -> None:
    deploy = await create(catalog, a_create(bucket, DEPLOY))
    assert await claimed_fence(catalog) == (deploy.seq, 1)
    child = await create(catalog, a_create(bucket, RUN_TARGET, parent_run_id=deploy.run_id))
    assert await claimed_fence(catalog) == (deploy.seq, 1)
    await create(catalog, a_create(bucket, DEPLOY, parent_run_id=child.run_id))
    assert await claimed_fence(catalog) == (deploy.seq, 1)
    await create(catalog, a_create(bucket, STATUS, parent_run_id=child.run_id))
    assert await claimed_fence(catalog) is None
    clock.advance(A_MINUTE)
    assert {await claimed_fence(catalog, executor_id="e2") for _ in range(4)} == {None, (deploy.seq, 2)}


async def test_a_run_started_in_a_hook_of_a_run_without_a_hold_carries_its_own_numbers(
    catalog: ServedCatalog, bucket: str
) -> None:
    hooks = await create(catalog, a_create(bucket, HOOKS))
    assert await claimed_fence(catalog) is None
    child = await create(catalog, a_create(bucket, RUN_TARGET, parent_run_id=hooks.run_id))
    assert await claimed_fence(catalog) == (child.seq, 1)
