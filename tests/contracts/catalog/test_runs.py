"""Runs as people ask for them: created, joined, listed, cancelled, resumed; exclusive ones in order."""

from datetime import timedelta

import pytest
from sqlalchemy import text

from maand_catalog.rules.identity import Role
from maand_contracts.catalog.v1 import run_event_pb2 as events
from maand_contracts.catalog.v1 import run_pb2 as pb
from maand_contracts.catalog.v1 import run_spec_pb2 as specs
from maand_wire.enums import enum_number
from maand_wire.errors import RemoteError, remote_errors
from tests.contracts.catalog.conftest import ShiftedClock
from tests.contracts.catalog.run_builders import BUILD, COMMAND, DEPLOY, HEALTH, NOWHERE, a_bucket, a_create
from tests.contracts.catalog.run_verbs import claim, create, finish, get, must_claim, watch
from tests.contracts.catalog.serving import ServedCatalog


@pytest.fixture
async def bucket(catalog: ServedCatalog) -> str:
    return await a_bucket(catalog.database)


async def test_a_new_run_is_pending_and_says_who_asked_for_what(catalog: ServedCatalog, bucket: str) -> None:
    run = await create(catalog, a_create(bucket, COMMAND))
    assert (run.seq, run.kind, run.state, run.fence) == (1, specs.RUN_KIND_RUN_COMMAND, pb.RUN_STATE_PENDING, 0)
    assert (run.spec, run.requested_by) == (COMMAND, "ada@laptop")
    assert not run.HasField("started_at")
    assert await get(catalog, run) == run


async def test_a_repeated_request_returns_the_first_run(catalog: ServedCatalog, bucket: str) -> None:
    first = await create(catalog, a_create(bucket, request_id="r1"))
    assert await create(catalog, a_create(bucket, request_id="r1")) == first
    other = await a_bucket(catalog.database)
    assert (await create(catalog, a_create(other, request_id="r1"))).run_id != first.run_id


async def test_an_exclusive_run_beside_another_is_refused_saying_who_holds_the_bucket(
    catalog: ServedCatalog, bucket: str
) -> None:
    holder = await create(catalog, a_create(bucket, BUILD))
    with pytest.raises(RemoteError, match=f"held by build run {holder.run_id} of ada@laptop") as caught:
        await create(catalog, a_create(bucket, DEPLOY))
    assert caught.value.code == "bucket_held"
    facts = caught.value.facts
    assert (facts["run_id"], facts["kind"], facts["requested_by"], facts["state"]) == (
        holder.run_id,
        "build",
        "ada@laptop",
        "pending",
    )
    assert facts["since"]
    assert facts["continued"] == "no"
    await create(catalog, a_create(await a_bucket(catalog.database), DEPLOY))


async def test_a_refusal_tells_that_the_holder_lost_its_executor_and_goes_on_or_will(catalog: ServedCatalog, bucket: str) -> None:
    async def said() -> str:
        with pytest.raises(RemoteError) as caught:
            await create(catalog, a_create(bucket))
        return str(caught.value.facts["continued"])

    await create(catalog, a_create(bucket))
    heard = [await said()]
    first = await claim(catalog)
    assert first is not None
    heard.append(await said())
    await catalog.local.runs.ReleaseLeases(pb.ReleaseLeasesRequest(executor_id=first.executor_id))
    heard.append(await said())
    await catalog.local.runs.ResumeRun(pb.ResumeRunRequest(bucket_id=bucket, run_id=first.run_id))
    heard.append(await said())
    assert await claim(catalog) is not None
    heard.append(await said())
    assert heard == ["no", "no", "yes", "yes", "yes"]


@pytest.mark.parametrize(
    "spec",
    [
        COMMAND,
        HEALTH,
        specs.RunSpec(hooks=specs.HooksSpec(hook="hook_a")),
        specs.RunSpec(deploy=specs.DeploySpec(dry_run=True)),
        specs.RunSpec(job_control=specs.JobControlSpec(job="api", action=specs.JOB_ACTION_STATUS)),
        specs.RunSpec(worker_probe=specs.WorkerProbeSpec(probe=specs.WORKER_PROBE_PING)),
    ],
    ids=lambda spec: str(spec.WhichOneof("spec")),
)
async def test_runs_that_only_look_or_are_asked_for_by_hand_run_beside_an_exclusive_one(
    catalog: ServedCatalog, bucket: str, spec: specs.RunSpec
) -> None:
    await create(catalog, a_create(bucket, DEPLOY))
    await create(catalog, a_create(bucket, spec))
    assert {(await claim(catalog) or pb.Run()).kind for _ in range(2)} == {
        specs.RUN_KIND_DEPLOY,
        enum_number(specs.RunKind, str(spec.WhichOneof("spec"))),
    }


