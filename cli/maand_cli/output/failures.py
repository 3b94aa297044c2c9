"""The one door for errors: any exception becomes problems and an exit code, in the form asked for.

Never a raw gRPC error and never a traceback, unless `-vv`.
"""

import re
import sys
import traceback
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from maand_cli.errors import CliError, Problem
from maand_cli.exits import EXIT_OF_CODE, Exit, exit_of_error
from maand_cli.flags import Flags
from maand_cli.output.problems import ERROR, error_header, problem_lines, problems_document
from maand_cli.output.terminal import wants_color, write_line
from maand_wire.nearest import did_you_mean

if TYPE_CHECKING:
    from maand_wire.errors import RemoteError


def report_error(error: BaseException, flags: Flags) -> int:
    """Show what went wrong and return the exit code."""
    if isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        return report_error(error.exceptions[0], flags)
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        click.echo(error.format_message(), err=True)
        return Exit.USAGE
    problems, code = describe_error(error)
    print_problems(problems, flags)
    if flags.verbose > 1:
        traceback.print_exception(error)
    return code


def print_problems(problems: Sequence[Problem], flags: Flags) -> None:
    """Print problems for people on standard error, or as the one document on standard output."""
    if flags.is_human:
        write_problems(problems, flags)
        return
    if flags.output == "jsonl" and not flags.header_printed:
        print(error_header())
    print(problems_document(problems, jsonl=flags.output == "jsonl"))


def write_problems(problems: Sequence[Problem], flags: Flags) -> None:
    """Write problems for people to standard error."""
    color = wants_color(flags.color, sys.stderr)
    for line in problem_lines(problems):
        write_line(line, sys.stderr, red=len(ERROR) if color and line.startswith(ERROR) else 0)


def describe_error(error: BaseException) -> tuple[tuple[Problem, ...], int]:
    """Turn an exception into problems and an exit code."""
    if isinstance(error, CliError):
        return error.problems(), error.exit_code
    if isinstance(error, click.exceptions.Abort):
        return (Problem(code="interrupted", message="interrupted"),), Exit.INTERRUPTED
    if isinstance(error, click.ClickException):
        return (_usage(error),), Exit.USAGE
    wire = sys.modules.get("maand_wire.errors")
    if wire is not None and isinstance(error, wire.RemoteError):
        return _remote(error)
    endpoints = sys.modules.get("maand_wire.endpoints")
    if endpoints is not None and isinstance(error, endpoints.EndpointError):
        return (Problem(code=error.code, message=str(error)),), EXIT_OF_CODE.get(error.code, Exit.INVALID)
    if isinstance(error, OSError):
        return (_from_system(error),), Exit.INVALID
    return (
        Problem(
            code="internal",
            message=f"maand itself failed: {type(error).__name__}: {error}",
            help="run it again with -vv to see where",
        ),
    ), Exit.FAILED


def _usage(error: click.ClickException) -> Problem:
    context = getattr(error, "ctx", None)
    advice = getattr(error, "help", "") or (f"{context.command_path} --help" if context else "")
    if isinstance(error, click.NoSuchOption):
        near = sorted(error.possibilities or ())
        return Problem(
            code="usage", message=f'no such option "{error.option_name}"', help=f'did you mean "{near[0]}"?' if near else advice
        )
    message = error.format_message().rstrip(".")
    message = message[:1].lower() + message[1:]
    if isinstance(error, click.BadParameter) and error.param is not None and isinstance(error.param.type, click.Choice):
        wrong = re.search(r"'([^']*)' is not one of", message)
        advice = (did_you_mean(wrong[1], map(str, error.param.type.choices)) if wrong else "") or advice
    return Problem(code="usage", message=message, help=advice)


def _from_system(error: OSError) -> Problem:
    what = f"{error.filename}: " if error.filename else ""
    return Problem(code="system_error", message=f"{what}{error.strerror or error}")


def _remote(error: "RemoteError") -> tuple[tuple[Problem, ...], int]:
    status = error.status.name
    code = exit_of_error(error.code, status)
    if error.problems:
        return tuple(problem_from_message(problem) for problem in error.problems), code
    message, advice = (error.message, error.help) if error.spoken else UNSPOKEN.get(status, (error.message, error.help))
    return (Problem(code=error.code, message=message, help=advice),), code


UNSPOKEN = {
    "UNAVAILABLE": ("the services do not answer", "see the log: maand services logs"),
    "UNIMPLEMENTED": ("the services are of another version of maand", "maand services stop"),
    "DEADLINE_EXCEEDED": ("the services did not answer in time", "see the log: maand services logs"),
    "UNKNOWN": ("a service failed unexpectedly", "see the log: maand services logs"),
    "INTERNAL": ("a service failed unexpectedly", "see the log: maand services logs"),
    "CANCELLED": ("the call was cancelled", ""),
}
"""Words for failures that no service described: gRPC's own are not for people."""


def problem_from_message(problem: object) -> Problem:
    """Copy a contract `Problem`."""
    return Problem(**{name: getattr(problem, name) for name in Problem.__dataclass_fields__})
