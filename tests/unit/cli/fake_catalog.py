"""A catalog made of canned answers behind a real gRPC server, for tests of the command line.

Every RPC of the contracts is answered: with what a test put into `answers`, else with an empty response. What was asked is in
`requests`. A run that is created plays `script` (events) and ends as `end` says.
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from google.protobuf import message_factory
from google.protobuf.message import Message

from maand_contracts.catalog.v1 import (
    allocation_pb2,
    bucket_pb2,
    job_pb2,
    kv_pb2,
    run_event_pb2,
    run_pb2,
    run_spec_pb2,
    secret_pb2,
    semaphore_pb2,
    worker_pb2,
    workspace_pb2,
)
from maand_wire.enums import enum_number
from maand_wire.errors import ErrorBoundary, RemoteError

SERVICES = [
    service
    for module in (
        allocation_pb2,
        bucket_pb2,
        job_pb2,
        kv_pb2,
        run_pb2,
        secret_pb2,
        semaphore_pb2,
        worker_pb2,
        workspace_pb2,
    )
    for service in module.DESCRIPTOR.services_by_name.values()
]

LEVELS = {1: run_pb2.CANCEL_LEVEL_AFTER_BATCH, 2: run_pb2.CANCEL_LEVEL_NOW}

RUN_ID = "01920000-0000-7000-8000-000000000001"


class Refusal(Exception):
    """What a test lets a call end with."""

    def __init__(self, status: grpc.StatusCode, message: str, **detail: Any) -> None:
        super().__init__(message)
        self.status = status
        for name, value in detail.items():
            setattr(self, name, value)


@dataclass(kw_only=True)
class FakeCatalog:
    """What it answers and what it was asked."""

    address: str
    answers: dict[str, Message | Refusal | RemoteError | Callable[[Any], Message]] = field(default_factory=dict)
    requests: list[tuple[str, Any]] = field(default_factory=list)
    script: list[run_event_pb2.RunEvent] = field(default_factory=list)
    end: run_pb2.Run = field(default_factory=lambda: ended("succeeded"))
    endless: bool = False
    """Whether a run goes on until it is cancelled twice."""
    drops: int = 0
    """How many times a stream breaks after one event."""
    cancels: int = 0
    stopped: asyncio.Event = field(default_factory=asyncio.Event)

    def asked(self, method: str) -> list[Any]:
        """Return the requests of one method."""
        return [request for name, request in self.requests if name == method]

    def spec(self) -> Any:
        """Return what the newest run was asked to do."""
        return self.asked("CreateRun")[-1].spec

    def play(self, *events: run_event_pb2.RunEvent, end: run_pb2.Run | None = None) -> None:
        """Set what the next runs do."""
        self.script = list(events)
        self.end = end or ended("succeeded")

    async def answer(self, method: str, request: Any, response_class: type[Message]) -> Message:
        """Answer one unary call."""
        self.requests.append((method, request))
        given = self.answers.get(method)
        if isinstance(given, Refusal | RemoteError):
            raise given
        if callable(given):
            return given(request)
        if given is not None:
            return given
        own = getattr(self, f"_{method}", None)
        return own(request) if own else response_class()

    def _CreateRun(self, request: run_pb2.CreateRunRequest) -> Message:
        return run_pb2.CreateRunResponse(
            run=self._run("pending", enum_number(run_spec_pb2.RunKind, str(request.spec.WhichOneof("spec"))))
        )

    def _GetRun(self, _request: Any) -> Message:
        run = run_pb2.Run()
        run.CopyFrom(ended("cancelled") if self.cancels else self.end)
        run.run_id, run.kind = RUN_ID, self.end.kind or self._kind()
        return run_pb2.GetRunResponse(run=run)

    def _CancelRun(self, _request: Any) -> Message:
        self.cancels += 1
        if self.cancels > 1:
            asyncio.get_running_loop().call_later(0.5, self.stopped.set)  # a run takes its moment to stop
        return run_pb2.CancelRunResponse(cancel=LEVELS[min(self.cancels, 2)])

    def _kind(self) -> run_spec_pb2.RunKind.ValueType:
        created = self.asked("CreateRun")
        return enum_number(run_spec_pb2.RunKind, str(created[-1].spec.WhichOneof("spec")) if created else "deploy")

    def _run(self, state: str, kind: run_spec_pb2.RunKind.ValueType) -> run_pb2.Run:
        return run_pb2.Run(run_id=RUN_ID, seq=1, kind=kind, state=run_pb2.RunState.Value(f"RUN_STATE_{state.upper()}"))

    async def watch(self, request: run_pb2.WatchRunRequest) -> AsyncIterator[Message]:
        """Play the script, numbered; then wait for the run's end."""
        self.requests.append(("WatchRun", request))
        for sequence, event in enumerate(self.script, 1):
            if sequence > request.after_sequence:
                numbered = run_event_pb2.RunEvent()
                numbered.CopyFrom(event)
                numbered.sequence = sequence
                yield run_pb2.WatchRunResponse(events=[numbered])
                if self.drops:
                    self.drops -= 1
                    raise Refusal(grpc.StatusCode.UNAVAILABLE, "connection reset", code="unavailable")
        if self.endless and request.follow:
            await self.stopped.wait()


