"""How hook processes ended: one result per invocation, one outcome per event."""

import signal
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Self

from maand_executor.rules.facts import InvocationOutcome


@dataclass(frozen=True, kw_only=True)
class InvocationResult:
    """How one hook ended on one allocation. `exit_code` of a process ended by signal n is 128 + n, as shells say it."""

    hook: str
    allocation_id: str
    worker: str
    outcome: InvocationOutcome
    exit_code: int = 0
    duration: timedelta = timedelta()
    message: str = ""
    last_lines: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()
    """Lines it gave for the run's summary, masked."""

    @property
    def ok(self) -> bool:
        """Whether it did what it should."""
        return self.outcome is InvocationOutcome.SUCCEEDED


@dataclass(frozen=True, kw_only=True)
class EventOutcome:
    """How an event ended for one job."""

    results: tuple[InvocationResult, ...] = ()
    untouched: tuple[str, ...] = ()
    """Workers on which a hook was still to run when an earlier failure or a cancel ended the event, in rollout order."""
    stopped: bool = False
    """Whether a cancel kept later batches from being begun."""

    @property
    def cancelled(self) -> bool:
        """Whether a cancel left something undone: an invocation ended by it, or a batch not begun."""
        return self.stopped or any(result.outcome is InvocationOutcome.CANCELLED for result in self.results)

    @property
    def ok(self) -> bool:
        """Whether everything ran and nothing failed."""
        return not self.failed and not self.untouched and not self.cancelled

    def followed_by(self, next_one: Self) -> Self:
        """Return what both came to, one after the other."""
        return replace(
            self,
            results=self.results + next_one.results,
            untouched=self.untouched + next_one.untouched,
            stopped=self.stopped or next_one.stopped,
        )

    @property
    def failed(self) -> tuple[InvocationResult, ...]:
        """The invocations that did not succeed."""
        return tuple(result for result in self.results if not result.ok)

    def passed_workers(self, last_hook: str) -> frozenset[str]:
        """Return the workers for which every hook of the event ended well, given the last of them in the order they run.

        A failure ends the event, so whoever got through the last hook got through all. One that runs once for all allocations
        speaks for all of them: when it failed, nobody passed.
        """
        return frozenset(result.worker for result in self.results if result.ok and result.hook == last_hook)

    @property
    def notices(self) -> tuple[str, ...]:
        """What the hooks said for the run's summary; the same said by many is said once."""
        return tuple(dict.fromkeys(notice for result in self.results for notice in result.notices))

    @property
    def failed_workers(self) -> tuple[str, ...]:
        """The workers of those, each once."""
        return tuple(dict.fromkeys(result.worker for result in self.failed))


def outcome_of(exit_code: int, ended_as: InvocationOutcome | None) -> InvocationOutcome:
    """Judge an ended process: why maand ended it, else its exit code."""
    if ended_as is not None:
        return ended_as
    return InvocationOutcome.SUCCEEDED if exit_code == 0 else InvocationOutcome.FAILED


def shell_exit_code(return_code: int) -> int:
    """Return 128 + n for a process that ended by signal n (return code -n)."""
    return return_code if return_code >= 0 else 128 - return_code


def sentence_of(outcome: InvocationOutcome, return_code: int, timeout: timedelta) -> str:
    """Say for people how a process ended. Empty for success."""
    match outcome:
        case InvocationOutcome.SUCCEEDED:
            return ""
        case InvocationOutcome.TIMED_OUT:
            return f"timed out after {round(timeout.total_seconds(), 2):g} s"
        case InvocationOutcome.CANCELLED:
            return "ended because the run was cancelled"
        case InvocationOutcome.INTERRUPTED:
            return "ended because its executor stopped"
        case InvocationOutcome.FAILED:
            return f"exit code {return_code}" if return_code > 0 else f"ended by {signal_name(-return_code)}"


def sentence_of_survivor(pid: int) -> str:
    """Say, after how it ended, that a process is alive all the same; nothing for 0."""
    return f"; process {pid} on the executor's host cannot be ended and goes on" if pid else ""


def signal_name(number: int) -> str:
    """Return `SIGSEGV` for 11; real-time signals have no name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
