"""Reading a request: its body within limits, its fields from JSON or from the query, checked against the route's model."""

import asyncio
from typing import TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails
from starlette.requests import Request

from maand_runtime_gateway.errors import BodyTooLarge, BodyTooSlow, ClientGone, InvalidFields, MalformedJson, NotJson
from maand_runtime_gateway.models import Fields
from maand_runtime_gateway.settings import RequestLimits

FieldsT = TypeVar("FieldsT", bound=Fields)

FIELDS_IN_QUERY = frozenset({"GET", "DELETE"})
"""Methods whose fields may come as query parameters; many clients cannot send a body with them."""


async def read_fields(request: Request, model: type[FieldsT], limits: RequestLimits) -> FieldsT:
    """Read and check the fields of a request. The errors say which field and why, never what was sent."""
    body = await read_body(request, limits)
    query = request.scope["query_string"] if request.method in FIELDS_IN_QUERY else b""
    if body:
        if query:
            raise InvalidFields("send the fields either as query parameters or as a JSON body, not as both")
        check_media_type(request.headers.get("content-type"))
    try:
        return model.model_validate_json(body or b"{}") if not query else model.model_validate_strings(query_fields(request))
    except ValidationError as error:
        raise explain(error.errors(include_url=False, include_context=False, include_input=False)) from None


async def read_body(request: Request, limits: RequestLimits) -> bytes:
    """Read the body as it comes in, and stop at the limit, whatever length was announced."""
    announced = request.headers.get("content-length")
    if announced is not None and announced.isdigit() and int(announced) > limits.body_bytes:
        raise BodyTooLarge(limits.body_bytes)
    chunks: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(limits.body_time.total_seconds()):
            more = True
            while more:
                message = await request.receive()
                if message["type"] == "http.disconnect":
                    raise ClientGone
                chunks.append(message.get("body", b""))
                size += len(chunks[-1])
                if size > limits.body_bytes:
                    raise BodyTooLarge(limits.body_bytes)
                more = message.get("more_body", False)
    except TimeoutError:
        raise BodyTooSlow(limits.body_time.total_seconds()) from None
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def check_media_type(content_type: str | None) -> None:
    """Refuse a body that says it is something else than JSON; one that says nothing is taken as JSON."""
    if content_type is None or content_type == "application/json":
        return
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type != "application/json" and not (media_type.startswith("application/") and media_type.endswith("+json")):
        raise NotJson


def query_fields(request: Request) -> dict[str, str]:
    """Return the query parameters; one given twice has no single meaning."""
    fields: dict[str, str] = {}
    for name, value in request.query_params.multi_items():
        if name in fields:
            raise InvalidFields(f"`{printable(name)}` is given twice; give each field once")
        fields[name] = value
    return fields


def explain(problems: list[ErrorDetails]) -> MalformedJson | InvalidFields:
    """Turn pydantic's findings into one sentence, with all of them by field in the details."""
    first = problems[0]
    if first["type"] == "json_invalid":
        return MalformedJson("the body is not valid JSON; send one JSON object in UTF-8")
    if not first["loc"]:
        return MalformedJson("the body must be a JSON object with the route's fields")
    by_field = {printable(".".join(str(part) for part in problem["loc"])): wording(problem) for problem in problems}
    name, what = next(iter(by_field.items()))
    return InvalidFields(f"`{name}` {what}", details={"fields": by_field})


def wording(problem: ErrorDetails) -> str:
    """Say what a field must be."""
    match problem["type"]:
        case "missing":
            return "is missing"
        case "extra_forbidden":
            return "is no field of this route"
        case "string_type" | "string_unicode":
            return "must be a string"
        case "int_type" | "int_from_float" | "int_parsing" | "int_parsing_size":
            return "must be a whole number"
        case "bool_type" | "bool_parsing":
            return "must be true or false"
        case _:
            return problem["msg"][:1].lower() + problem["msg"][1:]


def printable(name: str) -> str:
    """Shorten and clean a field name that came from outside."""
    return "".join(character if character.isprintable() else "?" for character in name[:64])
