"""Reading a request: its body within limits, its fields from JSON or from the query, checked against the route's model."""

import asyncio
import json
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
        if query:
            return model.model_validate_strings(read_query_fields(request))
        fields = model.model_validate_json(body or b"{}")
    except ValidationError as error:
        raise explain_problems(error.errors(include_url=False, include_input=False)) from None
    json.loads(body or b"{}", object_pairs_hook=refuse_repeated)  # after the model, which bounds its depth
    return fields


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


def read_query_fields(request: Request) -> dict[str, str]:
    """Return the query parameters; one given twice has no single meaning."""
    fields: dict[str, str] = {}
    for name, value in request.query_params.multi_items():
        if name in fields:
            raise given_twice_error(name)
        fields[name] = value
    return fields


def refuse_repeated(pairs: list[tuple[str, object]]) -> None:
    """Refuse an object that gives a field twice; what it holds was read already."""
    if len(pairs) > 1 and len(dict(pairs)) < len(pairs):
        names = [name for name, _ in pairs]
        raise given_twice_error(next(name for name in names if names.count(name) > 1))


def given_twice_error(name: str) -> InvalidFields:
    """Say that a field has no single meaning."""
    return InvalidFields(f"`{printable_name(name)}` is given twice; give each field once")


def explain_problems(problems: list[ErrorDetails]) -> MalformedJson | InvalidFields:
    """Turn pydantic's findings into one sentence, with all of them by field in the details."""
    first = problems[0]
    if first["type"] == "json_invalid":
        return MalformedJson("the body is not valid JSON; send one JSON object in UTF-8")
    if not first["loc"]:
        return MalformedJson("the body must be a JSON object with the route's fields")
    by_field = {printable_name(".".join(str(part) for part in problem["loc"])): describe_problem(problem) for problem in problems}
    name, what = next(iter(by_field.items()))
    return InvalidFields(f"`{name}` {what}", details={"fields": by_field})


WORDS = {
    "missing": "is missing",
    "extra_forbidden": "is no field of this route",
    **dict.fromkeys(("string_type", "string_unicode"), "must be a string"),
    **dict.fromkeys(("int_type", "int_from_float", "int_parsing", "int_parsing_size"), "must be a whole number"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "must be true or false"),
    **dict.fromkeys(("dict_type", "model_type", "model_attributes_type"), "must be an object"),
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
    "less_than": "must be less than {lt}",
    "string_too_short": "must not be empty",
    "string_too_long": "must have at most {max_length} characters",
    "string_pattern_mismatch": "must be 1 to 16 letters",
}
"""What a field must be, by pydantic's word for what is wrong with it."""


def describe_problem(problem: ErrorDetails) -> str:
    """Say what a field must be."""
    words = WORDS.get(problem["type"])
    return words.format(**problem.get("ctx", {})) if words else problem["msg"][:1].lower() + problem["msg"][1:]


def printable_name(name: str) -> str:
    """Shorten and clean a field name that came from outside."""
    return "".join(character if character.isprintable() else "?" for character in name[:64])
