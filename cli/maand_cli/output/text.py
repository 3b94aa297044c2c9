"""Small pieces of text: durations, counts, lists, tables, quick to import."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from maand_wire.plain_text import escape_controls


def format_duration(seconds: float) -> str:
    """Write a duration for people: `0.4 s`, `12 s`, `3 min 20 s`, `2 h 5 min`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min"


def format_time_of_day(time: datetime) -> str:
    """Write the time of day as people's clocks here show it, with the offset from UTC: `09:11:30+01:00`."""
    return time.astimezone().timetz().isoformat(timespec="seconds")


def format_moment(time: datetime | None) -> str:
    """Write date and time as clocks here show them, with the offset from UTC: `2026-11-22 09:11:30+01:00`; or a dash."""
    return time.astimezone().isoformat(sep=" ", timespec="seconds") if time else "-"


def format_count(number: int, noun: str) -> str:
    """Write a number with its noun: `1 worker`, `3 workers`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def format_list(items: Sequence[str], most: int = 6) -> str:
    """Join items, the first few of many."""
    shown = ", ".join(items[:most])
    return f"{shown} and {len(items) - most} more" if len(items) > most else shown


def format_tally(counts: Mapping[str, int]) -> str:
    """Write counts by word: `2 promoted, 1 skipped`; zeros are left out."""
    return ", ".join(f"{number} {word}" for word, number in counts.items() if number)


def table_lines(headers: Sequence[str], rows: Iterable[Sequence[object]]) -> Iterable[str]:
    """Lay out a table: columns as wide as their widest cell, nothing after the last one. Control characters are spelled out."""
    cells = [[_cell(value) for value in row] for row in rows]
    widths = [max(len(row[column]) for row in [list(headers), *cells]) for column in range(len(headers))]
    for row in [[header.upper() for header in headers], *cells]:
        yield "  ".join(value.ljust(width) for value, width in zip(row, widths, strict=True)).rstrip()


def _cell(value: object) -> str:
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return format_moment(value)
    if isinstance(value, (list, tuple)):
        return escape_controls(",".join(map(str, value))) or "-"
    return escape_controls(str(value))


def shorten_text(text: str, most: int = 60) -> str:
    """Cut a long value for a table."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def format_iso_time(text: str) -> str:
    """Write an ISO 8601 time of a JSON form, which is UTC, for people."""
    return format_moment(datetime.fromisoformat(text))
