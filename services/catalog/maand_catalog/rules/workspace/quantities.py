"""Amounts of memory and CPU as people write them: `"4 gb"`, `"2000 mhz"`, bare numbers are MB and MHz."""

import re
from decimal import Decimal

from maand_catalog.rules.workspace.problems import Rejected

MEMORY_UNITS = {"mb": 1, "gb": 1024, "tb": 1024 * 1024}
CPU_UNITS = {"mhz": 1, "ghz": 1000}
LARGEST = 2**40
"""No machine has more; a larger number is a slip of the keyboard and would not fit a database column."""

AMOUNT = re.compile(r"\s*(\d{1,15}(?:\.\d{1,6})?)\s*([a-z]*)\s*", re.IGNORECASE | re.ASCII)


def memory_mb(written: object) -> int:
    """Return MiB for `"4096 mb"`, `"4 gb"`, `"1 tb"`, `"512"` or 512."""
    return amount(written, MEMORY_UNITS, code="bad_memory", example='"512 mb", "4 gb" or "1 tb"')


def cpu_mhz(written: object) -> int:
    """Return MHz for `"2000 mhz"`, `"2 ghz"`, `"800"` or 800."""
    return amount(written, CPU_UNITS, code="bad_cpu", example='"2000 mhz" or "2 ghz"')


def amount(written: object, units: dict[str, int], *, code: str, example: str) -> int:
    """Read a number with an optional unit; the result is whole in the smallest unit."""
    if isinstance(written, bool) or not isinstance(written, int | float | str):
        raise Rejected(code, "an amount is a string or a number", help=f"write {example}")
    match = AMOUNT.fullmatch(str(written))
    unit = match[2].lower() if match else ""
    if match is None or (unit and unit not in units):
        raise Rejected(code, f'"{str(written)[:60]}" is not an amount', help=f"write {example}")
    value = Decimal(match[1]) * units.get(unit, 1)
    if value != int(value) or value > LARGEST:
        raise Rejected(code, f'"{written}" is not a whole number of {next(iter(units))}, or too large', help=f"write {example}")
    return int(value)