def ended(state: str, **fields: Any) -> run_pb2.Run:
    """Return a run that ended."""
    if kind := fields.pop("kind", ""):
        fields["kind"] = enum_number(run_spec_pb2.RunKind, kind)
    result = {name: fields.pop(name) for name in list(fields) if name in run_event_pb2.RunResult.DESCRIPTOR.fields_by_name}
    return run_pb2.Run(
        run_id=RUN_ID,
        state=run_pb2.RunState.Value(f"RUN_STATE_{state.upper()}"),
        result=run_event_pb2.RunResult(**result),
        **fields,
    )


@contextmanager
def serving_fake(directory: Path) -> Iterator[FakeCatalog]:
    """Serve a fake on a unix socket, in a thread with its own loop."""
    fake = FakeCatalog(address=f"unix:{directory / 'fake.sock'}")
    ready = threading.Event()
    stop: list[Callable[[], object]] = []

    async def serve() -> None:
        stopping = asyncio.Event()
        loop = asyncio.get_running_loop()
        stop.append(lambda: loop.call_soon_threadsafe(stopping.set))
        server = grpc.aio.server(interceptors=[Refusals()])
        server.add_generic_rpc_handlers(tuple(handlers(fake)))
        server.add_insecure_port(fake.address)
        await server.start()
        ready.set()
        await stopping.wait()
        await server.stop(0)

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    ready.wait(10)
    try:
        yield fake
    finally:
        stop[0]()
        thread.join()


class Refusals(ErrorBoundary):
    """Ends calls as their `Refusal` says, through the real boundary."""

    def __init__(self) -> None:
        super().__init__({})

    def status_of(self, error: Exception) -> Any:
        """Take the status from the refusal."""
        if isinstance(error, Refusal):
            self._status_by_error = {Refusal: error.status}
        return super().status_of(error)


def handlers(fake: FakeCatalog) -> Iterator[Any]:
    """Make a handler for every RPC of the contracts."""
    for service in SERVICES:
        methods = {method.name: handler(fake, method) for method in service.methods}
        yield grpc.method_handlers_generic_handler(service.full_name, methods)


def handler(fake: FakeCatalog, method: Any) -> Any:
    """Make the handler of one RPC."""
    request_class = message_factory.GetMessageClass(method.input_type)
    response_class = message_factory.GetMessageClass(method.output_type)

    async def unary(request: Any, _context: Any) -> Message:
        return await fake.answer(method.name, request, response_class)

    async def upload(requests: AsyncIterator[Any], _context: Any) -> Message:
        return await fake.answer(method.name, [request async for request in requests], response_class)

    async def watch(request: Any, _context: Any) -> AsyncIterator[Message]:
        async for response in fake.watch(request):
            yield response

    wire: dict[str, Any] = {
        "request_deserializer": request_class.FromString,
        "response_serializer": response_class.SerializeToString,
    }
    if method.client_streaming:
        return grpc.stream_unary_rpc_method_handler(upload, **wire)
    if method.server_streaming:
        return grpc.unary_stream_rpc_method_handler(watch, **wire)
    return grpc.unary_unary_rpc_method_handler(unary, **wire)
