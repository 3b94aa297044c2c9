"""Who may call at all: tokens of hooks, people and services; when they die; what they may claim about themselves."""

from collections.abc import Awaitable, Sequence
from datetime import timedelta

import grpc
import pytest
from grpc_health.v1 import health_pb2
from sqlalchemy import text

from maand_catalog.database.database import Transaction
from maand_catalog.rules.identity import HookCaller, Role, token_digest
from maand_catalog.store.runs.invocations import find_hook_caller
from maand_contracts.catalog.v1 import invocation_pb2, job_pb2, semaphore_pb2, semaphore_pb2_grpc, token_pb2
from maand_contracts.catalog.v1 import run_pb2 as pb
from maand_wire.channels import HOOK_CALLER, bearer_header
from maand_wire.errors import RemoteError, remote_errors
from tests.contracts.catalog.conftest import ShiftedClock
from tests.contracts.catalog.run_builders import HEALTH, NOWHERE, a_bucket, a_create, an_allocation
from tests.contracts.catalog.run_verbs import claim, create, finish, must_claim, renew
from tests.contracts.catalog.serving import Client, Metadata, ServedCatalog

pytestmark = pytest.mark.usefixtures("catalog")


class Hook:
    """A running hook: its run, its allocation, its token."""

    def __init__(self, run: pb.Run, allocation_id: str, begun: invocation_pb2.BegunInvocation) -> None:
        self.run = run
        self.allocation_id = allocation_id
        self.invocation_id = begun.invocation_id
        self.token = begun.token


@pytest.fixture
async def hook(catalog: ServedCatalog) -> Hook:
    bucket = await a_bucket(catalog.database)
    allocation_id = await an_allocation(catalog.database, bucket)
    await create(catalog, a_create(bucket, HEALTH))
    run = await must_claim(catalog)
    return Hook(run, allocation_id, (await begin(catalog, run, allocation_id))[0])


async def begin(catalog: ServedCatalog, run: pb.Run, *allocation_ids: str) -> Sequence[invocation_pb2.BegunInvocation]:
    starts = [
        invocation_pb2.InvocationStart(allocation_id=allocation_id, hook="hook_a", event=job_pb2.HOOK_EVENT_CLI)
        for allocation_id in allocation_ids
    ]
    with remote_errors():
        response = await catalog.local.invocations.BeginInvocations(
            invocation_pb2.BeginInvocationsRequest(
                bucket_id=run.bucket_id, run_id=run.run_id, fence=run.fence, invocations=starts
            )
        )
    return response.invocations


async def end(catalog: ServedCatalog, hook: Hook, bucket_id: str = "") -> None:
    ends = [invocation_pb2.InvocationEnd(invocation_id=hook.invocation_id, outcome=invocation_pb2.INVOCATION_OUTCOME_SUCCEEDED)]
    request = invocation_pb2.EndInvocationsRequest(bucket_id=bucket_id or hook.run.bucket_id, invocations=ends)
    with remote_errors():
        await catalog.local.invocations.EndInvocations(request)


async def knock(client: Client, metadata: Metadata) -> str:
    """Call what any hook may call, and return the code of the refusal; empty when let in."""
    stub = semaphore_pb2_grpc.SemaphoreServiceStub(client.channel)
    try:
        with remote_errors():
            await stub.GetStatus(semaphore_pb2.GetStatusRequest(name="door"), metadata=metadata)
    except RemoteError as error:
        return error.code
    return ""


async def test_a_hook_token_stands_for_exactly_its_invocation(catalog: ServedCatalog, hook: Hook) -> None:
    caller = await catalog.database.read(lambda tx: find_hook_caller(tx, token_digest(hook.token)))
    assert caller == HookCaller(
        bucket_id=hook.run.bucket_id,
        run_id=hook.run.run_id,
        invocation_id=hook.invocation_id,
        job="api",
        allocation_id=hook.allocation_id,
        worker="10.0.0.1",
        hook="hook_a",
        event="cli",
    )
    assert await knock(catalog.local, [bearer_header(hook.token), HOOK_CALLER]) == ""
    assert await knock(catalog.anonymous(), [bearer_header(hook.token)]) == ""


