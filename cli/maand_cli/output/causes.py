"""Failures of one cause on many workers, told once: what differs is who, and what is in the text because of who.

cannot reach 10.0.0.1:80            --common_cause-->     cannot reach each worker:80
10.0.0.1, 10.0.0.2, …, 10.0.0.20    --fold_workers-->     20 workers (10.0.0.1 … .20)
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from maand_cli.output.text import format_list

MOST_NAMED = 6
"""More workers than these are counted and folded."""

SHORTEST_RUN = 3
"""Names that follow each other by number, from which on only the first and the last are told."""

FINGERPRINT = re.compile(r"SHA256:[A-Za-z0-9+/=]+")

COMMAND = re.compile(r"`(maand [^`]*)`")

PLACE = "\0"
"""Stands for the worker's name while causes are compared."""


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
    """Failures with one cause: of one failure as it is, of several without what differs."""

    cause: Failure
    workers: tuple[str, ...]
    size: int


def group_failures(failures: Sequence[Failure]) -> list[FailureGroup]:
    """Put failures of one cause together, in the order of their first appearance."""
    groups: dict[Failure, list[Failure]] = {}
    for failure in failures:
        groups.setdefault(common_cause(failure), []).append(failure)
    return [as_group(cause, group) for cause, group in groups.items()]


def as_group(cause: Failure, failures: Sequence[Failure]) -> FailureGroup:
    """Tell failures with this in common. Commands that help are told for all of the workers."""
    workers = tuple(dict.fromkeys(failure.worker for failure in failures if failure.worker))
    messages = {bare_message(failure) for failure in failures}
    lines = {failure.last_lines for failure in failures}
    whom = workers[0] if len(workers) == 1 else "each of them"
    told = replace(
        cause,
        message=messages.pop() if len(messages) == 1 else cause.message.replace(PLACE, "each worker"),
        help=COMMAND.sub(lambda found: f"`{command_for(found[1], workers)}`", cause.help).replace(PLACE, whom),
        last_lines=lines.pop() if len(lines) == 1 else tuple(line.replace(PLACE, "each worker") for line in cause.last_lines),
    )
    return FailureGroup(cause=told, workers=workers, size=len(failures))


def common_cause(failure: Failure) -> Failure:
    """Return a failure without what it says only because of its worker: the worker's name, its key's fingerprint."""
    return replace(
        failure,
        worker="",
        message=FINGERPRINT.sub("…", without_worker(bare_message(failure), failure.worker)),
        help=without_worker(failure.help, failure.worker),
        last_lines=tuple(without_worker(line, failure.worker) for line in failure.last_lines),
    )


def bare_message(failure: Failure) -> str:
    """Return the message for a line that names the worker already."""
    if not failure.worker:
        return failure.message
    address = rf"\bto (?:{re.escape(failure.worker)}|\[{re.escape(failure.worker)}\]):(\d+)"
    return re.sub(address, r"to port \1", failure.message.removeprefix(f"{failure.worker}: "))


def without_worker(text: str, worker: str) -> str:
    """Return a text with a place for a worker's name."""
    return re.sub(rf"(?<![\w.:-]){re.escape(worker)}(?![\w-]|\.\w)", PLACE, text) if worker else text


def command_for(command: str, workers: Sequence[str]) -> str:
    """Return a command for all of these workers; one that passes by whoever needs nothing names no crowd."""
    if len(workers) > MOST_NAMED and command in NEED_NO_NAMES:
        return command.replace(f" -w {PLACE}", "")
    return command.replace(f"-w {PLACE}", f"-w {','.join(workers)}").replace(PLACE, " ".join(workers))


NEED_NO_NAMES = (f"maand worker trust -w {PLACE}", f"maand worker ping -w {PLACE}")


def command_that_helps(groups: Sequence[FailureGroup]) -> str:
    """Return the command that mends what failed, where all of it is mended by one: what a refused worker's help names."""
    causes = [group.cause for group in groups if group.cause.kind != "blocked"]
    named = {found[1] if (found := COMMAND.search(cause.help)) and cause.kind in REFUSALS else "" for cause in causes}
    return named.pop() if len(named) == 1 else ""


REFUSALS = ("authentication", "prerequisite", "local")
"""Kinds of failure in which the worker refuses, and the same again would be refused again."""


def fold_workers(workers: Sequence[str]) -> str:
    """Name workers; many are counted, and those that follow each other told by the first and the last: `10.0.0.1 … .20`."""
    if len(workers) <= MOST_NAMED:
        return ", ".join(workers)
    return f"{len(workers)} workers ({format_list(list(fold_runs(workers)), MOST_NAMED)})"


def fold_runs(workers: Sequence[str]) -> Iterator[str]:
    """Give the names in their natural order, three and more that count up as one."""
    run: list[str] = []
    for worker in [*sorted(workers, key=natural_key), ""]:
        if run and worker != next_name(run[-1]):
            yield from [f"{run[0]} … {short_name(run[-1])}"] if len(run) >= SHORTEST_RUN else run
            run = []
        run.append(worker)


def natural_key(name: str) -> list[tuple[str, int]]:
    """Sort `10.0.0.9` before `10.0.0.10`."""
    return [(text, int(number or 0)) for text, number in re.findall(r"(\D*)(\d*)", name)]


NUMBERED = re.compile(r"(.*?)(\d+)(\D*)", re.DOTALL)


def next_name(name: str) -> str | None:
    """Return the name that counts on: `web01` -> `web02`; None for a name without a number."""
    found = NUMBERED.fullmatch(name)
    return f"{found[1]}{int(found[2]) + 1:0{len(found[2])}}{found[3]}" if found else None


def short_name(name: str) -> str:
    """Return the last part of an IPv4 address, any other name whole."""
    return f".{name.rpartition('.')[2]}" if re.fullmatch(r"\d+(\.\d+){3}", name) else name
