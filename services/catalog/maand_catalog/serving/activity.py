"""The outermost interceptor: counts and times calls for Prometheus, and remembers when somebody last asked for something.

The local host stops a catalog that is idle: nobody called for a while, and no stream is open.
"""

from __future__ import annotations  # grpc's stubs know type parameters that its classes do not have at run time

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import grpc.aio

from maand_catalog.rules.meter import Meter
from maand_wire.errors import wrap_handler


class Activity:
    """Counts calls. `last_call_at` is in seconds of the monotonic clock."""

    def __init__(self) -> None:
        self.last_call_at = time.monotonic()
        self.open_streams = 0

    def called(self) -> None:
        """Remember that something was asked right now."""
        self.last_call_at = time.monotonic()

    @contextmanager
    def streaming(self) -> Iterator[None]:
        """Count a stream for as long as it is open; its end counts as a call."""
        self.open_streams += 1
        try:
            yield
        finally:
            self.open_streams -= 1
            self.called()


NOT_ACTIVITY = ("/grpc.", "/maand.catalog.v1.RunService/ClaimRun", "/maand.catalog.v1.TaskService/ClaimTask")
"""Health checks, reflection, and an executor that waits for work: nobody is at work because of these."""


class CallMetering(grpc.aio.ServerInterceptor):
    """Watches every call from outside."""

    def __init__(self, activity: Activity, meter: Meter) -> None:
        self._activity = activity
        self._meter = meter
        self._handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Wrap the handler that the server would call, with all inner interceptors, once per method: they never differ."""
        method = handler_call_details.method
        if method not in self._handlers:
            handler = await continuation(handler_call_details)
            if handler is None:
                return None
            self._handlers[method] = handler if method.startswith(NOT_ACTIVITY) else self._metered(handler, method)
        return self._handlers[method]

    def _metered(self, handler: grpc.RpcMethodHandler[Any, Any], method: str) -> grpc.RpcMethodHandler[Any, Any]:
        def unary(behaviour: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
            async def call(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
                self._activity.called()
                began = time.perf_counter()
                try:
                    return await behaviour(request, context)
                finally:
                    self._activity.called()
                    self._meter.called(method, status_name(context), time.perf_counter() - began)

            return call

        def stream(behaviour: Callable[..., AsyncIterator[Any]]) -> Callable[..., AsyncIterator[Any]]:
            async def call(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[Any]:
                began = time.perf_counter()
                with self._activity.streaming():
                    try:
                        async for response in behaviour(request, context):
                            yield response
                    finally:
                        self._meter.called(method, status_name(context), time.perf_counter() - began)

            return call

        return wrap_handler(handler, unary, stream)


def status_name(context: grpc.aio.ServicerContext[Any, Any]) -> str:
    """Return the name of the status a call ends with: it is set only when it is not OK."""
    code: object = context.code()  # 0 or None while nobody set one, whatever its type says
    return code.name if isinstance(code, grpc.StatusCode) else "OK"