async def test_a_hook_token_is_dead_the_moment_its_end_returned(catalog: ServedCatalog, hook: Hook) -> None:
    assert await knock(catalog.local, [bearer_header(hook.token)]) == ""
    await end(catalog, hook)
    assert await knock(catalog.local, [bearer_header(hook.token)]) == "unauthenticated"
    await end(catalog, hook)


async def test_a_hook_token_dies_with_its_runs_lease(catalog: ServedCatalog, hook: Hook, clock: ShiftedClock) -> None:
    clock.advance(timedelta(seconds=10))
    await renew(catalog, hook.run)
    clock.advance(timedelta(seconds=10))
    assert await knock(catalog.local, [bearer_header(hook.token)]) == ""
    clock.advance(timedelta(seconds=10))
    assert await knock(catalog.local, [bearer_header(hook.token)]) == "unauthenticated"


async def test_a_hook_token_of_the_old_owner_is_dead_after_a_takeover(
    catalog: ServedCatalog, hook: Hook, clock: ShiftedClock
) -> None:
    clock.advance(timedelta(minutes=1))
    taken_over = await must_claim(catalog, "e2")
    assert await knock(catalog.local, [bearer_header(hook.token)]) == "unauthenticated"
    fresh = (await begin(catalog, taken_over, hook.allocation_id))[0]
    assert await knock(catalog.local, [bearer_header(fresh.token)]) == ""


async def test_a_hook_token_dies_when_its_run_ends_and_its_invocation_is_recorded_as_interrupted(
    catalog: ServedCatalog, hook: Hook
) -> None:
    await finish(catalog, hook.run)
    assert await knock(catalog.local, [bearer_header(hook.token)]) == "unauthenticated"
    outcome = await catalog.database.read(lambda tx: tx.connection.execute(text("SELECT outcome FROM invocations")).scalar_one())
    assert outcome == "interrupted"


async def test_an_invocation_is_ended_by_nobody_but_its_own_bucket(catalog: ServedCatalog, hook: Hook) -> None:
    await end(catalog, hook, bucket_id=NOWHERE)
    assert await knock(catalog.local, [bearer_header(hook.token)]) == ""


@pytest.mark.parametrize(
    ("claimed", "code"),
    [
        (("maand-claimed-hook", "hook_a"), ""),
        (("maand-claimed-event", "cli"), ""),
        (("maand-claimed-hook", "hook_b"), "identity_mismatch"),
        (("maand-claimed-event", "pre_deploy"), "identity_mismatch"),
        (("maand-claimed-allocation", NOWHERE), "identity_mismatch"),
        (("maand-claimed-allocation", ""), "identity_mismatch"),
    ],
)
async def test_headers_can_claim_nothing_that_the_token_does_not(
    catalog: ServedCatalog, hook: Hook, claimed: tuple[str, str], code: str
) -> None:
    assert await knock(catalog.local, [bearer_header(hook.token), HOOK_CALLER, claimed]) == code


async def test_a_call_made_for_a_hook_needs_a_live_hook_token_whatever_the_peer(catalog: ServedCatalog, hook: Hook) -> None:
    operator = await catalog.token_for(Role.OPERATOR)
    for client in (catalog.local, catalog.anonymous()):
        assert await knock(client, [HOOK_CALLER]) == "unauthenticated"
        assert await knock(client, [HOOK_CALLER, *operator]) == "unauthenticated"
        assert await knock(client, [HOOK_CALLER, bearer_header("mh_" + "x" * 43)]) == "unauthenticated"
        assert await knock(client, [HOOK_CALLER, bearer_header(hook.token)]) == ""


