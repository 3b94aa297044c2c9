"""`maand run_command`."""

import shlex
import sys
from pathlib import Path

import click

from maand_cli.click_groups import maand_command, rest_of
from maand_cli.coroutines import runs_coroutine
from maand_cli.errors import Usage
from maand_cli.flags import DurationType, Flags
from maand_cli.options import complete_labels, detach_option, keep_going_option, list_option, workers_option


@maand_command("run_command", keeps_rest=True)
@click.argument("words", metavar="CMD", nargs=-1)
@click.option(
    "-f",
    "--file",
    type=click.Path(path_type=Path, dir_okay=False, exists=True, allow_dash=True),
    help="Script to run instead of CMD; - is standard input.",
)
@workers_option
@list_option("--labels", "-l", help="Only workers with any of these labels.", complete=complete_labels)
@click.option("-c", "--concurrency", type=click.IntRange(min=0), default=0, help="Workers at once; 0 = all.")
@click.option("--command-timeout", type=DurationType(), default=0, metavar="TIME", help="Limit of one command.")
@keep_going_option
@detach_option
@runs_coroutine
async def run_command(
    flags: Flags,
    *,
    words: tuple[str, ...],
    file: Path | None,
    workers: tuple[str, ...],
    labels: tuple[str, ...],
    concurrency: int,
    command_timeout: float,
    keep_going: bool,
    detach: bool,
) -> int:
    """Run a shell command on all or selected workers: CMD, or all words after --. CMD - reads a script from standard input.

    It runs in the bucket's directory on the worker when that exists, with BUCKET_ID and WORKER_IP set.
    """
    script = read_script(one_command(words, rest_of(click.get_current_context())), file)
    from maand_cli.remote.session import open_session
    from maand_cli.runs.conclude import run_to_end
    from maand_contracts.catalog.v1 import run_spec_pb2

    async with open_session(flags) as session:
        spec = run_spec_pb2.RunSpec(
            run_command=run_spec_pb2.RunCommandSpec(
                command=script,
                workers=workers,
                labels=labels,
                concurrency=concurrency,
                command_timeout_seconds=round(command_timeout),
            ),
            keep_going=keep_going,
        )
        return await run_to_end(session, spec, detach=detach)


def one_command(words: tuple[str, ...], rest: tuple[str, ...]) -> str | None:
    """Return the command: the one argument, or what follows `--`, several words quoted as they were given. Raises Usage."""
    if len(words) + bool(rest) > 1:
        given = (*words, *rest)
        ways = f"maand run_command {shlex.quote(' '.join(given))}, or: maand run_command -- {shlex.join(given)}"
        raise Usage("the command is one argument", help=ways)
    if len(rest) > 1:
        return shlex.join(rest)
    return next(iter((*words, *rest)), None)


def read_script(shell: str | None, file: Path | None) -> str:
    """Return the script: the argument, the file, or standard input for `-`."""
    if (shell is None) == (file is None):
        raise Usage("give one command, or a script with -f", help='maand run_command "uptime"')
    given = sys.stdin if "-" in (shell, str(file)) else None
    script = given.read() if given else file.read_text() if file else shell or ""
    if not script.strip():
        raise Usage("the command is empty", help='maand run_command "uptime"')
    return script
