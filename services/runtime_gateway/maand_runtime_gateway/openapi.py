"""The OpenAPI document: FastAPI's, with the fields, errors and the token that are described by the table of routes."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel

from maand_runtime_gateway.models import ErrorBody, Fields
from maand_runtime_gateway.requests import FIELDS_IN_QUERY
from maand_runtime_gateway.routes.table import COMMON_ERRORS, ROUTES, Route

REF = "#/components/schemas/{model}"

TITLE = "maand hook API"

DESCRIPTION = """While a hook runs, it reaches maand here. Only loopback is served. Every route but `/healthz`, `/metrics`,
`/openapi.json` and `/docs` needs the token that maand gives the hook process in `HOOK_API_TOKEN`.
`GET` and `DELETE` accept their fields as query parameters (as documented here) or as a JSON body with the same names."""

MEANINGS = {
    400: "Malformed JSON, a missing or wrong-typed field, a bad name, a limit.",
    401: "No valid token: none was sent, it is unknown, or its hook has ended.",
    403: "Not allowed: namespace, event that is read-only, worker of another job, headers that disagree with the token.",
    404: "The key, version or route does not exist.",
    408: "The semaphore was not granted in time, or the request body did not arrive in time.",
    409: "Semaphore not held, capacity differs, or precondition lost (`details.current_version`).",
    413: "The body is larger than 2 MiB.",
    415: "The body is not JSON.",
    500: "maand failed unexpectedly; its log knows more.",
    502: "The worker cannot be reached, or the connection to it was lost.",
    503: "The service behind the route is unavailable; try again.",
    504: "The service behind the route did not answer in time.",
}


def describe_responses(route: Route) -> dict[int | str, dict[str, Any]]:
    """Describe how a route can fail."""
    return {status: {"model": ErrorBody, "description": MEANINGS[status]} for status in sorted({*COMMON_ERRORS, *route.errors})}


def describe_inputs(route: Route) -> dict[str, Any]:
    """Describe what a route takes, and that it needs the token."""
    schema = schema_of(route.takes)
    extra: dict[str, Any] = {"security": [{"hookToken": []}]}
    if route.method in FIELDS_IN_QUERY:
        extra["parameters"] = [
            {
                "name": name,
                "in": "query",
                "required": name in schema.get("required", ()),
                "description": field.get("description", ""),
                "schema": {key: value for key, value in field.items() if key != "description"},
            }
            for name, field in query_properties(schema).items()
        ]
    else:
        extra["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    return extra


def query_properties(schema: dict[str, Any]) -> dict[str, Any]:
    """Return a model's properties as query parameters have them: absent instead of null."""
    return {name: without_null(field) for name, field in schema.get("properties", {}).items()}


def without_null(field: dict[str, Any]) -> dict[str, Any]:
    """Drop `null` from a field's types: a query parameter is given or left out."""
    types: list[dict[str, Any]] = [option for option in field.get("anyOf", ()) if option.get("type") != "null"]
    if len(types) != 1:
        return field
    return {key: value for key, value in field.items() if key not in ("anyOf", "default")} | types[0]


def schema_of(model: type[BaseModel]) -> dict[str, Any]:
    """Return a model's JSON schema; models inside it are referred to by name."""
    schema = model.model_json_schema(ref_template=REF)
    return {key: value for key, value in schema.items() if key != "$defs"}


def build_document(app: FastAPI) -> dict[str, Any]:
    """Build the whole document."""
    whole: dict[str, Any] = get_openapi(title=TITLE, version=app.version, description=DESCRIPTION, routes=app.routes)
    components = whole.setdefault("components", {})
    components["securitySchemes"] = {"hookToken": {"type": "http", "scheme": "bearer"}}
    for route in ROUTES:
        components["schemas"].update(inner_models(route.takes))
    return whole


def inner_models(model: type[Fields]) -> dict[str, Any]:
    """Return the schemas of models used inside a model."""
    inner: dict[str, Any] = model.model_json_schema(ref_template=REF).get("$defs", {})
    return inner