async def test_a_hook_may_not_do_what_people_and_executors_do(catalog: ServedCatalog, hook: Hook) -> None:
    metadata = [bearer_header(hook.token)]
    view = pb.GetRunRequest(bucket_id=hook.run.bucket_id, run_id=hook.run.run_id)
    calls: list[Awaitable[object]] = [
        catalog.local.runs.GetRun(view, metadata=metadata),
        catalog.local.runs.CreateRun(a_create(hook.run.bucket_id, HEALTH), metadata=metadata),
        catalog.local.runs.ClaimRun(pb.ClaimRunRequest(executor_id="e"), metadata=metadata),
        catalog.local.tokens.ListTokens(token_pb2.ListTokensRequest(), metadata=metadata),
        catalog.local.invocations.EndInvocations(invocation_pb2.EndInvocationsRequest(), metadata=metadata),
    ]
    for call in calls:
        with pytest.raises(RemoteError) as caught, remote_errors():
            await call
        assert caught.value.code == "permission_denied"


async def test_over_tcp_nobody_is_let_in_without_a_valid_token(catalog: ServedCatalog) -> None:
    anonymous = catalog.anonymous()
    for metadata in ([], [bearer_header("whatever")], [("authorization", "Basic abc")], [("authorization", "")]):
        with pytest.raises(RemoteError) as caught, remote_errors():
            await anonymous.tokens.ListTokens(token_pb2.ListTokensRequest(), metadata=metadata)
        assert (caught.value.status, caught.value.code) == (grpc.StatusCode.UNAUTHENTICATED, "unauthenticated")


async def test_a_token_nobody_was_given_is_told_from_none_at_all(catalog: ServedCatalog) -> None:
    with pytest.raises(RemoteError, match="this API token is unknown here") as caught, remote_errors():
        await catalog.anonymous().tokens.ListTokens(token_pb2.ListTokensRequest(), metadata=[bearer_header("ma_unknown")])
    assert (caught.value.status, caught.value.code) == (grpc.StatusCode.UNAUTHENTICATED, "token_unknown")


async def test_health_is_public(catalog: ServedCatalog) -> None:
    check = catalog.anonymous().channel.unary_unary(
        "/grpc.health.v1.Health/Check",
        request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
        response_deserializer=health_pb2.HealthCheckResponse.FromString,
    )
    answer = await check(health_pb2.HealthCheckRequest(service="maand.catalog.v1.RunService"))
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


async def test_invocations_begin_all_or_none_and_under_the_current_fence_only(catalog: ServedCatalog, hook: Hook) -> None:
    with pytest.raises(RemoteError) as caught:
        await begin(catalog, hook.run, hook.allocation_id, NOWHERE)
    assert caught.value.code == "not_found"
    hook.run.fence = 7
    with pytest.raises(RemoteError) as caught:
        await begin(catalog, hook.run, hook.allocation_id)
    assert caught.value.code == "stale_fence"
    count = await catalog.database.read(lambda tx: tx.connection.execute(text("SELECT count(*) FROM invocations")).scalar_one())
    assert count == 1


async def test_what_a_lost_answer_began_does_no_harm_to_what_its_repeat_began_and_ends_with_the_claim(
    catalog: ServedCatalog, hook: Hook
) -> None:
    again = Hook(hook.run, hook.allocation_id, (await begin(catalog, hook.run, hook.allocation_id))[0])
    assert again.token != hook.token
    await end(catalog, again)
    assert await knock(catalog.local, [bearer_header(again.token)]) == "unauthenticated"
    await finish(catalog, hook.run)
    assert await knock(catalog.local, [bearer_header(hook.token)]) == "unauthenticated"


async def test_no_token_is_stored_in_clear(catalog: ServedCatalog, hook: Hook) -> None:
    created = await catalog.local.tokens.CreateToken(token_pb2.CreateTokenRequest(name="ci", role=token_pb2.ROLE_VIEWER))
    assert created.secret.startswith("ma_")
    assert hook.token.startswith("mh_")
    stored = repr(await catalog.database.read(everything_about_identity))
    assert created.secret not in stored
    assert hook.token not in stored


def everything_about_identity(tx: Transaction) -> list[object]:
    tables = ("api_tokens", "audit_records", "invocations", "runs")
    return [tx.connection.execute(text(f"SELECT * FROM {table}")).all() for table in tables]


