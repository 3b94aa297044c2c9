"""Errors keep their words, codes and facts from a service to its caller, through a real server."""

import asyncio
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import grpc
import grpc.aio
import pytest
from structlog.testing import capture_logs

from maand_contracts.catalog.v1 import run_pb2, run_pb2_grpc
from maand_contracts.common.v1 import error_pb2
from maand_wire import servers
from maand_wire.channels import MAX_MESSAGE_BYTES, open_blocking_channel, open_channel
from maand_wire.endpoints import Endpoint
from maand_wire.errors import ErrorBoundary, RemoteError, remote_errors, to_snake_case


@dataclass
class Place:
    """A domain problem: any value with the contract's attributes."""

    code: str = "unknown_key"
    message: str = "unknown key"
    file: str = "workspace/jobs/api/manifest.json"
    line: int = 4
    column: int = 3
    help: str = 'did you mean "selectors"?'


class Lost(Exception):
    code = "precondition_lost"
    help = "read it again"
    facts = {"current_version": 7}


class InvalidThing(Exception):
    problems = (Place(),)


class InvalidThingOfAKind(InvalidThing):
    """Not in the table; its base is."""


class Failing:
    """As much of a RunService as these tests call."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __getattr__(self, name: str) -> None:
        """Every other method is missing, as for a service that does not implement it."""

    async def GetRun(self, request: run_pb2.GetRunRequest, context: object) -> run_pb2.GetRunResponse:
        raise self.error

    async def WatchRun(self, request: run_pb2.WatchRunRequest, context: object) -> AsyncIterator[run_pb2.WatchRunResponse]:
        yield run_pb2.WatchRunResponse()
        raise self.error


class Cancelling(Failing):
    """A RunService that breaks calls off."""

    def __init__(self) -> None:
        super().__init__(Lost("never reached"))

    async def GetRun(self, request: run_pb2.GetRunRequest, context: Any) -> run_pb2.GetRunResponse:
        await context.abort(grpc.StatusCode.CANCELLED, "stopping")
        raise AssertionError("abort returned")


async def serve(error: Exception, directory: Path) -> tuple[grpc.aio.Server, Endpoint]:
    server = servers.make_server([ErrorBoundary({Lost: grpc.StatusCode.ABORTED, InvalidThing: grpc.StatusCode.INVALID_ARGUMENT})])
    run_pb2_grpc.add_RunServiceServicer_to_server(cast("run_pb2_grpc.RunServiceServicer", Failing(error)), server)
    address = servers.bind_server(server, f"unix:{directory}/s")
    await server.start()
    return server, Endpoint(address=address)


async def failure_of_get(error: Exception, directory: Path) -> RemoteError:
    server, endpoint = await serve(error, directory)
    try:
        async with open_channel(endpoint) as channel:
            with pytest.raises(RemoteError) as raised, remote_errors():
                await run_pb2_grpc.RunServiceStub(channel).GetRun(run_pb2.GetRunRequest())
    finally:
        await server.stop(None)
    return raised.value


async def test_a_domain_error_arrives_with_status_code_message_help_and_facts(tmp_path: Path) -> None:
    error = await failure_of_get(Lost("somebody was faster"), tmp_path)
    assert (error.status, error.code, error.message) == (grpc.StatusCode.ABORTED, "precondition_lost", "somebody was faster")
    assert (error.help, error.facts) == ("read it again", {"current_version": "7"})


async def test_positions_of_problems_arrive(tmp_path: Path) -> None:
    error = await failure_of_get(InvalidThing("1 problem"), tmp_path)
    assert error.problems == (error_pb2.Problem(**vars(Place())),)


async def test_a_subclass_is_mapped_by_its_base_and_coded_by_its_own_name(tmp_path: Path) -> None:
    error = await failure_of_get(InvalidThingOfAKind("no"), tmp_path)
    assert (error.status, error.code) == (grpc.StatusCode.INVALID_ARGUMENT, "invalid_thing_of_a_kind")


async def test_an_unexpected_error_tells_the_caller_nothing_and_the_log_everything(tmp_path: Path) -> None:
    with capture_logs() as logs:
        error = await failure_of_get(ZeroDivisionError("the password is hunter2"), tmp_path)
    assert (error.status, error.code) == (grpc.StatusCode.INTERNAL, "internal")
    assert "hunter2" not in error.message
    assert [entry["event"] for entry in logs] == ["unexpected error"]


async def test_an_error_of_an_onward_call_passes_through_unchanged(tmp_path: Path) -> None:
    onward = RemoteError(grpc.StatusCode.NOT_FOUND, "no such key", code="not_found", help="write it first", facts={"key": "k"})
    error = await failure_of_get(onward, tmp_path)
    assert (error.status, error.code, error.help, error.facts) == (
        grpc.StatusCode.NOT_FOUND,
        "not_found",
        "write it first",
        {"key": "k"},
    )


class Unavailable(Lost):
    code = "unavailable"
    help = "try again"


@pytest.mark.parametrize(
    ("error", "spoken"),
    [
        (Unavailable("the catalog's database cannot be reached"), True),
        (ZeroDivisionError("an accident"), False),
        (RemoteError(grpc.StatusCode.UNAVAILABLE, "onward, in words", help="wait"), True),
        (RemoteError(grpc.StatusCode.UNAVAILABLE, "failed to connect to all addresses", spoken=False), False),
    ],
)
async def test_who_put_a_failure_into_words_arrives(tmp_path: Path, error: Exception, spoken: bool) -> None:
    assert (await failure_of_get(error, tmp_path)).spoken is spoken


async def test_nobody_there_has_spoken(tmp_path: Path) -> None:
    async with open_channel(Endpoint(address=f"unix:{tmp_path}/nobody")) as channel:
        with pytest.raises(RemoteError) as raised, remote_errors():
            await run_pb2_grpc.RunServiceStub(channel).GetRun(run_pb2.GetRunRequest())
    assert (raised.value.status, raised.value.spoken) == (grpc.StatusCode.UNAVAILABLE, False)


async def test_a_stream_fails_with_the_same_words_after_what_it_yielded(tmp_path: Path) -> None:
    server, endpoint = await serve(Lost("gone"), tmp_path)
    seen = []

    async def watch(stub: "run_pb2_grpc.RunServiceStub") -> None:
        with remote_errors():
            seen.extend([response async for response in stub.WatchRun(run_pb2.WatchRunRequest())])

    try:
        async with open_channel(endpoint) as channel:
            with pytest.raises(RemoteError, match="gone"):
                await watch(run_pb2_grpc.RunServiceStub(channel))
    finally:
        await server.stop(None)


async def test_a_call_that_the_server_cancels_is_told_and_does_not_cancel_its_caller(tmp_path: Path) -> None:
    server = servers.make_server()
    run_pb2_grpc.add_RunServiceServicer_to_server(cast("run_pb2_grpc.RunServiceServicer", Cancelling()), server)
    endpoint = Endpoint(address=servers.bind_server(server, f"unix:{tmp_path}/s"))
    await server.start()
    try:
        async with open_channel(endpoint) as channel:
            with pytest.raises(RemoteError) as raised, remote_errors():
                await run_pb2_grpc.RunServiceStub(channel).GetRun(run_pb2.GetRunRequest())
    finally:
        await server.stop(None)
    assert raised.value.status is grpc.StatusCode.CANCELLED


async def test_a_caller_that_is_cancelled_stays_cancelled() -> None:
    async def wait() -> None:
        with remote_errors():
            await asyncio.Event().wait()

    waiting = asyncio.create_task(wait())
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_a_method_nobody_implements_is_unimplemented(tmp_path: Path) -> None:
    server, endpoint = await serve(Lost("x"), tmp_path)
    try:
        async with open_channel(endpoint) as channel:
            with pytest.raises(RemoteError) as raised, remote_errors():
                await channel.unary_unary("/maand.catalog.v1.RunService/Nothing", bytes)(b"")
    finally:
        await server.stop(None)
    assert raised.value.status is grpc.StatusCode.UNIMPLEMENTED


def test_an_unreachable_server_is_a_temporary_remote_error(tmp_path: Path) -> None:
    logging.getLogger("grpc").setLevel(logging.ERROR)
    with open_blocking_channel(Endpoint(address=f"unix:{tmp_path}/nobody")) as channel:
        with pytest.raises(RemoteError) as raised, remote_errors():
            channel.unary_unary("/x/Y", bytes)(b"", timeout=5)
    assert raised.value.status is grpc.StatusCode.UNAVAILABLE
    assert raised.value.is_temporary


class Large:
    """Answers with a message above the limit of both sides."""

    def __getattr__(self, name: str) -> None:
        """Every other method is missing."""

    async def GetRun(self, request: run_pb2.GetRunRequest, context: object) -> run_pb2.GetRunResponse:
        return run_pb2.GetRunResponse(run=run_pb2.Run(run_id="x" * (MAX_MESSAGE_BYTES + 1)))


@pytest.mark.parametrize("asked", ["", "x" * (MAX_MESSAGE_BYTES + 1)])
async def test_a_message_that_is_too_large_is_no_temporary_error(tmp_path: Path, asked: str) -> None:
    server = servers.make_server([ErrorBoundary({})])
    run_pb2_grpc.add_RunServiceServicer_to_server(cast("run_pb2_grpc.RunServiceServicer", Large()), server)
    endpoint = Endpoint(address=servers.bind_server(server, f"unix:{tmp_path}/s"))
    await server.start()
    try:
        async with open_channel(endpoint) as channel:
            with pytest.raises(RemoteError) as raised, remote_errors():
                await run_pb2_grpc.RunServiceStub(channel).GetRun(run_pb2.GetRunRequest(run_id=asked))
    finally:
        await server.stop(None)
    assert (raised.value.status, raised.value.code) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "message_too_large")
    assert not raised.value.is_temporary
    assert "larger than max" in raised.value.message
    assert raised.value.help


def test_whoever_has_too_much_to_do_may_be_asked_again() -> None:
    assert RemoteError(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many streams").is_temporary


def test_class_names_become_stable_words() -> None:
    assert [to_snake_case(name) for name in ("NotFound", "KvPreconditionLost", "TLSError")] == [
        "not_found",
        "kv_precondition_lost",
        "tls_error",
    ]


async def test_a_request_that_is_not_the_message_is_an_invalid_argument(tmp_path: Path) -> None:
    server, endpoint = await serve(Lost("never reached"), tmp_path)
    not_utf8 = b"\x0a\x02\xff\xfe"
    try:
        async with open_channel(endpoint) as channel:
            with pytest.raises(RemoteError) as raised, remote_errors():
                await channel.unary_unary("/maand.catalog.v1.RunService/GetRun", bytes)(not_utf8)
    finally:
        await server.stop(None)
    assert (raised.value.status, raised.value.code) == (grpc.StatusCode.INVALID_ARGUMENT, "undecodable_request")
