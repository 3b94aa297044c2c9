"""Exit codes, the whole table in one place: from a run's end and from a refused call to the number the shell sees.

| Code | Meaning                                                                    |
|------|----------------------------------------------------------------------------|
| 0    | done, also nothing to do                                                   |
| 1    | the run failed                                                             |
| 2    | wrong usage                                                                |
| 3    | invalid configuration or missing prerequisite, nothing was done            |
| 4    | done with skipped or allowed failures                                      |
| 5    | no target reachable or authentication failed                               |
| 6    | bucket held by another run                                                 |
| 7    | service unreachable or of another version                                  |
| 8    | `--dry-run --exit-code`: changes exist                                     |
| 124  | timed out                                                                  |
| 130  | interrupted                                                                |
"""

from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from enum import IntEnum


class Exit(IntEnum):
    """What the shell sees."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    INVALID = 3
    PARTIAL = 4
    UNREACHABLE = 5
    BUCKET_HELD = 6
    SERVICE = 7
    CHANGES = 8
    TIMED_OUT = 124
    INTERRUPTED = 130


@dataclass(frozen=True, kw_only=True)
class RunEnd:
    """How a run ended, in the contract's words, lower-case and without prefixes (`succeeded`, `unreachable`, …)."""

    state: str
    failure_kinds: frozenset[str] = frozenset()
    counts: Mapping[str, int] = field(default_factory=dict)
    left_out: bool = False
    changes: bool = False


DID_SOMETHING = ("promoted", "stopped", "succeeded", "healthy")
"""Counts that say that some target got what was asked."""

EXIT_OF_CODE: Mapping[str, Exit] = {
    "bucket_held": Exit.BUCKET_HELD,
    "invalid_workspace": Exit.INVALID,
    "invalid_config": Exit.INVALID,
    "not_built": Exit.INVALID,
    "worker_unreachable": Exit.UNREACHABLE,
    "connection_unusable": Exit.UNREACHABLE,
    "certificate_unusable": Exit.UNREACHABLE,
    "certificate_expired": Exit.UNREACHABLE,
    "certificate_not_yet_valid": Exit.UNREACHABLE,
}
"""Exit by an error's stable word, where the word says more than its status."""

EXIT_OF_STATUS: Mapping[str, Exit] = {
    "INVALID_ARGUMENT": Exit.USAGE,
    "OUT_OF_RANGE": Exit.USAGE,
    "FAILED_PRECONDITION": Exit.INVALID,
    "ALREADY_EXISTS": Exit.INVALID,
    "UNAUTHENTICATED": Exit.UNREACHABLE,
    "PERMISSION_DENIED": Exit.UNREACHABLE,
    "UNAVAILABLE": Exit.SERVICE,
    "UNIMPLEMENTED": Exit.SERVICE,
    "DEADLINE_EXCEEDED": Exit.TIMED_OUT,
    "CANCELLED": Exit.INTERRUPTED,
}
"""Exit by gRPC status; anything else is 1."""


def exit_of_error(code: str, status: str) -> Exit:
    """Return the exit code of a refused call."""
    return EXIT_OF_CODE.get(code) or EXIT_OF_STATUS.get(status, Exit.FAILED)


def exit_of_run(end: RunEnd, *, changes_matter: bool = False) -> Exit:
    """Return the exit code of a run that ended; `changes_matter` is `--dry-run --exit-code`."""
    if end.state == "succeeded":
        if changes_matter and end.changes:
            return Exit.CHANGES
        return Exit.PARTIAL if end.left_out or end.failure_kinds else Exit.DONE
    if end.state == "cancelled":
        return Exit.INTERRUPTED
    return _exit_of_failures(end.failure_kinds - {"blocked"}, did_something=any(end.counts.get(word) for word in DID_SOMETHING))


def _exit_of_failures(kinds: Set[str], *, did_something: bool) -> Exit:
    """Decide by what sort of failures there were; a job blocked by another one's failure adds nothing."""
    if "bucket_held" in kinds:
        return Exit.BUCKET_HELD
    if kinds and kinds <= {"timed_out"}:
        return Exit.TIMED_OUT
    if did_something or not kinds:
        return Exit.FAILED
    if kinds <= {"unreachable", "connection", "authentication"}:
        return Exit.UNREACHABLE
    if kinds <= {"invalid", "prerequisite", "local"}:
        return Exit.INVALID
    return Exit.FAILED