async def test_a_created_token_works_until_it_is_revoked(catalog: ServedCatalog) -> None:
    created = await catalog.local.tokens.CreateToken(token_pb2.CreateTokenRequest(name="ci", role=token_pb2.ROLE_OPERATOR))
    client, metadata = catalog.anonymous(), [bearer_header(created.secret)]
    listed = await client.tokens.ListTokens(token_pb2.ListTokensRequest(), metadata=metadata)
    assert list(listed.tokens) == [created.token]
    for _ in range(2):
        await catalog.local.tokens.RevokeToken(token_pb2.RevokeTokenRequest(token_id=created.token.token_id))
    with pytest.raises(RemoteError) as caught, remote_errors():
        await client.tokens.ListTokens(token_pb2.ListTokensRequest(), metadata=metadata)
    assert caught.value.code == "token_revoked"


async def test_a_token_with_an_end_stops_working_then(catalog: ServedCatalog, clock: ShiftedClock) -> None:
    request = token_pb2.CreateTokenRequest(name="ci", role=token_pb2.ROLE_OPERATOR, ttl_seconds=60)
    created = await catalog.local.tokens.CreateToken(request)
    client, metadata = catalog.anonymous(), [bearer_header(created.secret)]
    await client.tokens.ListTokens(token_pb2.ListTokensRequest(), metadata=metadata)
    clock.advance(timedelta(seconds=61))
    with pytest.raises(RemoteError) as caught, remote_errors():
        await client.tokens.ListTokens(token_pb2.ListTokensRequest(), metadata=metadata)
    assert caught.value.code == "token_expired"


async def test_what_is_done_with_tokens_is_audited_newest_first_in_pages(catalog: ServedCatalog) -> None:
    created = [
        await catalog.local.tokens.CreateToken(token_pb2.CreateTokenRequest(name=name, role=token_pb2.ROLE_VIEWER))
        for name in ("one", "two", "three")
    ]
    await catalog.local.tokens.RevokeToken(token_pb2.RevokeTokenRequest(token_id=created[0].token.token_id))
    first = await catalog.local.tokens.ListAuditRecords(token_pb2.ListAuditRecordsRequest(page_size=3))
    second = await catalog.local.tokens.ListAuditRecords(
        token_pb2.ListAuditRecordsRequest(page_size=3, page_token=first.next_page_token)
    )
    records = [*first.records, *second.records]
    assert [record.action for record in records] == ["token.revoke", *["token.create"] * 3]
    assert {record.actor for record in records} == {"local"}
    assert "three (viewer)" in records[1].subject
    assert second.next_page_token == ""


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (token_pb2.CreateTokenRequest(role=token_pb2.ROLE_VIEWER), "invalid_argument"),
        (token_pb2.CreateTokenRequest(name="x"), "invalid_argument"),
        (token_pb2.CreateTokenRequest(name="x" * 300, role=token_pb2.ROLE_VIEWER), "limit_exceeded"),
        (token_pb2.CreateTokenRequest(name="a\nb\x07", role=token_pb2.ROLE_VIEWER), "invalid_argument"),
        (token_pb2.CreateTokenRequest(name="x", role=token_pb2.ROLE_VIEWER, ttl_seconds=2**32 - 1), "invalid_argument"),
    ],
)
async def test_a_bad_token_request_is_refused(catalog: ServedCatalog, request_: token_pb2.CreateTokenRequest, code: str) -> None:
    with pytest.raises(RemoteError) as caught, remote_errors():
        await catalog.local.tokens.CreateToken(request_)
    assert caught.value.code == code
    assert not (await catalog.local.tokens.ListTokens(token_pb2.ListTokensRequest())).tokens


async def test_an_unknown_token_cannot_be_revoked(catalog: ServedCatalog) -> None:
    with pytest.raises(RemoteError) as caught, remote_errors():
        await catalog.local.tokens.RevokeToken(token_pb2.RevokeTokenRequest(token_id=NOWHERE))
    assert caught.value.code == "not_found"


async def test_a_gateway_may_nothing_by_itself(catalog: ServedCatalog) -> None:
    metadata = await catalog.token_for(Role.GATEWAY)
    assert await knock(catalog.anonymous(), metadata) == "permission_denied"
    assert await claim(catalog) is None
