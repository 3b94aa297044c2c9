"""TOML with positions: tomllib parses, and a small walk over text that is known to be good finds where each key stands."""

import re
import tomllib
from collections.abc import Iterator
from typing import Any

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
from maand_catalog.rules.workspace.problems import Finding, KeyPath

LARGEST_BITS = 63
"""Bits of a whole number, its sign apart."""

PLACE = re.compile(r"(.*) \(at (?:line (\d+), column (\d+)|end of document)\)", re.DOTALL)
LONG_KEY = re.compile(r"""(?<![\w-])(?:[\w-]+|"[^"\n]*"|'[^'\n]*')(?:[ \t]*\.[ \t]*(?:[\w-]+|"[^"\n]*"|'[^'\n]*')){64}""")
"""A dotted key with more parts than any file may nest: tomllib takes quadratic time for it."""

BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
SPACE = re.compile(r"[ \t]*")
KEY_PART = re.compile(r"""[A-Za-z0-9_-]+|"(?:[^"\\]|\\.)*"|'[^']*'""")
SCALAR = re.compile(r'''"""(?:[^\\]|\\.)*?"{3,5}|\'\'\'.*?'{3,5}|"(?:[^"\\]|\\.)*"|'[^']*'|[^,\]}\n#]+''', re.DOTALL)


def read_toml(file: str, content: bytes) -> Source:
    """Parse a TOML file, or raise `NotReadable` with the position of what is wrong. An empty file is an empty table."""
    text = decode_text(file, content)
    if LONG_KEY.search(text):
        raise NotReadable(too_deep_problem(file))
    try:
        return refuse_large(refuse_nul(refuse_deep(Source(file, text, tomllib.loads(text), find_toml_spots))))
    except tomllib.TOMLDecodeError as error:
        raise NotReadable(toml_syntax_problem(file, text, str(error))) from error
    except RecursionError as error:
        raise NotReadable(too_deep_problem(file)) from error
    except ValueError as error:  # a number with thousands of digits
        raise NotReadable(Problem(code="number_too_large", message="a number is too large", file=file)) from error


def refuse_large(source: Source) -> Source:
    """Refuse a whole number beyond the 64 bits of TOML (in hexadecimal tomllib reads any); return the source otherwise."""
    for path, value in walk_values(source.data):
        if isinstance(value, int) and value.bit_length() > LARGEST_BITS:
            finding = Finding(code="number_too_large", message="a number is too large", file=source.file, path=path)
            raise NotReadable(source.problem(finding))
    return source


def walk_values(value: Any, path: KeyPath = ()) -> Iterator[tuple[KeyPath, Any]]:
    """Yield every value that is neither table nor list, with its path."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if inside is None:
        yield path, value
        return
    for step, each in inside:
        yield from walk_values(each, (*path, step))


def toml_syntax_problem(file: str, text: str, said: str) -> Problem:
    """Read the position out of tomllib's message. It stands after a repeated key's value, so that only the line is told."""
    match = PLACE.fullmatch(said)
    message, line, column = (match[1], match[2], match[3]) if match else (said, None, None)
    end_line, end_column = position_of(text, len(text.rstrip("\n")))
    if message.startswith(("Cannot overwrite", "Cannot declare")):
        return Problem(code="duplicate_key", message="a key or table is given twice", file=file, line=int(line or end_line))
    return Problem(
        code="toml_syntax",
        message=f"not TOML: {message[:1].lower()}{message[1:]}",
        file=file,
        line=int(line or end_line),
        column=int(column or end_column),
    )


def find_toml_spots(text: str) -> dict[KeyPath, Spot]:
    """Find the offsets of every key and value of a well-formed TOML text."""
    return TomlWalk(text.replace("\r\n", " \n")).spots


class TomlWalk:
    """One pass over well-formed TOML. Offsets are those of the text; table headers count as the keys they name."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.spots: dict[KeyPath, Spot] = {(): Spot(key=0, value=0)}
        self.arrays: dict[KeyPath, int] = {}
        table: KeyPath = ()
        while self.skip(BLANK) < len(text):
            if text[self.at] == "[":
                table = self.header()
            else:
                self.assignment(table)

    def skip(self, shape: re.Pattern[str]) -> int:
        """Move past what matches here and return the new offset."""
        match = shape.match(self.text, self.at)
        if match is not None:
            self.at = match.end()
        return self.at

    def header(self) -> KeyPath:
        """Read `[a.b]` or `[[a.b]]` and return the path that the lines below it extend."""
        brackets = 2 if self.text.startswith("[[", self.at) else 1
        self.at += brackets
        start = self.skip(SPACE)
        path: KeyPath = ()
        for part, offset in self.key():
            path = (*path, part)
            self.spots.setdefault(path, Spot(key=offset, value=offset))
            if path in self.arrays and path:
                path = (*path, self.arrays[path])
        self.at += brackets
        return path if brackets == 1 else self.array_item(path, start)

    def array_item(self, path: KeyPath, start: int) -> KeyPath:
        """Begin the next table of an array of tables."""
        if path and isinstance(path[-1], int):
            path = path[:-1]
        self.arrays[path] = self.arrays.get(path, -1) + 1
        item = (*path, self.arrays[path])
        self.spots[item] = Spot(key=start, value=start)
        return item

    def assignment(self, table: KeyPath) -> None:
        """Read `a.b = value`."""
        path = table
        parts = self.key()
        for part, offset in parts:
            path = (*path, part)
            self.spots.setdefault(path, Spot(key=offset, value=offset))
        self.at += 1  # the equals sign
        self.skip(SPACE)
        self.spots[path] = Spot(key=parts[-1][1], value=self.at)
        self.value(path)

    def key(self) -> list[tuple[str, int]]:
        """Read a dotted key: its parts with their offsets."""
        parts: list[tuple[str, int]] = []
        while True:
            start = self.skip(SPACE)
            self.skip(KEY_PART)
            parts.append((unquote_key(self.text[start : self.at]), start))
            self.skip(SPACE)
            if self.text[self.at] != ".":
                return parts
            self.at += 1

    def value(self, path: KeyPath) -> None:
        """Pass over a value, entering lists and inline tables."""
        opening = self.text[self.at]
        if opening not in "[{":
            self.skip(SCALAR)
            return
        self.at += 1
        closing = "]" if opening == "[" else "}"
        count = 0
        while self.text[self.skip(BLANK)] != closing:
            if self.text[self.at] == ",":
                self.at += 1
            elif opening == "{":
                self.assignment(path)
            else:
                self.spots[(*path, count)] = Spot(key=self.at, value=self.at)
                self.value((*path, count))
                count += 1
        self.at += 1


def unquote_key(written: str) -> str:
    """Return a key without its quotes and escapes."""
    if written.startswith("'"):
        return written[1:-1]
    if written.startswith('"'):
        parsed: dict[str, Any] = tomllib.loads(f"k = {written}")
        return str(parsed["k"])
    return written
