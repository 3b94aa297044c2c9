"""One file's text with its parsed data, and where each key of it stands."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from maand_catalog.errors import Problem
from maand_catalog.rules.workspace.problems import Finding, KeyPath

LARGEST_SETTINGS_BYTES = 1024 * 1024
"""Largest file of settings that is read. Payload files have their own, larger limit."""

DEEPEST = 32
"""Levels of nesting that are read; no file of maand needs ten."""


@dataclass(frozen=True, kw_only=True)
class Spot:
    """Character offsets of a key (of its value, when it has none: the document, list items) and of its value."""

    key: int
    value: int


class NotReadable(Exception):
    """The text cannot be read at all. Carries the one problem; nothing else can be said about the file."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem


@dataclass(frozen=True)
class Source:
    """A file that could be read: its data, and positions on demand (only a wrong file pays for them)."""

    file: str
    text: str
    data: Any
    locate: Callable[[str], dict[KeyPath, Spot]]

    @cached_property
    def spots(self) -> dict[KeyPath, Spot]:
        """Every key path of the document with its offsets."""
        return self.locate(self.text)

    def problem(self, finding: Finding) -> Problem:
        """Turn a finding into a problem at its line and column; a path that is not there points at the nearest part above."""
        path, at = finding.path, finding.at
        while path and path not in self.spots:
            path, at = path[:-1], "value"
        spot = self.spots.get(path, Spot(key=0, value=0))
        line, column = position_of(self.text, spot.key if at == "key" else spot.value)
        return Problem(code=finding.code, message=finding.message, file=self.file, line=line, column=column, help=finding.help)


def position_of(text: str, offset: int) -> tuple[int, int]:
    """Return line and column, both from 1, of a character offset."""
    return text.count("\n", 0, offset) + 1, offset - text.rfind("\n", 0, offset)


def decode_text(file: str, content: bytes) -> str:
    """Return the text of a settings file, or raise `NotReadable` for what is empty, huge, or not UTF-8."""
    if len(content) > LARGEST_SETTINGS_BYTES:
        limit = LARGEST_SETTINGS_BYTES // 1024
        raise NotReadable(Problem(code="file_too_large", message=f"the file is larger than {limit} KiB", file=file))
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        line, column = position_of(content[: error.start].decode("utf-8"), len(content[: error.start].decode("utf-8")))
        raise NotReadable(
            Problem(code="not_utf8", message="the file is not UTF-8 text", file=file, line=line, column=column)
        ) from error
    if text.startswith("\ufeff"):
        raise NotReadable(
            Problem(
                code="byte_order_mark",
                message="the file begins with a byte order mark",
                file=file,
                line=1,
                column=1,
                help="save it as UTF-8 without one",
            )
        )
    return text


def refuse_deep(source: Source) -> Source:
    """Refuse what is nested deeper than any file of maand needs; return the source otherwise."""
    level: list[Any] = [source.data]
    for _ in range(DEEPEST):
        level = [child for parent in level for child in children_of(parent)]
        if not level:
            return source
    raise NotReadable(too_deep_problem(source.file))


def children_of(value: Any) -> Iterator[Any]:
    """Yield the parts of a table or a list."""
    if isinstance(value, dict):
        yield from value.values()
    elif isinstance(value, list):
        yield from value


def too_deep_problem(file: str) -> Problem:
    """Say that nesting went too far."""
    return Problem(code="too_deep", message=f"the file nests deeper than {DEEPEST} levels", file=file)


def refuse_nul(source: Source) -> Source:
    """Refuse a text with an escaped U+0000, which no shell, file name or database takes; return the source otherwise."""
    for escape in ("\\u0000", "\\U00000000"):
        offset = source.text.find(escape)
        if offset >= 0 and "\0" in "".join(walk_texts(source.data)):
            line, column = position_of(source.text, offset)
            message = "the character U+0000 cannot be part of a text"
            raise NotReadable(Problem(code="nul_character", message=message, file=source.file, line=line, column=column))
    return source


def walk_texts(value: Any) -> Iterator[str]:
    """Yield every text of a document, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, each in value.items():
            yield key
            yield from walk_texts(each)
    elif isinstance(value, list):
        for each in value:
            yield from walk_texts(each)
