"""What the catalog refuses, and what to do about it.

    CatalogError
    ├── InvalidArgument        fix the request
    │   ├── InvalidWorkspace   fix the files at the positions given
    │   ├── InvalidConfig      fix maand.conf at the positions given
    │   └── LimitExceeded      send less
    ├── NotFound               name something that exists
    ├── AlreadyExists          name something that does not exist
    ├── PreconditionLost       read again, decide again
    ├── FailedPrecondition     bring it into the state that is needed first
    ├── PermissionDenied       ask somebody who may
    ├── Unauthenticated        present a valid token
    ├── TimedOut               try again, or wait longer
    ├── OutOfRange             begin anew from what is still kept
    └── Unavailable            try again in a moment
        └── DiskFailed         free or mend the disk that holds the database

Domain errors subclass one of these where they need a `code` of their own. `rpc/services.py` maps classes to gRPC statuses.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing wrong at one place of a file that a person wrote. Lines and columns count from 1; 0 = all of it."""

    code: str
    message: str
    file: str = ""
    line: int = 0
    column: int = 0
    help: str = ""


class CatalogError(Exception):
    """Something was refused. The message says what; `help` says what to do next; `facts` are for programs."""

    code = "catalog_error"
    help = ""

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        help: str | None = None,  # noqa: A002 - the contract's word
        facts: Mapping[str, Any] | None = None,
        problems: Sequence[Problem] = (),
    ) -> None:
        super().__init__(message)
        self.code = code or self.code
        self.help = self.help if help is None else help
        self.facts: dict[str, Any] = dict(facts or {})
        self.problems: tuple[Problem, ...] = tuple(problems)


class InvalidArgument(CatalogError):
    """The request itself is wrong. Fix it; sending it again unchanged cannot succeed."""

    code = "invalid_argument"


class InvalidWorkspace(InvalidArgument):
    """Files of the workspace are wrong; nothing changed. Fix each problem at its position."""

    code = "invalid_workspace"


class InvalidConfig(InvalidArgument):
    """The `maand.conf` sent is wrong; nothing changed. Fix each problem at its position."""

    code = "invalid_config"


class LimitExceeded(InvalidArgument):
    """Something is larger than the catalog keeps. Send less; the message names the limit."""

    code = "limit_exceeded"


class NotFound(CatalogError):
    """What was named does not exist. Check the name; list what exists."""

    code = "not_found"


class AlreadyExists(CatalogError):
    """What was to be created exists. Use it, or choose another name."""

    code = "already_exists"


class PreconditionLost(CatalogError):
    """Somebody else was faster. Read the present state and decide again."""

    code = "precondition_lost"


class FailedPrecondition(CatalogError):
    """The state does not allow it. Bring about what the message names, then repeat."""

    code = "failed_precondition"


class PermissionDenied(CatalogError):
    """This caller may not do that. Use a caller with the role or scope that the message names."""

    code = "permission_denied"


class Unauthenticated(CatalogError):
    """No valid token came with the call. Present one that is neither expired nor revoked."""

    code = "unauthenticated"


class TimedOut(CatalogError):
    """It did not happen in the time given. Try again, or allow more time."""

    code = "timed_out"


class OutOfRange(CatalogError):
    """What was asked for is no longer kept. Begin anew from the present state."""

    code = "out_of_range"


class Unavailable(CatalogError):
    """The catalog cannot answer right now (its database is away). Try again in a moment."""

    code = "unavailable"


class DiskFailed(Unavailable):
    """The disk below a SQLite database is full, read-only or broken. Mend that; what waited for it goes on by itself."""

    code = "disk_failed"
