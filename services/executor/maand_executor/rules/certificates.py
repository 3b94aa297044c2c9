"""Certificates near or past their end: whose they are, and the sentences for people. What to do is the catalog's to say."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime

WORKERS_SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class EndingCertificate:
    """A leaf that ends soon or has ended. `help` says what to do."""

    job: str
    name: str
    worker: str
    not_after: datetime
    days_left: int
    ended: bool
    help: str

    @property
    def message(self) -> str:
        """Say that it has ended."""
        return f"certificate {self.name} ended on {self.not_after:%Y-%m-%d}"


@dataclass(frozen=True, kw_only=True)
class EndingCertificates:
    """What is near or past its end. `authority_message` is about the bucket's CA; empty = nothing is the matter with it."""

    leaves: tuple[EndingCertificate, ...] = ()
    authority_message: str = ""
    authority_help: str = ""


def describe_ending(ending: EndingCertificates, leaves: Iterable[EndingCertificate]) -> Iterator[str]:
    """Give a sentence for the CA, and for leaves that end soon one for each certificate and day.

    A leaf that ends with its CA has the CA's remedy and is covered by its sentence.
    """
    if ending.authority_message:
        yield f"{ending.authority_message}; {ending.authority_help}"
    workers: dict[tuple[str, str, int, str], list[str]] = defaultdict(list)
    for leaf in leaves:
        if not leaf.ended and not (ending.authority_message and leaf.help == ending.authority_help):
            workers[leaf.name, leaf.job, leaf.days_left, leaf.help].append(leaf.worker)
    for (name, job, days, help_), where in workers.items():
        yield f"certificate {name} of {describe_places(job, where)} ends in {describe_days(days)}: {help_}"


def describe_places(job: str, workers: list[str]) -> str:
    """Name an allocation, or some of many."""
    if len(workers) == 1:
        return f"{job}@{workers[0]}"
    more = len(workers) - WORKERS_SHOWN
    return f"{job} on {', '.join(workers[:WORKERS_SHOWN])}" + (f" and {more} more" if more > 0 else "")


def describe_days(days: int) -> str:
    """Say how long that is."""
    return "less than a day" if days < 1 else f"{days} day{'s' if days > 1 else ''}"
