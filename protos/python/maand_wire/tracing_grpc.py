"""Traces across gRPC: a call takes the current span along as `traceparent`, a server goes on below it.

OpenTelemetry's own instrumentation would begin a trace at every call, long polls and renewals included, brings two more libraries
and is not yet stable. Here only what belongs to somebody's trace is traced.
"""

from __future__ import annotations  # grpc's stubs know type parameters that its classes do not have at run time

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import grpc.aio

from maand_wire.errors import wrap_handler
from maand_wire.tracing import CURRENT, HEADER, SILENT, Tracer, current_traceparent, is_sampled, is_tracing_configured, use_span
from maand_wire.tracing import valid_traceparent as valid

UNTRACED = frozenset({"AppendEvents", "AwaitTasks", "ReadMaskValues", "RenewLease", "RenewTask", "StreamMaskValues"})
"""Calls that are made again and again while a run lives: they would bury what it did."""


def make_client_interceptors() -> list[grpc.aio.ClientInterceptor]:
    """Return what a channel needs to take spans along; nothing when traces are not wanted."""
    return [TracedCalls(), TracedStreams(), TracedUploads()] if is_tracing_configured() else []


def make_server_interceptors(tracer: Tracer | None) -> list[grpc.aio.ServerInterceptor]:
    """Return what a server needs to go on with callers' traces; nothing without a tracer."""
    return [TracedServer(tracer)] if tracer is not None else []


def traceparent_of(context: Any) -> str:
    """Return the trace that a call belongs to: this server's own span, else what the caller sent; empty for none."""
    return current_traceparent() or sent_traceparent(context.invocation_metadata())


def sent_traceparent(metadata: Any) -> str:
    """Return the `traceparent` among metadata; empty for none, or for something that is none."""
    return next((valid(str(value)) for name, value in metadata or () if name == HEADER), "")


class TracedCalls(grpc.aio.UnaryUnaryClientInterceptor):
    """Calls with one answer: a span each."""

    async def intercept_unary_unary(
        self,
        continuation: Callable[..., Awaitable[Any]],
        client_call_details: grpc.aio.ClientCallDetails,
        request: Any,
    ) -> Any:
        """Make the call as a span, from its sending to its end."""
        name = method_of(client_call_details)
        if CURRENT.get() is SILENT or is_untraced(name):
            return await continuation(client_call_details, request)
        with use_span(CURRENT.get().child(name, kind="client"), {}) as span:
            call = await continuation(with_traceparent(client_call_details), request)
            try:
                code = await call.code()
            except asyncio.CancelledError:
                call.cancel()
                raise
            span.set(grpc_status=code.name)
            if code is not grpc.StatusCode.OK:
                span.fail(code.name)
        return call


class TracedStreams(grpc.aio.UnaryStreamClientInterceptor):
    """Calls with a stream of answers: the server's span says how long it lasted."""

    async def intercept_unary_stream(
        self, continuation: Callable[..., Awaitable[Any]], client_call_details: grpc.aio.ClientCallDetails, request: Any
    ) -> Any:
        """Take the current span along."""
        untraced = is_untraced(method_of(client_call_details))
        return await continuation(client_call_details if untraced else with_traceparent(client_call_details), request)


class TracedUploads(grpc.aio.StreamUnaryClientInterceptor):
    """Calls with a stream of requests, likewise."""

    async def intercept_stream_unary(
        self, continuation: Callable[..., Awaitable[Any]], client_call_details: grpc.aio.ClientCallDetails, request_iterator: Any
    ) -> Any:
        """Take the current span along."""
        return await continuation(with_traceparent(client_call_details), request_iterator)


class TracedServer(grpc.aio.ServerInterceptor):
    """Goes on with the trace of a call that belongs to one."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Wrap the handler that the server would call."""
        handler = await continuation(handler_call_details)
        return None if handler is None else self._traced(handler, handler_call_details.method.lstrip("/"))

    def _traced(self, handler: grpc.RpcMethodHandler[Any, Any], name: str) -> grpc.RpcMethodHandler[Any, Any]:
        def unary(behaviour: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
            async def call(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
                sent = sent_traceparent(context.invocation_metadata())
                if not is_sampled(sent):
                    return await behaviour(request, context)
                with use_span(self._tracer.begin(name, kind="server", traceparent=sent), {}):
                    return await behaviour(request, context)

            return call

        def stream(behaviour: Callable[..., AsyncIterator[Any]]) -> Callable[..., AsyncIterator[Any]]:
            async def call(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[Any]:
                sent = sent_traceparent(context.invocation_metadata())
                span = self._tracer.begin(name, kind="server", traceparent=sent) if is_sampled(sent) else SILENT
                try:  # not made current: a generator may be closed in another context than the one it began in
                    async for response in behaviour(request, context):
                        yield response
                finally:
                    span.end()

            return call

        return wrap_handler(handler, unary, stream)


def method_of(details: grpc.aio.ClientCallDetails) -> str:
    """Return `maand.catalog.v1.RunService/CreateRun`."""
    method: Any = details.method
    return (method.decode() if isinstance(method, bytes) else str(method)).lstrip("/")


def is_untraced(name: str) -> bool:
    """Tell whether a method is one of those that are called again and again."""
    return name.rpartition("/")[2] in UNTRACED


def with_traceparent(details: grpc.aio.ClientCallDetails) -> grpc.aio.ClientCallDetails:
    """Return the details of a call with the current span in its metadata."""
    traceparent = current_traceparent()
    if not traceparent:
        return details
    metadata = grpc.aio.Metadata(*(details.metadata or ()), (HEADER, traceparent))
    return grpc.aio.ClientCallDetails(details.method, details.timeout, metadata, details.credentials, details.wait_for_ready)
