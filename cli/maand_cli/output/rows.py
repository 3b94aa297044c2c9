"""What a command says: lists and single values on standard output, in the form asked for; notes and questions beside it."""

import json
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from maand_cli.errors import MissingPrerequisite, Refused
from maand_cli.flags import Flags
from maand_cli.output.problems import SCHEMA_VERSION
from maand_cli.output.terminal import write_line, write_text
from maand_cli.output.text import format_iso_time, format_moment, shorten_text, table_lines


def show_rows(flags: Flags, kind: str, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    """Print a list: a table of `columns` for people; an array with all fields as JSON. Nothing says so on standard error."""
    if flags.output == "json":
        print(json.dumps(list(rows), default=_json))
    elif flags.output == "jsonl":
        _lines({"type": "header", "schema_version": SCHEMA_VERSION, "kind": kind})
        for row in rows:
            _lines({"type": "item", **row})
        _lines({"type": "result", "count": len(rows)})
    elif not rows:
        print_note(flags, f"no {kind.replace('_', ' ')}")
    else:
        names = [column.replace("_", " ") for column in columns]
        for line in table_lines(names, [[_shown(column, row.get(column)) for column in columns] for row in rows]):
            write_line(line)


def show_values(flags: Flags, kind: str, values: Mapping[str, Any]) -> None:
    """Print one thing: `name  value` lines for people, one object as JSON."""
    if flags.output == "json":
        print(json.dumps(values, default=_json))
    elif flags.output == "jsonl":
        _lines({"type": "header", "schema_version": SCHEMA_VERSION, "kind": kind})
        _lines({"type": "result", **values})
    else:
        width = max((len(name) for name in values), default=0)
        for name, value in values.items():
            write_line(f"{name.replace('_', ' ').ljust(width)}  {_text(_shown(name, value))}")


TIMES = ("_at", "since", "not_before", "not_after")
"""How the names of fields end that hold a time."""


def _shown(name: str, value: Any) -> Any:
    if not isinstance(value, str):
        return value
    if value and name.endswith(TIMES):
        return format_iso_time(value)
    return shorten_text(value) if name == "value" else value


def print_note(flags: Flags, text: str) -> None:
    """Tell a person something that is not data."""
    if flags.is_human and not flags.quiet:
        write_text(text, sys.stderr)


def ask_confirmation(flags: Flags, question: str) -> None:
    """Ask until yes. Raises Refused at no, MissingPrerequisite when standard input is no terminal."""
    if flags.yes:
        return
    if not sys.stdin.isatty():
        raise MissingPrerequisite(f"{question.rstrip('?')}: nobody is here to confirm", help="add --yes")
    write_text(f"{question} [y/N] ", sys.stderr, end="", flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise Refused("nothing was done")


def ask_confirmation_at_terminal(flags: Flags, question: str) -> None:
    """Ask a person who is there; a script that calls the command means it."""
    if sys.stdin.isatty():
        ask_confirmation(flags, question)


def _lines(record: Mapping[str, Any]) -> None:
    print(json.dumps(record, default=_json))


def _text(value: Any) -> str:
    if isinstance(value, datetime):
        return format_moment(value)
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value)) or "-"
    return "-" if value in (None, "") else str(value)


def _json(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    raise TypeError(f"{type(value).__name__} has no JSON form")
