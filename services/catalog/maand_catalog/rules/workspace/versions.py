"""Versions of jobs: one to three numeric parts, an optional `v`, an optional prerelease; compared as semantic versions."""

import re
from dataclasses import dataclass
from functools import total_ordering

from maand_catalog.rules.workspace.problems import Rejected

FIRST = "0.0.0"
"""Version of a job whose manifest names none, and of an allocation before its first promotion."""

LONGEST = 100
"""Longest version, characters."""

SHAPE = re.compile(r"v?(\d{1,9})(?:\.(\d{1,9}))?(?:\.(\d{1,9}))?(?:-([0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*))?", re.ASCII)


@total_ordering
@dataclass(frozen=True)
class Version:
    """A version that compares by semver's precedence: numbers first, a prerelease before its release."""

    numbers: tuple[int, int, int]
    prerelease: tuple[str, ...] = ()

    def precedence(self) -> tuple[object, ...]:
        """Return what to compare. Identifiers: numeric ones by value and before words, a shorter list before a longer."""
        identifiers = tuple((0, int(part), "") if part.isdigit() else (1, 0, part) for part in self.prerelease)
        return (self.numbers, not self.prerelease, identifiers)

    def __lt__(self, other: "Version") -> bool:
        return self.precedence() < other.precedence()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Version) and self.precedence() == other.precedence()

    def __hash__(self) -> int:
        return hash(self.precedence())


def parse_version(text: str) -> Version:
    """Read a version; missing parts are 0, so that `1`, `v1.0` and `1.0.0` are equal."""
    match = SHAPE.fullmatch(text)
    if match is None or len(text) > LONGEST:
        raise Rejected(
            "bad_version",
            f'"{text[:60]}" is not a version',
            help='write one to three numbers, for example "2.1.0" or "2.1.0-rc.1"',
        )
    major, minor, patch, prerelease = match.groups()
    return Version((int(major), int(minor or 0), int(patch or 0)), tuple(prerelease.split(".")) if prerelease else ())


def within(version: str, *, smallest: str | None, largest: str | None) -> bool:
    """Whether a version lies in a range, both ends included; None = no end."""
    value = parse_version(version)
    if smallest is not None and value < parse_version(smallest):
        return False
    return largest is None or value <= parse_version(largest)
