"""Every status that maand answers with is a class; positions and facts arrive; what a server breaks off is gone on with."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import grpc
import grpc.aio
import pytest

from maand_catalog.rpc.services import STATUS_BY_ERROR
from maand_client import Client, connect, errors
from maand_contracts.catalog.v1 import bucket_pb2, run_event_pb2, run_pb2
from maand_contracts.catalog.v1.bucket_pb2_grpc import BucketServiceStub
from maand_contracts.catalog.v1.run_pb2_grpc import RunServiceServicer, add_RunServiceServicer_to_server
from maand_wire import servers
from maand_wire.errors import RemoteError
from tests.unit.client.conftest import Bed, first


def test_every_status_the_catalog_answers_with_has_a_class_of_its_own() -> None:
    classes = [errors.BY_STATUS[status] for status in STATUS_BY_ERROR.values()]
    assert len(set(classes)) == len(classes)


@pytest.mark.parametrize(("status", "kind"), errors.BY_STATUS.items())
def test_the_class_is_chosen_by_status(status: grpc.StatusCode, kind: type[errors.MaandError]) -> None:
    error = errors.error_by_meaning(RemoteError(status, "what happened", code="a_code", help="do this", facts={"a": "b"}))
    assert type(error) is kind
    assert (str(error), error.code, error.help, error.facts) == ("what happened", "a_code", "do this", {"a": "b"})


def test_an_unforeseen_status_is_still_an_error_of_maand() -> None:
    assert type(errors.error_by_meaning(RemoteError(grpc.StatusCode.DATA_LOSS, "?"))) is errors.MaandError


async def test_wrong_files_are_invalid_at_their_positions(bed: Bed) -> None:
    async with bed.local() as maand:
        conf = f'bucket_id = "{bed.bucket_id}"\nssh_usr = "x"\n'.encode()
        request = bucket_pb2.ApplyBucketConfigRequest(bucket_id=bed.bucket_id, maand_conf=conf)
        with pytest.raises(errors.Invalid) as raised:
            await maand.calls.once(BucketServiceStub(maand.calls.channel).ApplyBucketConfig, request)
    (problem,) = raised.value.problems
    assert (problem.code, problem.file, problem.line) == ("unknown_key", "maand.conf", 2)


class BreaksOff:
    """As much of a RunService as these tests call: it cancels the first call and the first stream."""

    def __init__(self) -> None:
        self.calls = 0

    def __getattr__(self, name: str) -> None:
        """Every other method is missing."""

    async def GetRun(self, request: run_pb2.GetRunRequest, context: Any) -> run_pb2.GetRunResponse:
        await self._cancel_the_first(context)
        return run_pb2.GetRunResponse(run=run_pb2.Run(state=run_pb2.RUN_STATE_SUCCEEDED))

    async def WatchRun(self, request: run_pb2.WatchRunRequest, context: Any) -> AsyncIterator[run_pb2.WatchRunResponse]:
        await self._cancel_the_first(context)
        yield run_pb2.WatchRunResponse(events=[run_event_pb2.RunEvent(sequence=1)])

    async def _cancel_the_first(self, context: Any) -> None:
        self.calls += 1
        if self.calls == 1:
            await context.abort(grpc.StatusCode.CANCELLED, "the server is stopping")


@asynccontextmanager
async def a_server_that_breaks_off(directory: Path) -> AsyncIterator[Client]:
    server = servers.make_server()
    add_RunServiceServicer_to_server(cast("RunServiceServicer", BreaksOff()), server)
    address = servers.bind_server(server, f"unix:{directory}/s")
    await server.start()
    async with connect(address, "b") as maand:
        yield maand
    await server.stop(None)


async def test_a_call_that_the_server_cancels_is_made_again(tmp_path: Path) -> None:
    async with a_server_that_breaks_off(tmp_path) as maand:
        assert (await maand.runs.get("r").get()).state == run_pb2.RUN_STATE_SUCCEEDED


async def test_a_stream_that_the_server_cancels_is_gone_on_with(tmp_path: Path) -> None:
    async with a_server_that_breaks_off(tmp_path) as maand:
        assert (await first(maand.runs.get("r").events())).sequence == 1