async def test_exclusive_runs_that_wait_go_in_order_one_at_a_time(catalog: ServedCatalog, bucket: str) -> None:
    for _ in range(3):
        await create(catalog, a_create(bucket, lock_timeout_seconds=600))
    for seq in (1, 2, 3):
        run = await claim(catalog)
        assert run is not None
        assert run.seq == seq
        assert await claim(catalog, "e2") is None
        await finish(catalog, run)


async def test_a_run_that_waited_for_the_bucket_too_long_fails_and_names_the_holder(
    catalog: ServedCatalog, bucket: str, clock: ShiftedClock
) -> None:
    holder = await create(catalog, a_create(bucket))
    waiting = await create(catalog, a_create(bucket, lock_timeout_seconds=5))
    clock.advance(timedelta(seconds=6))
    last = [event async for event in watch(catalog, waiting)][-1]
    run = await get(catalog, waiting)
    assert run.state == pb.RUN_STATE_FAILED
    assert run.result.failures[0].kind == events.FAILURE_KIND_BUCKET_HELD
    assert holder.run_id in run.result.message
    assert last.run_finished.result == run.result


async def test_a_wait_is_not_over_once_the_bucket_is_free(catalog: ServedCatalog, bucket: str, clock: ShiftedClock) -> None:
    holder = await create(catalog, a_create(bucket))
    waiting = await create(catalog, a_create(bucket, lock_timeout_seconds=5))
    await catalog.local.runs.CancelRun(pb.CancelRunRequest(bucket_id=bucket, run_id=holder.run_id))
    clock.advance(timedelta(seconds=60))
    claimed = await must_claim(catalog)
    assert claimed.run_id == waiting.run_id


async def test_a_run_started_in_a_hook_joins_its_parents_hold_instead_of_waiting_for_it(
    catalog: ServedCatalog, bucket: str
) -> None:
    await create(catalog, a_create(bucket))
    parent = await must_claim(catalog)
    stranger = await create(catalog, a_create(bucket, lock_timeout_seconds=600))
    child = await create(catalog, a_create(bucket, BUILD, parent_run_id=parent.run_id))
    claimed = await must_claim(catalog)
    assert claimed.run_id == child.run_id
    await finish(catalog, parent)
    assert await claim(catalog) is None, "the stranger waits for the whole hold"
    await finish(catalog, claimed)
    after = await must_claim(catalog)
    assert after.run_id == stranger.run_id


async def test_nothing_can_be_started_in_the_hooks_of_a_run_that_ended(catalog: ServedCatalog, bucket: str) -> None:
    await create(catalog, a_create(bucket))
    parent = await must_claim(catalog)
    await finish(catalog, parent)
    with pytest.raises(RemoteError) as caught:
        await create(catalog, a_create(bucket, BUILD, parent_run_id=parent.run_id))
    assert caught.value.code == "run_ended"


async def test_a_run_in_the_hooks_of_one_that_holds_nothing_waits_like_any_other(catalog: ServedCatalog, bucket: str) -> None:
    parent = await create(catalog, a_create(bucket, COMMAND))
    await create(catalog, a_create(bucket))
    with pytest.raises(RemoteError, match="the bucket is held"):
        await create(catalog, a_create(bucket, parent_run_id=parent.run_id))


async def test_cancelling_goes_from_after_the_batch_to_now(catalog: ServedCatalog, bucket: str) -> None:
    await create(catalog, a_create(bucket))
    run = await must_claim(catalog)
    request = pb.CancelRunRequest(bucket_id=bucket, run_id=run.run_id)
    levels = [(await catalog.local.runs.CancelRun(request)).cancel for _ in range(3)]
    assert levels == [pb.CANCEL_LEVEL_AFTER_BATCH, pb.CANCEL_LEVEL_NOW, pb.CANCEL_LEVEL_NOW]
    assert (await get(catalog, run)).state == pb.RUN_STATE_RUNNING


