"""Lists as people type them: commas, repetition, `@file`, `-` for standard input."""

from collections.abc import Callable, Iterable
from pathlib import Path


def split_list(values: Iterable[str], *, read_stdin: Callable[[], str]) -> tuple[str, ...]:
    """Flatten list arguments, keeping the first occurrence of each item.

    `a,b` is two items; `@hosts` reads the file, `-` reads standard input: one item a line or comma-separated, `#` begins a
    comment. Raises OSError when a file cannot be read.
    """
    items: dict[str, None] = {}
    for value in values:
        for item in _items(_text(value, read_stdin)):
            items.setdefault(item)
    return tuple(items)


def _text(value: str, read_stdin: Callable[[], str]) -> str:
    if value == "-":
        return read_stdin()
    if value.startswith("@"):
        return Path(value[1:]).read_text()
    return value


def _items(text: str) -> Iterable[str]:
    for line in text.splitlines():
        for item in line.partition("#")[0].split(","):
            if item.strip():
                yield item.strip()
