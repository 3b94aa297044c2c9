"""Calls to the catalog: patience where a repeat is allowed, facts from messages, contents that arrive in pieces."""

import inspect
from collections.abc import AsyncIterator, Callable, Iterable
from types import SimpleNamespace
from typing import Any

import grpc
import pytest

from maand_contracts.catalog.v1 import allocation_pb2, bucket_pb2, invocation_pb2, job_pb2, kv_pb2, workspace_pb2
from maand_executor.catalog_client import CatalogClient
from maand_executor.catalog_client.allocations import cut_in_chunks, to_views
from maand_executor.catalog_client.calls import call_catalog
from maand_executor.catalog_client.conversions import (
    from_allocation,
    from_invocation_end,
    from_move,
    to_allocation,
    to_config,
    to_job,
)
from maand_executor.catalog_client.fleet import FleetCalls
from maand_executor.catalog_client.runs import RunCalls
from maand_executor.rules.facts import (
    Allocation,
    AllocationMove,
    AllocationState,
    HostKeyPolicy,
    HttpProbe,
    InvocationEnd,
    InvocationOutcome,
    InvocationStart,
    PlannedFile,
    RestartPolicy,
    RunIdentity,
    SshProbe,
)
from maand_wire.channels import open_channel
from maand_wire.endpoints import Endpoint
from maand_wire.enums import enum_number
from maand_wire.errors import RemoteError

GET = bucket_pb2.GetBucketRequest(bucket_id="b")


class Away(grpc.RpcError):
    """What gRPC raises when nobody answers."""

    def __init__(self, status: grpc.StatusCode = grpc.StatusCode.UNAVAILABLE) -> None:
        self._status = status

    def code(self) -> grpc.StatusCode:
        return self._status

    def details(self) -> str:
        return "nobody answers"

    def trailing_metadata(self) -> tuple[()]:
        return ()


def method(*answers: object) -> tuple[Any, list[float]]:
    """Make a method that gives these answers in turn; it remembers the timeouts it was called with."""
    left, timeouts = list(answers), list[float]()

    async def answer(request: object, timeout: float) -> object:  # noqa: ASYNC109 - the signature of a stub
        timeouts.append(timeout)
        given = left.pop(0)
        if isinstance(given, Exception):
            raise given
        return given

    return answer, timeouts


async def test_a_repeatable_call_waits_for_a_catalog_that_restarts() -> None:
    stub, timeouts = method(Away(), Away(), "answer")
    assert await call_catalog(stub, GET, repeatable=True) == "answer"
    assert timeouts == [15.0] * 3


async def test_a_call_that_must_not_be_repeated_is_made_once() -> None:
    stub, timeouts = method(Away(), "answer")
    with pytest.raises(RemoteError):
        await call_catalog(stub, GET, repeatable=False)
    assert len(timeouts) == 1


async def test_hooks_begin_although_the_catalog_restarts_at_that_moment() -> None:
    begun = invocation_pb2.BegunInvocation(invocation_id="i1", token="a-token")
    stub, timeouts = method(Away(), invocation_pb2.BeginInvocationsResponse(invocations=[begun]))
    async with open_channel(Endpoint(address="unix:none")) as channel:
        calls = RunCalls(channel)
        calls._invocations = SimpleNamespace(BeginInvocations=stub)  # type: ignore[assignment]  # as far as it is called
        run = RunIdentity(bucket_id="b", run_id="r", seq=1, fence=1)
        start = InvocationStart(allocation_id="a1", hook="hook_a", event="cli")
        assert [one.invocation_id for one in await calls.begin_invocations(run, [start])] == ["i1"]
    assert len(timeouts) == 2


async def test_a_refusal_is_not_repeated() -> None:
    stub, timeouts = method(Away(grpc.StatusCode.NOT_FOUND), "answer")
    with pytest.raises(RemoteError, match="nobody answers"):
        await call_catalog(stub, GET, repeatable=True)
    assert len(timeouts) == 1


def test_every_state_and_outcome_of_the_contract_is_known() -> None:
    for state in allocation_pb2.AllocationState.values()[1:]:
        assert enum_number(allocation_pb2.AllocationState, to_allocation(allocation_pb2.Allocation(state=state)).state) == state
    told = [from_invocation_end(InvocationEnd(invocation_id="i", outcome=outcome)).outcome for outcome in InvocationOutcome]
    assert sorted(told) == sorted(invocation_pb2.InvocationOutcome.values()[1:])


def test_a_move_leaves_out_what_stays_as_it_is() -> None:
    bare = from_move(AllocationMove(allocation_id="id", to_state=AllocationState.FAILED, message="no"))
    assert bare == allocation_pb2.AllocationMove(
        allocation_id="id", to_state=allocation_pb2.ALLOCATION_STATE_FAILED, message="no"
    )
    files = (PlannedFile(path="a", mode=0o600, sha256=b"1"),)
    full = from_move(AllocationMove(allocation_id="id", to_state=AllocationState.PROMOTED, deployed_files=files))
    assert [(file.path, file.mode) for file in full.deployed_files] == [("a", 0o600)]