async def test_a_pending_run_is_cancelled_at_once_and_its_stream_ends(catalog: ServedCatalog, bucket: str) -> None:
    run = await create(catalog, a_create(bucket))
    await catalog.local.runs.CancelRun(pb.CancelRunRequest(bucket_id=bucket, run_id=run.run_id, requested_by="bob@desk"))
    seen = [event async for event in watch(catalog, run)]
    assert [event.WhichOneof("event") for event in seen] == ["run_finished"]
    ended = await get(catalog, run)
    assert ended.state == pb.RUN_STATE_CANCELLED
    assert ended.message == "cancelled by bob@desk before it started"
    assert await claim(catalog) is None


async def test_a_run_that_ended_can_be_neither_cancelled_nor_resumed(catalog: ServedCatalog, bucket: str) -> None:
    await create(catalog, a_create(bucket))
    run = await must_claim(catalog)
    await finish(catalog, run, pb.RUN_STATE_FAILED)
    with pytest.raises(RemoteError) as caught, remote_errors():
        await catalog.local.runs.CancelRun(pb.CancelRunRequest(bucket_id=bucket, run_id=run.run_id))
    assert caught.value.code == "run_ended"
    with pytest.raises(RemoteError) as caught, remote_errors():
        await catalog.local.runs.ResumeRun(pb.ResumeRunRequest(bucket_id=bucket, run_id=run.run_id))
    assert caught.value.code == "run_not_interrupted"


async def test_runs_are_listed_newest_first_in_pages(catalog: ServedCatalog, bucket: str) -> None:
    for spec in (COMMAND, HEALTH, COMMAND, HEALTH, COMMAND):
        await create(catalog, a_create(bucket, spec))
    request = pb.ListRunsRequest(bucket_id=bucket, kinds=[specs.RUN_KIND_RUN_COMMAND], page_size=2)
    first = await catalog.local.runs.ListRuns(request)
    second = await catalog.local.runs.ListRuns(
        pb.ListRunsRequest(bucket_id=bucket, kinds=[specs.RUN_KIND_RUN_COMMAND], page_size=2, page_token=first.next_page_token)
    )
    assert [run.seq for run in (*first.runs, *second.runs)] == [5, 3, 1]
    assert second.next_page_token == ""


async def test_runs_are_listed_by_the_state_that_readers_see(catalog: ServedCatalog, bucket: str, clock: ShiftedClock) -> None:
    await create(catalog, a_create(bucket, COMMAND))
    await claim(catalog)
    clock.advance(timedelta(minutes=1))
    for state, count in ((pb.RUN_STATE_RUNNING, 0), (pb.RUN_STATE_INTERRUPTED, 1), (pb.RUN_STATE_PENDING, 0)):
        listed = await catalog.local.runs.ListRuns(pb.ListRunsRequest(bucket_id=bucket, states=[state]))
        assert len(listed.runs) == count


async def test_hook_env_is_stored_sealed_given_to_the_executor_and_forgotten_at_the_end(
    catalog: ServedCatalog, bucket: str
) -> None:
    await create(catalog, a_create(bucket, hook_env={"TOKEN": "very-secret-value"}))
    stored = await catalog.database.read(lambda tx: tx.connection.execute(text("SELECT sealed_hook_env, spec FROM runs")).one())
    assert stored[0]
    assert b"very-secret-value" not in bytes(stored[0]) + bytes(stored[1])
    claimed = await catalog.local.runs.ClaimRun(pb.ClaimRunRequest(executor_id="e1"))
    assert dict(claimed.hook_env) == {"TOKEN": "very-secret-value"}
    await finish(catalog, claimed.run)
    left = await catalog.database.read(lambda tx: tx.connection.execute(text("SELECT sealed_hook_env FROM runs")).scalar_one())
    assert bytes(left) == b""


def run_target(target: str = "") -> specs.RunSpec:
    """Make the spec of a run of one make target."""
    return specs.RunSpec(job_control=specs.JobControlSpec(job="a", action=specs.JOB_ACTION_RUN, target=target))


