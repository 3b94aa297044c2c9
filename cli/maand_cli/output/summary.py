"""The end of a run in words: failures grouped by identical cause, what was not reached, the slowest steps, what to type next."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from maand_cli.output.text import format_count, format_duration, format_list, format_tally


@dataclass(frozen=True, kw_only=True)
class Failure:
    """One thing that failed; equal to the contract's `Failure`, the kind as a word."""

    kind: str
    job: str = ""
    worker: str = ""
    step: str = ""
    exit_code: int = 0
    message: str = ""
    help: str = ""
    last_lines: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class FailureGroup:
    """Failures with one cause."""

    cause: Failure
    workers: tuple[str, ...]
    size: int


@dataclass(frozen=True, kw_only=True)
class SlowStep:
    """One step and how long it took."""

    subject: str
    step: str
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Ending:
    """Everything the summary tells."""

    kind: str
    run_id: str
    state: str
    seconds: float | None = None
    message: str = ""
    counts: Mapping[str, int] = field(default_factory=dict)
    failures: tuple[Failure, ...] = ()
    unreached: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()
    slowest: tuple[SlowStep, ...] = ()
    next_command: str = ""


def group_failures(failures: Sequence[Failure]) -> list[FailureGroup]:
    """Put failures of one cause together, in the order of their first appearance."""
    groups: dict[tuple[object, ...], list[Failure]] = {}
    for failure in failures:
        key = (failure.kind, failure.job, failure.step, failure.exit_code, failure.message, failure.help, failure.last_lines)
        groups.setdefault(key, []).append(failure)
    return [
        FailureGroup(cause=group[0], workers=tuple(one.worker for one in group if one.worker), size=len(group))
        for group in groups.values()
    ]


SAID = " " * 6
"""How lines begin that a hook or a command said, and no other."""


def summary_lines(ending: Ending) -> Iterator[str]:
    """Give the lines of the summary, the verdict first, the next command last."""
    yield _verdict(ending)
    for notice in ending.notices:
        yield f"  note: {notice}"
    for group in group_failures(ending.failures):
        yield from _failure_lines(group)
    if ending.unreached:
        yield f"  not reached: {format_list(ending.unreached, 20)}"
    if ending.slowest:
        yield "  slowest: " + ", ".join(f"{slow.subject} {slow.step} {format_duration(slow.seconds)}" for slow in ending.slowest)
    if ending.next_command:
        yield f"  next: {ending.next_command}"


def _verdict(ending: Ending) -> str:
    took = f" after {format_duration(ending.seconds)}" if ending.seconds is not None else ""
    words = f"{ending.kind} {ending.state}{took}"
    if ending.message:
        words += f": {ending.message}"
    counts = format_tally(ending.counts)
    return f"{words} ({counts})" if counts and counts not in words else words


def _failure_lines(group: FailureGroup) -> Iterator[str]:
    cause = group.cause
    what = " ".join(part for part in (cause.job, cause.step) if part) or cause.kind
    times = f" ({format_count(group.size, 'time')})" if group.size > 1 else ""
    where = f" on {format_list(group.workers)}" if group.workers else times
    yield f"  failed: {what}{where}: {cause.message or cause.kind}"
    for line in cause.last_lines[-5:]:
        yield SAID + line
    if cause.help:
        yield f"    help: {cause.help}"
