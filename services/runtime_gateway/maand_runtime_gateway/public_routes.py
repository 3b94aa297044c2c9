"""Routes without a token: health, metrics, and the API's own description."""

from functools import partial
from importlib.metadata import version

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from maand_runtime_gateway.docs_page import render_docs_page
from maand_runtime_gateway.models import Health
from maand_runtime_gateway.openapi import build_document
from maand_runtime_gateway.prometheus import CONTENT_TYPE, Metrics
from maand_runtime_gateway.responses import json_response
from maand_runtime_gateway.upstream import Upstream

VERSION = version("maand")


def add_public_routes(app: FastAPI, upstream: Upstream, metrics: Metrics) -> None:
    """Add them; called after all others, so that the document describes everything."""

    async def healthz(_request: Request) -> Response:
        """Say whether the hook API can work: 503 when the catalog does not serve."""
        reachable = await upstream.catalog_serves()
        return json_response(describe_health(reachable), 200 if reachable else 503)

    async def metrics_text(_request: Request) -> Response:
        """Return metrics in Prometheus' text format."""
        return Response(metrics.text(), media_type=CONTENT_TYPE)

    app.add_api_route(
        "/healthz",
        healthz,
        methods=["GET"],
        response_model=Health,
        summary="Whether the hook API can work.",
        responses={503: {"model": Health, "description": "The catalog cannot be reached."}},
    )
    app.add_api_route(
        "/metrics",
        metrics_text,
        methods=["GET"],
        response_class=Response,
        summary="Metrics in Prometheus' text format.",
        responses={200: {"content": {"text/plain": {}}, "description": "Metrics."}},
    )
    app.openapi = partial(build_document, app)  # type: ignore[method-assign]  # FastAPI's documented way to extend the document
    add_description(app)


def add_description(app: FastAPI) -> None:
    """Serve the document and the page made from it, both written once."""
    described = app.openapi()
    page = render_docs_page(described)

    async def openapi_json(_request: Request) -> Response:
        return json_response(described)

    async def docs(_request: Request) -> Response:
        return HTMLResponse(page)

    app.add_route("/openapi.json", openapi_json, methods=["GET"])
    app.add_route("/docs", docs, methods=["GET"])


def describe_health(reachable: bool) -> Health:
    """Describe the state."""
    return Health(status="ok" if reachable else "degraded", catalog="reachable" if reachable else "unreachable", version=VERSION)
