"""The HTTP application: FastAPI for routes and their description, one translating endpoint for all of them."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import structlog
from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from maand_runtime_gateway.errors import ClientGone, GatewayStopping, MethodNotAllowed, RequestRefused, RouteNotFound
from maand_runtime_gateway.middleware import CALLER, AccessMiddleware
from maand_runtime_gateway.openapi import TITLE, describe_inputs, describe_responses
from maand_runtime_gateway.prometheus import Metrics
from maand_runtime_gateway.public_routes import VERSION, add_public_routes
from maand_runtime_gateway.requests import read_fields
from maand_runtime_gateway.responses import UNEXPECTED, error_response, json_response, refusal_response, remote_failure_response
from maand_runtime_gateway.routes.table import ROUTES, Route
from maand_runtime_gateway.settings import RequestLimits
from maand_runtime_gateway.upstream import Upstream
from maand_wire.errors import RemoteError
from maand_wire.tracing import Tracer

log = structlog.get_logger("maand.gateway")

Endpoint = Callable[[Request], Coroutine[Any, Any, Response]]
Receive = Callable[[], Awaitable[Any]]

ResultT = TypeVar("ResultT")


def make_app(
    upstream: Upstream, *, limits: RequestLimits, stopping: asyncio.Event, metrics: Metrics, tracer: Tracer | None = None
) -> ASGIApp:
    """Assemble the application. When `stopping` is set, calls that wait end with 503."""
    app = FastAPI(title=TITLE, version=VERSION, openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
    for route in ROUTES:
        app.router.add_api_route(
            route.path,
            make_endpoint(route, upstream, limits=limits, stopping=stopping),
            methods=[route.method],
            response_model=route.gives,
            responses=describe_responses(route),
            summary=route.summary,
            operation_id=route.operation,
            openapi_extra=describe_inputs(route),
            route_class_override=PlainRoute,
        )
    add_public_routes(app, upstream, metrics)
    app.add_exception_handler(HTTPException, answer_unknown_route)
    return AccessMiddleware(app, metrics, tracer)


class PlainRoute(APIRoute):
    """A route whose endpoint reads the request itself.

    FastAPI's own handler solves dependencies and validates answers that were just built from their model; that costs a third
    of a request's time and gives nothing here. The description (OpenAPI) stays FastAPI's.
    """

    def get_route_handler(self) -> Endpoint:
        """Return the endpoint as it is."""
        answer: Endpoint = self.endpoint
        return answer


def make_endpoint(route: Route, upstream: Upstream, *, limits: RequestLimits, stopping: asyncio.Event) -> Endpoint:
    """Make the endpoint of a route: read fields, make the call, write the answer. Every error ends here."""

    async def answer(request: Request) -> Response:
        try:
            fields = await read_fields(request, route.takes, limits)
            work = route.translate(upstream, request.scope[CALLER], fields)
            result = await (while_wanted(work, receive=request.receive, stopping=stopping) if route.waits else work)
            return json_response(result)
        except RequestRefused as error:
            return refusal_response(error)
        except RemoteError as error:
            return remote_failure_response(error)
        except Exception:
            log.exception("request failed unexpectedly", route=route.path)
            return error_response(UNEXPECTED)

    return answer


async def while_wanted(work: Awaitable[ResultT], *, receive: Receive, stopping: asyncio.Event) -> ResultT:
    """Return the result of `work`; cancel it and raise when nobody wants it any more.

    The three tasks live only inside this call: whichever is left is cancelled and awaited before it returns. A `TaskGroup`
    would wrap the one error that the caller is to see.
    """
    answered = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(wait_for_disconnect(receive))
    stopped = asyncio.ensure_future(stopping.wait())
    tasks = (answered, gone, stopped)
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if answered.done():
            return answered.result()
        raise ClientGone if gone.done() else GatewayStopping
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def wait_for_disconnect(receive: Receive) -> None:
    """Return when the client has closed its connection."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def answer_unknown_route(request: Request, error: Exception) -> Response:
    """Answer for a path or method that no route has."""
    if isinstance(error, HTTPException) and error.status_code == 405:
        return refusal_response(MethodNotAllowed(list_allowed_methods(request.scope["path"])))
    return refusal_response(RouteNotFound())


def list_allowed_methods(path: str) -> str:
    """List the methods of a path that has a route."""
    return ", ".join(sorted({route.method for route in ROUTES if route.path == path} or {"GET"}))
