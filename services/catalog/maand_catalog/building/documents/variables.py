"""TOML as KV entries: scalars as text, lists comma-joined, nested tables as dotted keys."""

from collections.abc import Iterator, Mapping
from datetime import date, datetime, time
from typing import Any

from maand_catalog.building.documents.source import Source
from maand_catalog.errors import Problem
from maand_catalog.rules.namespaces import KEY_LIMIT, VALUE_LIMIT
from maand_catalog.rules.workspace.problems import Finding, KeyPath


def read_kv_entries(source: Source, data: dict[str, Any], at: KeyPath = ()) -> tuple[dict[str, str], tuple[Problem, ...]]:
    """Return the KV entries of a table, and what of it cannot be one."""
    entries: dict[str, str] = {}
    problems: list[Problem] = []
    for path, value in walk_table(data, ()):
        key = ".".join(str(part) for part in path)
        wrong = wrong_entry(key, value, to_kv_text(value)) or repeated_entry(key, entries)
        entries[key] = to_kv_text(value)
        if wrong:
            problems.append(
                source.problem(Finding(code=wrong[0], message=wrong[1], file=source.file, path=(*at, *path), at="key"))
            )
    return entries, tuple(problems)


def walk_table(table: dict[str, Any], above: KeyPath) -> Iterator[tuple[KeyPath, Any]]:
    """Yield every value that is no table with its path."""
    for key, value in table.items():
        if isinstance(value, dict):
            yield from walk_table(value, (*above, key))
        else:
            yield (*above, key), value


def to_kv_text(value: Any) -> str:
    """Write a TOML value as KV keeps it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, list):
        return ",".join(to_kv_text(item) for item in value)
    return str(value)


def repeated_entry(key: str, entries: Mapping[str, str]) -> tuple[str, str] | None:
    """Say that `"a.b"` and `b` of table `a` are one key of the KV store."""
    return ("duplicate_key", f'"{key}" is given twice: a table\'s key is joined by a dot') if key in entries else None


def wrong_entry(key: str, value: Any, text: str) -> tuple[str, str] | None:
    """Say why an entry cannot be kept, as code and sentence."""
    if not key.strip() or len(key) > KEY_LIMIT or any(ord(letter) < 32 or 127 <= ord(letter) < 160 for letter in key):
        return "bad_variable_name", f"a key has 1 to {KEY_LIMIT} characters and no control characters"
    if isinstance(value, list) and any(isinstance(item, dict | list) for item in value):
        return "bad_variable", f'"{key}" is a list of lists or tables; a variable is a text, a number, or a list of these'
    if len(text.encode()) > VALUE_LIMIT:
        return "variable_too_large", f'"{key}" is larger than 1 MiB'
    return None
