"""Versions of jobs, and amounts of memory and CPU, as people write them.

A version has one to three numeric parts, an optional `v`, an optional prerelease; compared as semantic versions. Amounts are
`"4 gb"`, `"2000 mhz"`; bare numbers are MB and MHz.
"""

import re
from dataclasses import dataclass
from decimal import Decimal
from functools import total_ordering

from maand_catalog.rules.workspace.problems import Rejected

FIRST_VERSION = "0.0.0"
"""Version of a job whose manifest names none, and of an allocation before its first promotion."""

LONGEST_VERSION = 100
"""Longest version, characters."""

VERSION_SHAPE = re.compile(r"v?(\d{1,9})(?:\.(\d{1,9}))?(?:\.(\d{1,9}))?(?:-([0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*))?", re.ASCII)


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
    match = VERSION_SHAPE.fullmatch(text)
    if match is None or len(text) > LONGEST_VERSION:
        raise Rejected(
            "bad_version",
            f'"{text[:60]}" is not a version',
            help='write one to three numbers, for example "2.1.0" or "2.1.0-rc.1"',
        )
    major, minor, patch, prerelease = match.groups()
    return Version((int(major), int(minor or 0), int(patch or 0)), tuple(prerelease.split(".")) if prerelease else ())


def is_version_within(version: str, *, smallest: str | None, largest: str | None) -> bool:
    """Whether a version lies in a range, both ends included; None = no end."""
    value = parse_version(version)
    if smallest is not None and value < parse_version(smallest):
        return False
    return largest is None or value <= parse_version(largest)


MEMORY_UNITS = {"mb": 1, "gb": 1024, "tb": 1024 * 1024}
CPU_UNITS = {"mhz": 1, "ghz": 1000}
LARGEST_AMOUNT = 2**40
"""No machine has more; a larger number is a slip of the keyboard and would not fit a database column."""

AMOUNT_SHAPE = re.compile(r"\s*(\d{1,15}(?:\.\d{1,6})?)\s*([a-z]*)\s*", re.IGNORECASE | re.ASCII)


def parse_memory_mb(written: object) -> int:
    """Return MiB for `"4096 mb"`, `"4 gb"`, `"1 tb"`, `"512"` or 512."""
    return parse_amount(written, MEMORY_UNITS, code="bad_memory", example='"512 mb", "4 gb" or "1 tb"')


def parse_cpu_mhz(written: object) -> int:
    """Return MHz for `"2000 mhz"`, `"2 ghz"`, `"800"` or 800."""
    return parse_amount(written, CPU_UNITS, code="bad_cpu", example='"2000 mhz" or "2 ghz"')


def parse_amount(written: object, units: dict[str, int], *, code: str, example: str) -> int:
    """Read a number with an optional unit; the result is whole in the smallest unit."""
    if isinstance(written, bool) or not isinstance(written, int | float | str):
        raise Rejected(code, "an amount is a string or a number", help=f"write {example}")
    match = AMOUNT_SHAPE.fullmatch(str(written))
    unit = match[2].lower() if match else ""
    if match is None or (unit and unit not in units):
        raise Rejected(code, f'"{str(written)[:60]}" is not an amount', help=f"write {example}")
    value = Decimal(match[1]) * units.get(unit, 1)
    if value != int(value) or value > LARGEST_AMOUNT:
        raise Rejected(code, f'"{written}" is not a whole number of {next(iter(units))}, or too large', help=f"write {example}")
    return int(value)
