"""The outermost layer: no token, no entry; and every request is counted. Plain ASGI, because every request passes it."""

from collections.abc import Mapping
from time import perf_counter

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from maand_runtime_gateway.callers import read_caller
from maand_runtime_gateway.errors import MissingToken
from maand_runtime_gateway.prometheus import Metrics
from maand_runtime_gateway.responses import refusal_response
from maand_runtime_gateway.routes.table import PUBLIC_PATHS, ROUTES
from maand_wire.tracing import HEADER, Tracer, is_sampled, root_span, valid_traceparent

CALLER = "maand.caller"
"""Where in the ASGI scope the caller is found behind the middleware."""

KNOWN_ROUTES: Mapping[tuple[str, str], tuple[str, str]] = {
    **{(route.method, route.path): (route.method, route.path) for route in ROUTES},
    **{("GET", path): ("GET", path) for path in PUBLIC_PATHS},
}
"""What may become a metric's label; everything else is counted as `other`."""

OTHER = ("other", "other")


class AccessMiddleware:
    """Lets requests with a token in, and those for public paths."""

    def __init__(self, app: ASGIApp, metrics: Metrics, tracer: Tracer | None = None) -> None:
        self._tracer = tracer
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection."""
        if scope["type"] != "http":
            return
        started = perf_counter()
        status = 0

        async def observed_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        method, route = KNOWN_ROUTES.get((scope["method"], scope["path"]), OTHER)
        try:
            with root_span(self._tracer_of(scope), f"{method} {route}", kind="server", traceparent=trace_of(scope)) as span:
                await self._admitted(scope)(scope, receive, observed_send)
                span.set(http_status=status)
        finally:
            self._metrics.record(method=method, route=route, status=status, seconds=perf_counter() - started)

    def _tracer_of(self, scope: Scope) -> Tracer | None:
        """Return who traces this request: nobody when it belongs to no trace."""
        return self._tracer if self._tracer is not None and is_sampled(trace_of(scope)) else None

    def _admitted(self, scope: Scope) -> ASGIApp:
        """Return who answers: the application, or a refusal."""
        if scope["path"] not in PUBLIC_PATHS:
            caller = read_caller(scope["headers"])
            if caller is None:
                return refusal_response(MissingToken())
            scope[CALLER] = caller
        return self._app


def trace_of(scope: Scope) -> str:
    """Return the trace that a request says it belongs to; empty for none."""
    name = HEADER.encode()
    return next((valid_traceparent(value.decode("latin-1")) for header, value in scope["headers"] if header == name), "")
