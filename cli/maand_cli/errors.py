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
    """The command was typed wrongly. Type it as `help` or `--help` says."""

    code = "usage"
    exit_code = Exit.USAGE


class UnknownName(Usage):
    """No such job, worker, hook or run. Check the name; `help` names the nearest known one."""

    code = "unknown_name"


class InvalidFile(CliError):
    """A file of the bucket is wrong. Mend it where the problems point, then repeat the command."""

    code = "invalid_file"
    exit_code = Exit.INVALID

    def __init__(self, *found: Problem) -> None:
        super().__init__(found[0].message)
        self.found = found

    def problems(self) -> tuple[Problem, ...]:
        """Return every problem found."""
        return self.found


class MissingPrerequisite(CliError):
    """Something this command needs is not there; nothing was done. Provide what `help` names, then repeat it."""

    code = "missing_prerequisite"
    exit_code = Exit.INVALID


class NoBucket(MissingPrerequisite):
    """No maand.conf here or above. Go into a bucket, name one with --bucket or MAAND_BUCKET, or make one with `maand init`."""

    code = "no_bucket"


class ServiceUnreachable(CliError):
    """The services do not answer. See why with `maand services logs`; for remote ones, check the addresses of the context."""

    code = "service_unreachable"
    exit_code = Exit.SERVICE


class OtherVersion(ServiceUnreachable):
    """The services that run are of another version. Stop them (`maand services stop`): the next command starts its own."""

    code = "other_version"


class NotThere(CliError):
    """What was asked for does not exist. List what there is, and check the name."""

    code = "not_found"


class Refused(CliError):
    """A person answered no; nothing was done. Repeat the command to answer again, or add --yes."""

    code = "refused"
