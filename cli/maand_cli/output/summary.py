"""The end of a run in words: failures grouped by identical cause, what was not reached, the slowest steps, what to type next."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from maand_cli.output.causes import Failure, FailureGroup, command_that_helps, fold_runs, fold_workers, group_failures
from maand_cli.output.text import format_count, format_duration, format_list, format_tally


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


SAID = " " * 6
"""How lines begin that a hook or a command said, and no other."""


def summary_lines(ending: Ending) -> Iterator[str]:
    """Give the lines of the summary, the verdict first, the next command last."""
    yield _verdict(ending)
    for notice in ending.notices:
        yield f"  note: {notice}"
    groups = group_failures(ending.failures)
    for group in groups:
        yield from _failure_lines(group)
    if ending.unreached:
        yield f"  not reached: {format_list(list(fold_runs(ending.unreached)), 20)}"
    if ending.slowest:
        yield "  slowest: " + ", ".join(f"{slow.subject} {slow.step} {format_duration(slow.seconds)}" for slow in ending.slowest)
    if next_commands := list(filter(None, (command_that_helps(groups), ending.next_command))):
        yield f"  next: {', then '.join(next_commands)}"


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
    where = f" on {fold_workers(group.workers)}" if group.workers else times
    yield f"  failed: {what}{where}: {cause.message or cause.kind}"
    for line in cause.last_lines[-5:]:
        yield SAID + line
    if cause.help:
        yield f"    help: {cause.help}"