BAD_REQUESTS = {
    "no operation": (a_create(NOWHERE, specs.RunSpec()), "invalid_argument"),
    "no snapshot": (a_create(NOWHERE, specs.RunSpec(build=specs.BuildSpec())), "invalid_argument"),
    "no command": (a_create(NOWHERE, specs.RunSpec(run_command=specs.RunCommandSpec())), "invalid_argument"),
    "no hook": (a_create(NOWHERE, specs.RunSpec(hooks=specs.HooksSpec())), "invalid_argument"),
    "no action": (a_create(NOWHERE, specs.RunSpec(job_control=specs.JobControlSpec(job="a"))), "invalid_argument"),
    "no target": (a_create(NOWHERE, run_target()), "invalid_argument"),
    "an option as target": (a_create(NOWHERE, run_target("--eval=$(shell id)")), "invalid_argument"),
    "a short option as target": (a_create(NOWHERE, run_target("-n")), "invalid_argument"),
    "a variable as target": (a_create(NOWHERE, run_target("SHELL=/tmp/x")), "invalid_argument"),
    "a target with control characters": (a_create(NOWHERE, run_target("a\nb")), "invalid_argument"),
    "no probe": (a_create(NOWHERE, specs.RunSpec(worker_probe=specs.WorkerProbeSpec())), "invalid_argument"),
    "a bucket that is no UUID": (a_create("../etc"), "invalid_argument"),
    "an unknown bucket": (a_create(NOWHERE), "not_found"),
    "a parent that is no UUID": (a_create(NOWHERE, parent_run_id="x"), "invalid_argument"),
    "a huge requester": (pb.CreateRunRequest(bucket_id=NOWHERE, spec=DEPLOY, requested_by="x" * 300), "limit_exceeded"),
    "control characters": (pb.CreateRunRequest(bucket_id=NOWHERE, spec=DEPLOY, requested_by="a\x00b"), "invalid_argument"),
    "control characters beyond ASCII": (
        pb.CreateRunRequest(bucket_id=NOWHERE, spec=DEPLOY, requested_by="a\x9b2J"),
        "invalid_argument",
    ),
    "a huge request id": (a_create(NOWHERE, request_id="x" * 200), "limit_exceeded"),
    "a huge spec": (
        a_create(NOWHERE, specs.RunSpec(run_command=specs.RunCommandSpec(command="x" * 2_000_000))),
        "limit_exceeded",
    ),
    "a huge hook_env": (a_create(NOWHERE, hook_env={"A": "x" * 300_000}), "limit_exceeded"),
    "an endless lock wait": (a_create(NOWHERE, lock_timeout_seconds=2**31), "limit_exceeded"),
}


@pytest.mark.parametrize(("request_", "code"), BAD_REQUESTS.values(), ids=BAD_REQUESTS.keys())
async def test_a_bad_request_is_refused_with_its_code_and_nothing_is_created(
    catalog: ServedCatalog, request_: pb.CreateRunRequest, code: str
) -> None:
    with pytest.raises(RemoteError) as caught:
        await create(catalog, request_)
    assert caught.value.code == code
    assert await catalog.database.read(lambda tx: tx.connection.execute(text("SELECT count(*) FROM runs")).scalar_one()) == 0


async def test_a_run_of_another_bucket_is_not_found(catalog: ServedCatalog, bucket: str) -> None:
    run = await create(catalog, a_create(bucket))
    other = await a_bucket(catalog.database)
    with pytest.raises(RemoteError) as caught, remote_errors():
        await catalog.local.runs.GetRun(pb.GetRunRequest(bucket_id=other, run_id=run.run_id))
    assert caught.value.code == "not_found"


async def test_viewers_look_operators_ask_executors_run(catalog: ServedCatalog, bucket: str) -> None:
    anonymous = catalog.anonymous()
    asked = await create(catalog, a_create(bucket, HEALTH))
    view = pb.GetRunRequest(bucket_id=bucket, run_id=asked.run_id)
    ask, run = a_create(bucket, HEALTH), pb.ClaimRunRequest(executor_id="e1")
    allowed = {Role.VIEWER: "view", Role.OPERATOR: "view ask", Role.EXECUTOR: "view run", Role.GATEWAY: ""}
    for role, acts in allowed.items():
        metadata = await catalog.token_for(role)
        outcome = {
            "view": await may(anonymous.runs.GetRun(view, metadata=metadata)),
            "ask": await may(anonymous.runs.CreateRun(ask, metadata=metadata)),
            "run": await may(anonymous.runs.ClaimRun(run, metadata=metadata)),
        }
        assert " ".join(act for act, allowed_ in outcome.items() if allowed_) == acts, role


async def may(call: object) -> bool:
    """Whether a call got through; anything but PERMISSION_DENIED is a failure of the test."""
    try:
        with remote_errors():
            await call  # type: ignore[misc]
    except RemoteError as error:
        if error.code != "permission_denied":
            raise
        return False
    return True
