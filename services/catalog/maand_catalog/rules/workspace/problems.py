"""What is wrong with a file that a person wrote, and where.

    rule -> Finding (file + key path) -> the document's positions -> Problem (file + line + column)

Rules know keys, not lines: they report findings. Whoever holds the text turns a finding into a problem.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from maand_catalog.errors import Problem

TRAILER_BYTES = 512 * 1024
"""Room for problems in an error: half of what `maand_wire.channels` lets clients take, text is sent twice as long at worst."""

KeyPath = tuple[str | int, ...]
"""Keys and indexes from the top of a document down to one value."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing wrong at one key of a document. `at` says whether to point at the key itself or at its value."""

    code: str
    message: str
    file: str
    path: KeyPath = ()
    at: Literal["key", "value"] = "value"
    help: str = ""


class Rejected(ValueError):
    """A single value is wrong. Carries what a finding needs, so that a rule need not know where the value came from."""

    def __init__(self, code: str, message: str, *, help: str = "") -> None:  # noqa: A002 - the contract's word
        super().__init__(message)
        self.code = code
        self.message = message
        self.help = help


def sort_problems(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    """Sort problems by file, line and column, each once: the order in which a person mends them."""
    return tuple(sorted(set(problems), key=lambda each: (each.file, each.line, each.column, each.code, each.message)))


def fit_in_trailer(problems: Sequence[Problem]) -> tuple[Problem, ...]:
    """Return the first problems that fit into the trailer of a failed call; clients refuse larger ones."""
    room = TRAILER_BYTES
    told: list[Problem] = []
    for problem in problems:
        room -= 32 + len(f"{problem.code}{problem.message}{problem.file}{problem.help}".encode())
        if room < 0:
            break
        told.append(problem)
    return tuple(told)
