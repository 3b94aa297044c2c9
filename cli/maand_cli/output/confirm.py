"""Asking a person. Nobody there to answer, and no `--yes`: nothing is done."""

import sys

from maand_cli.errors import MissingPrerequisite, Refused
from maand_cli.flags import Flags


def confirm(flags: Flags, question: str) -> None:
    """Ask until yes. Raises Refused at no, MissingPrerequisite when standard input is no terminal."""
    if flags.yes:
        return
    if not sys.stdin.isatty():
        raise MissingPrerequisite(f"{question.rstrip('?')}: nobody is here to confirm", help="add --yes")
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise Refused("nothing was done")


def confirm_at_terminal(flags: Flags, question: str) -> None:
    """Ask a person who is there; a script that calls the command means it."""
    if sys.stdin.isatty():
        confirm(flags, question)
