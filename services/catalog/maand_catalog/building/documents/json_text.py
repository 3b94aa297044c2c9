"""JSON as the standard says: repeated keys, NaN and broken escapes are errors, and every key has a position."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NoReturn

from maand_catalog.building.documents.source import (
    NotReadable,
    Source,
    Spot,
    decode_text,
    position_of,
    refuse_deep,
    refuse_nul,
    too_deep_problem,
)
from maand_catalog.errors import Problem
from maand_catalog.rules.workspace.problems import KeyPath

TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{}:,]|[^\s\[\]{}:,"]+', re.DOTALL)
SURROGATE = re.compile("[\ud800-\udfff]")


def read_json(file: str, content: bytes) -> Source:
    """Parse a JSON file, or raise `NotReadable` with the position of what is wrong."""
    text = decode_text(file, content)
    if not text.strip():
        raise NotReadable(Problem(code="empty_file", message="the file is empty", file=file, help="write at least {}"))
    try:
        data = json.loads(text, object_pairs_hook=build_object, parse_constant=refuse_constant, parse_int=read_int)
    except json.JSONDecodeError as error:
        raise NotReadable(
            Problem(code="json_syntax", message=f"not JSON: {error.msg}", file=file, line=error.lineno, column=error.colno)
        ) from error
    except RecursionError as error:
        raise NotReadable(too_deep_problem(file)) from error
    except Refused as error:
        raise NotReadable(locate_refused(file, text, error)) from error
    source = Source(file, text, data, find_json_spots)
    return refuse_nul(check_surrogates(refuse_deep(source)))


class Refused(ValueError):
    """The JSON parser met something that JSON does not allow; its position is found afterwards."""

    def __init__(self, code: str, message: str, literal: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.literal = literal


def build_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Build an object; a repeated key would silently win over the first, so it is refused."""
    built = dict(pairs)
    if len(built) < len(pairs):
        raise Refused("duplicate_key", "a key is given twice", "")
    return built


def refuse_constant(literal: str) -> NoReturn:
    """Refuse NaN and the infinities, which are no JSON."""
    raise Refused("json_syntax", f"not JSON: {literal} is not a number", literal)


def read_int(literal: str) -> int:
    """Read a whole number; absurdly long ones would only waste time."""
    if len(literal) > 30:
        raise Refused("number_too_large", "the number is too large", literal)
    return int(literal)


def locate_refused(file: str, text: str, error: Refused) -> Problem:
    """Find where the refused text stands: for a repeated key its second place."""
    if error.code == "duplicate_key":
        path, spot = next((path, spot) for path, spot, repeated in walk_json(text) if repeated)
        offset, message = spot.key, f'"{path[-1]}" is given twice'
    else:
        offset, message = max(text.find(error.literal), 0), error.message
    line, column = position_of(text, offset)
    return Problem(code=error.code, message=message, file=file, line=line, column=column)


def check_surrogates(source: Source) -> Source:
    """Refuse text that is no text: half of a surrogate pair."""
    if "\\u" in source.text and SURROGATE.search(json.dumps(source.data, ensure_ascii=False)):
        match = re.search(r"\\u[dD][89a-fA-F]", source.text)
        line, column = position_of(source.text, match.start() if match else 0)
        message = "half of a surrogate pair is no text"
        raise NotReadable(Problem(code="not_utf8", message=message, file=source.file, line=line, column=column))
    return source


@dataclass
class Container:
    """An object or list that is being walked through."""

    path: KeyPath
    is_object: bool
    key: str = ""
    key_offset: int = 0
    expects_key: bool = True
    items: int = 0
    seen: set[str] = field(default_factory=set)


def find_json_spots(text: str) -> dict[KeyPath, Spot]:
    """Find the offsets of every key and value of a well-formed JSON text."""
    return {path: spot for path, spot, _ in walk_json(text)}


def walk_json(text: str) -> Iterator[tuple[KeyPath, Spot, bool]]:
    """Yield path, offsets and whether the key repeats, for every value in the order of the text."""
    stack: list[Container] = []
    for match in TOKEN.finditer(text):
        piece, offset = match[0], match.start()
        if piece in "]}":
            stack.pop()
        elif piece == ",":
            stack[-1].expects_key = stack[-1].is_object
        elif piece == ":":
            stack[-1].expects_key = False
        elif stack and stack[-1].is_object and stack[-1].expects_key:
            stack[-1].key, stack[-1].key_offset = json.loads(piece), offset
        else:
            path, spot, repeated = enter_value(stack, offset)
            yield path, spot, repeated
            if piece in "[{":
                stack.append(Container(path, piece == "{"))


def enter_value(stack: list[Container], offset: int) -> tuple[KeyPath, Spot, bool]:
    """Return path and offsets of the value that begins here, and count it in its container."""
    if not stack:
        return (), Spot(key=offset, value=offset), False
    parent = stack[-1]
    if parent.is_object:
        repeated = parent.key in parent.seen
        parent.seen.add(parent.key)
        return (*parent.path, parent.key), Spot(key=parent.key_offset, value=offset), repeated
    parent.items += 1
    return (*parent.path, parent.items - 1), Spot(key=offset, value=offset), False