def test_a_job_becomes_facts() -> None:
    probes = [
        job_pb2.HealthProbe(http=job_pb2.HttpProbe(port=80, path="/x", expect_status=204, scheme=job_pb2.HTTP_SCHEME_HTTPS)),
        job_pb2.HealthProbe(ssh=job_pb2.SshProbe(command="true")),
    ]
    job = to_job(
        job_pb2.Job(
            name="api",
            restart_policy=job_pb2.RESTART_POLICY_RELOAD,
            hooks=[
                job_pb2.Hook(name="hook_b", executed_on=[job_pb2.HOOK_EVENT_CLI]),
                job_pb2.Hook(name="hook_a", executed_on=[job_pb2.HOOK_EVENT_CLI]),
            ],
            health_check=job_pb2.HealthCheck(probes=probes, timeout_seconds=3),
        )
    )
    assert job.restart_policy is RestartPolicy.RELOAD
    assert [hook.name for hook in job.hooks_on("cli")] == ["hook_a", "hook_b"]
    assert job.health_check is not None
    assert job.health_check.probes == (
        HttpProbe(port=80, path="/x", expect_status=204, scheme="https"),
        SshProbe(command="true"),
    )


def test_a_bucket_that_was_never_built_is_known_as_such() -> None:
    config = to_config(
        bucket_pb2.Bucket(bucket_id="b", config=bucket_pb2.BucketConfig(host_keys=bucket_pb2.HOST_KEY_POLICY_ACCEPT_NEW))
    )
    assert not config.built
    assert config.host_keys is HostKeyPolicy.ACCEPT_NEW


def test_an_allocation_is_active_when_it_is_neither_removed_nor_disabled() -> None:
    assert to_allocation(allocation_pb2.Allocation()).active
    assert not to_allocation(allocation_pb2.Allocation(removed=True)).active
    assert not to_allocation(allocation_pb2.Allocation(disabled=True)).active


def test_parts_of_a_namespace_add_up() -> None:
    def content(**values: str) -> kv_pb2.ReadAllocationViewsResponse:
        return kv_pb2.ReadAllocationViewsResponse(content=kv_pb2.NamespaceContent(namespace="n", values=values, secret=True))

    view = kv_pb2.AllocationView(allocation_id="id", namespaces=["n"])
    views = to_views([content(a="1"), content(b="2"), kv_pb2.ReadAllocationViewsResponse(view=view)])
    assert views.namespaces["n"].values == {"a": "1", "b": "2"}
    assert views.namespaces["n"].secret
    assert views.readable == {"id": frozenset({"n"})}


def test_ids_are_asked_for_in_calls_of_a_thousand() -> None:
    assert [len(part) for part in cut_in_chunks([str(n) for n in range(2500)])] == [1000, 1000, 500]
    assert [list(part) for part in cut_in_chunks([])] == [[]]


# Contents ---------------------------------------------------------------------------------------------------------------


def piece(digest: bytes, data: bytes, *, last: bool) -> workspace_pb2.ReadBlobsResponse:
    return workspace_pb2.ReadBlobsResponse(sha256=digest, data=data, last=last)


def blobs(*streams: Iterable[object]) -> tuple[FleetCalls, list[list[bytes]]]:
    """Make calls whose ReadBlobs gives these streams in turn; it remembers what was asked for."""
    left, asked = list(streams), list[list[bytes]]()

    def read(request: workspace_pb2.ReadBlobsRequest, timeout: float) -> AsyncIterator[object]:
        asked.append(list(request.sha256))
        return play(left.pop(0))

    calls = FleetCalls(open_channel(Endpoint(address="unix:none")))
    calls._workspaces.ReadBlobs = read  # type: ignore[assignment]  # a stub's method is an attribute
    return calls, asked


async def play(stream: Iterable[object]) -> AsyncIterator[object]:
    for item in stream:
        if isinstance(item, Exception):
            raise item
        yield item


async def test_contents_come_in_pieces_with_their_offsets() -> None:
    calls, asked = blobs([piece(b"1", b"ab", last=False), piece(b"1", b"c", last=True), piece(b"2", b"", last=True)])
    pieces = [(one.sha256, one.offset, one.data, one.last) async for one in calls.read_blobs("b", [b"1", b"2", b"1"])]
    assert pieces == [(b"1", 0, b"ab", False), (b"1", 2, b"c", True), (b"2", 0, b"", True)]
    assert asked == [[b"1", b"2"]]


async def test_after_a_broken_stream_only_unfinished_contents_begin_anew() -> None:
    first = [piece(b"1", b"a", last=True), piece(b"2", b"b", last=False), Away()]
    calls, asked = blobs(first, [piece(b"2", b"bc", last=True)])
    offsets = [(one.sha256, one.offset) async for one in calls.read_blobs("b", [b"1", b"2"])]
    assert offsets == [(b"1", 0), (b"2", 0), (b"2", 0)]
    assert asked == [[b"1", b"2"], [b"2"]]


def test_every_call_is_a_coroutine_named_after_an_intention() -> None:
    def is_async(member: Callable[..., object]) -> bool:
        return inspect.iscoroutinefunction(member) or inspect.isasyncgenfunction(member)

    members = {name: member for name, member in inspect.getmembers(CatalogClient, callable) if not name.startswith("_")}
    assert all(is_async(member) for member in members.values())


def test_another_executor_is_not_told_what_happened_to_an_allocation() -> None:
    known = Allocation(
        allocation_id="a", job="api", worker="10.0.0.1", index=2, disabled=True, current_version="1.0.0", new_version="2.0.0",
        deployed_sha256=b"1" * 32, state=AllocationState.FAILED, message="x" * 4000, post_deploy_owed=True, start_owed=True,
    )  # fmt: skip
    told = from_allocation(known)
    assert (told.index, told.disabled, told.current_version, told.new_version) == (2, True, "1.0.0", "2.0.0")
    assert (told.message, told.deployed_sha256, told.post_deploy_owed, told.start_owed) == ("", b"", False, False)
