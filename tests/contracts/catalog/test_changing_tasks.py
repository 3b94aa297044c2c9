"""Tasks that change workers, and tasks that run hooks: what a lapse makes of them, and how long their hooks' tokens live."""

from collections.abc import Sequence
from datetime import timedelta

import pytest
from sqlalchemy import select

from maand_catalog.store.tables.identity import invocations
from maand_contracts.catalog.v1 import allocation_pb2, invocation_pb2, job_pb2, run_pb2, semaphore_pb2, semaphore_pb2_grpc
from maand_contracts.catalog.v1 import run_event_pb2 as events
from maand_contracts.catalog.v1 import task_pb2 as pb
from maand_wire.channels import HOOK_CALLER, bearer_header
from maand_wire.errors import RemoteError, remote_errors
from tests.contracts.catalog.conftest import ShiftedClock
from tests.contracts.catalog.run_builders import DEPLOY, a_bucket, a_create, an_allocation
from tests.contracts.catalog.run_verbs import create, finish, must_claim
from tests.contracts.catalog.serving import ServedCatalog
from tests.contracts.catalog.task_verbs import (
    a_task,
    claim,
    done,
    end,
    ended,
    let_tasks_lapse,
    must_claim_task,
    refuses_everything,
    renew,
    split,
)

LIFECYCLE_WORK = pb.TaskSpec(
    lifecycle=pb.LifecycleTask(
        job="api",
        steps=[
            pb.LifecycleStep(
                allocation=allocation_pb2.Allocation(allocation_id="a1", worker="one-1", new_version="2.0.0"),
                copy_sha256=bytes(32),
                act=pb.LIFECYCLE_ACT_MAKE,
                target="restart",
            )
        ],
    )
)
HOOKS_WORK = pb.TaskSpec(
    hooks=pb.HooksTask(hook=job_pb2.Hook(name="hook_a", job="api"), event=job_pb2.HOOK_EVENT_PRE_DEPLOY, record_steps=True)
)
A_MINUTE = timedelta(minutes=1)
GIVEN = {"CLOUD_TOKEN": "only-for-hooks"}


@pytest.fixture
async def run(catalog: ServedCatalog) -> run_pb2.Run:
    """A deploy owned by the executor `owner`, with values for hooks."""
    await create(catalog, a_create(await a_bucket(catalog.database), DEPLOY, hook_env=GIVEN))
    return await must_claim(catalog, "owner")


async def begin(
    catalog: ServedCatalog, run: run_pb2.Run, task: pb.Task, *allocation_ids: str
) -> Sequence[invocation_pb2.BegunInvocation]:
    """Begin hooks under the claim of a task."""
    request = invocation_pb2.BeginInvocationsRequest(
        bucket_id=run.bucket_id,
        run_id=run.run_id,
        fence=task.fence,
        task_id=task.task_id,
        invocations=[
            invocation_pb2.InvocationStart(allocation_id=one, hook="hook_a", event=job_pb2.HOOK_EVENT_PRE_DEPLOY)
            for one in allocation_ids
        ],
    )
    with remote_errors():
        return (await catalog.local.invocations.BeginInvocations(request)).invocations


async def acquire(catalog: ServedCatalog, token: str, *, seconds: int = 0) -> str:
    """Ask for the only slot of `door` with a hook's token; return the code of the refusal, empty when it is held."""
    stub = semaphore_pb2_grpc.SemaphoreServiceStub(catalog.local.channel)
    request = semaphore_pb2.AcquireRequest(name="door", capacity=1, timeout_seconds=seconds, request_id=token)
    try:
        with remote_errors():
            await stub.Acquire(request, metadata=[bearer_header(token), HOOK_CALLER])
    except RemoteError as error:
        return error.code
    return ""


async def outcomes(catalog: ServedCatalog) -> list[str]:
    """Return how invocations ended, the oldest first."""
    query = select(invocations.c.outcome).order_by(invocations.c.invocation_id)
    return await catalog.database.read(lambda tx: list(tx.connection.execute(query).scalars()))


async def test_what_is_to_be_done_reaches_the_executor_that_claims_it_as_it_was_said(
    catalog: ServedCatalog, run: run_pb2.Run
) -> None:
    await split(catalog, run, a_task("one", LIFECYCLE_WORK), a_task("two", HOOKS_WORK))
    first, second = await must_claim_task(catalog), await must_claim_task(catalog)
    assert (first.spec.lifecycle, second.spec.hooks) == (LIFECYCLE_WORK.lifecycle, HOOKS_WORK.hooks)


async def test_values_of_hook_env_go_to_who_runs_hooks_and_to_nobody_else(catalog: ServedCatalog, run: run_pb2.Run) -> None:
    await split(catalog, run, a_task("one", LIFECYCLE_WORK), a_task("two", HOOKS_WORK))
    given = [dict((await catalog.local.tasks.ClaimTask(pb.ClaimTaskRequest(executor_id="helper"))).hook_env) for _ in range(2)]
    assert given == [{}, GIVEN]


async def test_a_lapsed_task_that_changes_workers_is_lost_with_what_was_known(
    catalog: ServedCatalog, run: run_pb2.Run, clock: ShiftedClock
) -> None:
    await split(catalog, run, a_task("one", LIFECYCLE_WORK))
    await renew(catalog, run, await must_claim_task(catalog, "dead"), done("one-1"))
    await let_tasks_lapse(catalog, run, clock)
    (told,) = await ended(catalog, run, seconds=30)
    assert (told.state, told.executor_id, list(told.outcomes)) == (pb.TASK_STATE_LOST, "dead", [done("one-1")])
    assert await claim(catalog) is None


