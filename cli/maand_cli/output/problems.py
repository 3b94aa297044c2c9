"""Errors as people and programs read them.

error: unknown key "max_concurent_upgrades"
  workspace/jobs/api/manifest.json:4:3
  help: did you mean "max_concurrent_upgrades"?
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict

from maand_cli.errors import Problem

SCHEMA_VERSION = 1
"""Version of every JSON form, told in the header of `-o jsonl`; raised when a field changes its meaning or goes."""

ERROR = "error:"
"""How the first line of each problem begins, and no other."""


def problem_lines(problems: Iterable[Problem]) -> Iterator[str]:
    """Give the lines for people."""
    for problem in problems:
        yield f"{ERROR} {problem.message}"
        if problem.file:
            yield f"  {format_position(problem)}"
        if problem.help:
            yield f"  help: {problem.help}"


def format_position(problem: Problem) -> str:
    """Give `file:line:column`, as far as it is known."""
    numbers = [problem.line, problem.column] if problem.column else [problem.line] if problem.line else []
    return ":".join([problem.file, *map(str, numbers)])


def problem_record(problem: Problem) -> dict[str, object]:
    """Give the JSON form."""
    return asdict(problem)


def error_header() -> str:
    """Give the first line of `-o jsonl` for a command that failed before it had anything to say."""
    return json.dumps({"type": "header", "schema_version": SCHEMA_VERSION, "kind": "error"})


def problems_document(problems: Sequence[Problem], *, jsonl: bool = False) -> str:
    """Give the one document (or the last line) that says that a command failed."""
    records = [problem_record(problem) for problem in problems]
    return json.dumps({"type": "result", "errors": records} if jsonl else {"errors": records})
