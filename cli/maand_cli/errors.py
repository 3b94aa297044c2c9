"""What can go wrong in the command line itself.

    CliError
    ├── Usage                 exit 2
    │   └── UnknownName
    ├── InvalidFile           exit 3, with positions
    ├── MissingPrerequisite   exit 3
    │   └── NoBucket
    ├── ServiceUnreachable    exit 7
    │   └── OtherVersion
    ├── NotThere              exit 1
    └── Refused               exit 1, a person said no

Everything is shown in the same form (`maand_cli.output.problems`), whether it was found here or told by a service.
"""

from dataclasses import dataclass

from maand_cli.exits import Exit


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing wrong at one place; equal to the contract's `Problem`. `line` 0 = the whole file, `column` 0 = the line."""

    code: str
    message: str
    file: str = ""
    line: int = 0
    column: int = 0
    help: str = ""


class CliError(Exception):
    """Base of everything the command line refuses. The message is one sentence; `help` is the next thing to type."""

    code = "failed"
    exit_code = Exit.FAILED

    def __init__(self, message: str, *, help: str = "") -> None:  # noqa: A002 - the contract's word
        super().__init__(message)
        self.help = help

    def problems(self) -> tuple[Problem, ...]:
        """Return what is to be shown."""
        return (Problem(code=self.code, message=str(self), help=self.help),)


class Usage(CliError):
    """The command was typed wrongly."""

    code = "usage"
    exit_code = Exit.USAGE


class UnknownName(Usage):
    """No such job, worker, hook or run; the help names the nearest known one."""

    code = "unknown_name"


class InvalidFile(CliError):
    """A file of the bucket is wrong; every problem carries its position."""

    code = "invalid_file"
    exit_code = Exit.INVALID

    def __init__(self, *found: Problem) -> None:
        super().__init__(found[0].message)
        self.found = found

    def problems(self) -> tuple[Problem, ...]:
        """Return every problem found."""
        return self.found


class MissingPrerequisite(CliError):
    """Something this command needs is not there; nothing was done."""

    code = "missing_prerequisite"
    exit_code = Exit.INVALID


class NoBucket(MissingPrerequisite):
    """Neither --bucket nor MAAND_BUCKET nor any directory above holds a maand.conf."""

    code = "no_bucket"


class ServiceUnreachable(CliError):
    """The services do not answer; their log knows why."""

    code = "service_unreachable"
    exit_code = Exit.SERVICE


class OtherVersion(ServiceUnreachable):
    """The services that run belong to another version of maand: stop them, the next command starts its own."""

    code = "other_version"


class NotThere(CliError):
    """What was asked for does not exist."""

    code = "not_found"


class Refused(CliError):
    """A person answered no; nothing was done."""

    code = "refused"
