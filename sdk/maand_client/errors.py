"""Errors by meaning, built from the status and the typed detail that every failed call carries.

    MaandError
    ├── Invalid              fix the request, or the files at the positions given
    ├── NotFound             name something that exists
    ├── AlreadyExists        name something that does not exist
    ├── FailedPrecondition   bring it into the state that is needed first
    │   └── BucketHeld       wait for the run that holds the bucket
    ├── Aborted              read again, decide again
    │   └── LostRace         another write came first; `current_version` is the key's newest
    ├── OutOfRange           begin anew from what is still kept
    ├── PermissionDenied     ask somebody who may
    ├── Unauthenticated      present a valid token
    ├── TimedOut             try again, or wait longer
    ├── Unavailable          try again in a moment
    └── RunFailed            the run ended otherwise than it should (`Ended.raise_for_state`)

The words are the server's: `str(error)` says what, `help` what to do next, `code` is stable and for programs, `facts` too.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import grpc

from maand_contracts.common.v1 import error_pb2
from maand_wire.errors import RemoteError


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing wrong at one place of a file that a person wrote. Lines and columns count from 1; 0 = all of it."""

    code: str
    message: str
    file: str = ""
    line: int = 0
    column: int = 0
    help: str = ""


class MaandError(Exception):
    """Something was refused or failed. The message is the server's; do what `help` says."""

    def __init__(
        self,
        message: str,
        *,
        code: str = "",
        help: str = "",  # noqa: A002 - the contract's word
        facts: Mapping[str, str] | None = None,
        problems: Sequence[Problem] = (),
    ) -> None:
        super().__init__(message)
        self.code = code
        self.help = help
        self.facts = dict(facts or {})
        self.problems = tuple(problems)


class Invalid(MaandError):
    """The request is wrong, or files are, at the positions in `problems`. Fix them; a repeat cannot succeed unchanged."""


class NotFound(MaandError):
    """What was named does not exist. Check the name; list what exists."""


class AlreadyExists(MaandError):
    """What was to be created exists. Use it, or choose another name."""


class FailedPrecondition(MaandError):
    """The state does not allow it. Bring about what the message names, then repeat."""


class BucketHeld(FailedPrecondition):
    """Another run holds the bucket. Wait for it (`facts`: run_id, kind, requested_by, since), or allow a lock timeout."""


class Aborted(MaandError):
    """Somebody else was faster. Read the present state and decide again."""


class LostRace(Aborted):
    """Somebody else wrote the key first. Read it again and decide again; `current_version` is its newest version, 0 if none."""

    @property
    def current_version(self) -> int:
        """Version now in force."""
        return int(self.facts.get("current_version", "0"))


class OutOfRange(MaandError):
    """What was asked for is no longer kept. Begin anew from the present state."""


class PermissionDenied(MaandError):
    """This caller may not do that. Use a token with the role that the message names."""


class Unauthenticated(MaandError):
    """No valid token came with the call. Present one that is neither expired nor revoked."""


class TimedOut(MaandError):
    """It did not happen in the time given. Try again, or allow more time."""


class Unavailable(MaandError):
    """Nobody answered for as long as the client's patience lasts. Try again in a moment; see `code` for a TLS failure."""


class RunFailed(MaandError):
    """A run did not succeed. `Ended` says what failed, where, and what to do next."""


BY_CODE: Mapping[str, type[MaandError]] = {"bucket_held": BucketHeld, "kv_precondition_lost": LostRace}
"""Class by an error's stable word, where the word says more than its status."""

BY_STATUS: Mapping[grpc.StatusCode, type[MaandError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: Invalid,
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.ALREADY_EXISTS: AlreadyExists,
    grpc.StatusCode.FAILED_PRECONDITION: FailedPrecondition,
    grpc.StatusCode.ABORTED: Aborted,
    grpc.StatusCode.OUT_OF_RANGE: OutOfRange,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDenied,
    grpc.StatusCode.UNAUTHENTICATED: Unauthenticated,
    grpc.StatusCode.DEADLINE_EXCEEDED: TimedOut,
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    grpc.StatusCode.CANCELLED: Unavailable,
}
"""Class by gRPC status; anything else is a plain `MaandError`."""


@contextmanager
def errors_by_meaning() -> Iterator[None]:
    """Turn the wire's `RemoteError`, raised inside, into the class that says what it means."""
    try:
        yield
    except RemoteError as error:
        raise error_by_meaning(error) from error


def error_by_meaning(error: RemoteError) -> MaandError:
    """Return the error of the class that its code, else its status, stands for."""
    kind = BY_CODE.get(error.code) or BY_STATUS.get(error.status, MaandError)
    problems = [problem_from_message(problem) for problem in error.problems]
    return kind(error.message, code=error.code, help=error.help, facts=error.facts, problems=problems)


def problem_from_message(problem: error_pb2.Problem) -> Problem:
    """Copy a problem out of the contract."""
    return Problem(
        code=problem.code,
        message=problem.message,
        file=problem.file,
        line=problem.line,
        column=problem.column,
        help=problem.help,
    )