async def test_a_lapsed_task_of_hooks_is_claimed_again_for_those_of_which_nothing_is_known(
    catalog: ServedCatalog, run: run_pb2.Run, clock: ShiftedClock
) -> None:
    await split(catalog, run, a_task("one", HOOKS_WORK))
    failed = pb.WorkerOutcome(worker="one-1", outcome=events.STEP_OUTCOME_FAILED, notices=["said before"])
    await renew(catalog, run, await must_claim_task(catalog, "dead"), failed)
    await let_tasks_lapse(catalog, run, clock)
    again = await must_claim_task(catalog, "helper", seconds=30)
    assert (again.fence, list(again.outcomes)) == (2, [failed])
    await end(catalog, run, again, done("one-2"))
    (told,) = await ended(catalog, run)
    assert (told.state, list(told.outcomes)) == (pb.TASK_STATE_FINISHED, [failed, done("one-2")])


async def test_a_token_made_under_a_task_dies_with_the_tasks_lease_although_the_run_goes_on(
    catalog: ServedCatalog, run: run_pb2.Run, clock: ShiftedClock
) -> None:
    allocation_id = await an_allocation(catalog.database, run.bucket_id)
    await split(catalog, run, a_task("one", HOOKS_WORK))
    task = await must_claim_task(catalog, "dead")
    (hook,) = await begin(catalog, run, task, allocation_id)
    assert await acquire(catalog, hook.token) == ""
    await let_tasks_lapse(catalog, run, clock)
    assert await acquire(catalog, hook.token) == "unauthenticated"

    again = await must_claim_task(catalog, "helper", seconds=30)
    (fresh,) = await begin(catalog, run, again, allocation_id)
    assert await acquire(catalog, fresh.token) == "", "the slot of the dead hook is free"
    assert await outcomes(catalog) == ["interrupted", None]
    with pytest.raises(RemoteError) as caught:
        await begin(catalog, run, task, allocation_id)
    assert caught.value.code == "stale_fence"


@pytest.mark.parametrize("given_up", [False, True])
async def test_tokens_of_a_task_die_with_its_end(catalog: ServedCatalog, run: run_pb2.Run, *, given_up: bool) -> None:
    allocation_id = await an_allocation(catalog.database, run.bucket_id)
    await split(catalog, run, a_task("one", HOOKS_WORK))
    task = await must_claim_task(catalog)
    (hook,) = await begin(catalog, run, task, allocation_id)
    await end(catalog, run, task, given_up=given_up)
    assert await acquire(catalog, hook.token) == "unauthenticated"
    assert await outcomes(catalog) == ["interrupted"]


async def test_tokens_of_a_task_die_with_its_run(catalog: ServedCatalog, run: run_pb2.Run) -> None:
    allocation_id = await an_allocation(catalog.database, run.bucket_id)
    await split(catalog, run, a_task("one", HOOKS_WORK))
    (hook,) = await begin(catalog, run, await must_claim_task(catalog), allocation_id)
    await finish(catalog, run)
    assert await acquire(catalog, hook.token) == "unauthenticated"


async def test_an_owner_drops_what_it_wants_no_more_and_who_works_on_it_is_refused(
    catalog: ServedCatalog, run: run_pb2.Run
) -> None:
    await split(catalog, run, *(a_task(name, HOOKS_WORK) for name in ("done", "begun", "waiting", "wanted")))
    first, begun = await must_claim_task(catalog), await must_claim_task(catalog)
    await end(catalog, run, first, done("done-1"), done("done-2"))
    for _ in range(2):
        await drop(catalog, run, "done", "begun", "waiting", "unheard of")
    told = [(task.name, task.state) for task in await ended(catalog, run)]
    assert told == [("done", pb.TASK_STATE_FINISHED), ("begun", pb.TASK_STATE_DROPPED), ("waiting", pb.TASK_STATE_DROPPED)]
    await refuses_everything(catalog, run, begun)
    assert (await must_claim_task(catalog)).name == "wanted"


async def test_only_the_owner_of_the_run_drops_its_tasks(catalog: ServedCatalog, run: run_pb2.Run, clock: ShiftedClock) -> None:
    await split(catalog, run, a_task("one", HOOKS_WORK))
    clock.advance(A_MINUTE)
    await must_claim(catalog, "e2")
    with pytest.raises(RemoteError) as caught:
        await drop(catalog, run, "one")
    assert caught.value.code == "stale_fence"


async def drop(catalog: ServedCatalog, run: run_pb2.Run, *names: str) -> None:
    request = pb.DropTasksRequest(bucket_id=run.bucket_id, run_id=run.run_id, fence=run.fence, names=names)
    with remote_errors():
        await catalog.local.tasks.DropTasks(request)


async def test_hooks_begin_under_no_task_of_another_run(catalog: ServedCatalog, run: run_pb2.Run) -> None:
    allocation_id = await an_allocation(catalog.database, run.bucket_id)
    await create(catalog, a_create(await a_bucket(catalog.database), DEPLOY))
    other = await must_claim(catalog, "owner")
    await split(catalog, other, a_task("one", HOOKS_WORK))
    theirs = await must_claim_task(catalog)
    with pytest.raises(RemoteError) as caught:
        await begin(catalog, run, theirs, allocation_id)
    assert caught.value.code in ("not_found", "stale_fence")
