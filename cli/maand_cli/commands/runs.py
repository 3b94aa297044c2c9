"""`maand runs list|show|watch|cancel|resume`. RUN is an id, the beginning of one, or a number.

Left out, it is the newest for those who look; the only one that can be stopped, or resumed, for those who act.
"""

import sys
from typing import Any

import click

from maand_cli.click_groups import LazyGroup
from maand_cli.coroutines import runs_coroutine
from maand_cli.flags import Flags
from maand_cli.options import RUN_KINDS, RUN_STATES, complete_words, list_option
from maand_cli.remote.completions import complete_runs

runs = LazyGroup(name="runs", help="Look at runs, attach to them, stop and resume them.")

run_argument = click.argument("run", default="", shell_complete=complete_runs)


@runs.command("list")
@list_option("--kind", "-k", help="Only these kinds, for example deploy,build.", complete=complete_words(RUN_KINDS))
@list_option("--state", "-s", help="Only these states, for example running,failed.", complete=complete_words(RUN_STATES))
@click.option("-n", "--limit", type=click.IntRange(min=1), default=20, show_default=True, help="At most this many.")
@runs_coroutine
async def list_runs(flags: Flags, *, kind: tuple[str, ...], state: tuple[str, ...], limit: int) -> int:
    """List runs, newest first."""
    from maand_cli.output.message_dicts import to_dict
    from maand_cli.output.rows import show_rows
    from maand_cli.remote.session import open_session
    from maand_cli.runs.run_names import parse_enum_words
    from maand_contracts.catalog.v1 import run_pb2, run_spec_pb2

    kinds = parse_enum_words(run_spec_pb2.RunKind, kind, "kind")
    states = parse_enum_words(run_pb2.RunState, state, "state")
    async with open_session(flags) as session:
        found = await session.catalog.list_runs(kinds=kinds, states=states, limit=limit)
    show_rows(
        flags,
        "runs",
        ("seq", "run_id", "kind", "state", "requested_by", "created_at", "finished_at", "message"),
        [to_dict(run) for run in found],
    )
    return 0


@runs.command()
@run_argument
@runs_coroutine
async def show(flags: Flags, *, run: str) -> int:
    """Show one run: what was asked, what happened, how it ended."""
    from maand_cli.output.message_dicts import field_word, to_dict
    from maand_cli.output.rows import show_values
    from maand_cli.remote.session import open_session
    from maand_cli.runs.run_names import find_run

    async with open_session(flags) as session:
        found = await find_run(session.catalog, run)
        if not flags.is_human:
            show_values(flags, "run", to_dict(found))
            return 0
        from maand_cli.output.terminal import write_line
        from maand_cli.output.view import RunView
        from maand_cli.runs.conclude import ending_from_run, write_summary

        view = RunView(kind=field_word(found, "kind"), run_id=found.run_id)
        async for event in session.catalog.watch_run(found.run_id, follow=False):
            view.apply(event)
        values = {name: value for name, value in to_dict(found).items() if name not in ("spec", "result", "bucket_id")}
        show_values(flags, "run", {**values, "asked": describe_spec(to_dict(found.spec))})
        for reason in view.interruptions:
            write_line(f"interrupted: {reason}")
        write_summary(ending_from_run(found, view), sys.stdout, color=flags.color)
    return 0


def describe_spec(spec: dict[str, Any]) -> str:
    """Write what was asked, leaving out what was not: `deploy jobs=api force`."""
    words: list[str] = []
    for name, value in spec.items():
        if isinstance(value, dict):
            words = [name, *(_setting(*item) for item in value.items() if item[1]), *words]
        elif value:
            words.append(_setting(name, value))
    return " ".join(words)


def _setting(name: str, value: Any) -> str:
    if value is True:
        return name
    return f"{name}={','.join(map(str, value)) if isinstance(value, list) else value}"


@runs.command()
@run_argument
@runs_coroutine
async def watch(flags: Flags, *, run: str) -> int:
    """Attach to a run, from its beginning to its end; the exit code is the run's. Ctrl-C asks it to stop."""
    from maand_cli.remote.session import open_session
    from maand_cli.runs.conclude import conclude_run
    from maand_cli.runs.follow import follow_run
    from maand_cli.runs.run_names import find_run

    async with open_session(flags) as session:
        return conclude_run(session, await follow_run(session, await find_run(session.catalog, run)))


@runs.command()
@run_argument
@click.option("--now", is_flag=True, help="End hooks and remote commands now, do not finish the batch.")
@runs_coroutine
async def cancel(flags: Flags, *, run: str, now: bool) -> int:
    """Ask a run to finish its current batch and stop; without RUN, the only one in progress."""
    from maand_cli.output.message_dicts import field_word
    from maand_cli.output.rows import print_note
    from maand_cli.remote.session import open_session, user_at_host
    from maand_cli.runs.run_names import IN_PROGRESS, find_run_in
    from maand_contracts.catalog.v1 import run_pb2

    async with open_session(flags) as session:
        found = await find_run_in(session.catalog, run, IN_PROGRESS)
        level = await session.catalog.cancel_run(found.run_id, user_at_host(session.environment))
        if now and level != run_pb2.CANCEL_LEVEL_NOW:
            level = await session.catalog.cancel_run(found.run_id, user_at_host(session.environment))
    how = "now" if level == run_pb2.CANCEL_LEVEL_NOW else "after its current batch"
    print_note(flags, f"{field_word(found, 'kind')} {found.run_id} stops {how}")
    return 0


@runs.command()
@run_argument
@click.option("--again", is_flag=True, help="run_command: also where the command began and how it ended is not known.")
@click.option("--detach", is_flag=True, help="Do not follow it.")
@runs_coroutine
async def resume(flags: Flags, *, run: str, again: bool, detach: bool) -> int:
    """Let an interrupted run (without RUN, the only one) go on from what is recorded, and follow it.

    A command of run_command runs only on the workers where it had not begun. Where it had begun and its end is not known, the run
    stays interrupted and names the workers; --again runs it there once more.
    """
    from maand_cli.remote.session import open_session
    from maand_cli.runs.conclude import conclude_run, print_detached_run
    from maand_cli.runs.follow import follow_run
    from maand_cli.runs.run_names import find_run_in
    from maand_contracts.catalog.v1 import run_pb2

    async with open_session(flags) as session:
        found = await find_run_in(session.catalog, run, [run_pb2.RUN_STATE_INTERRUPTED])
        resumed = await session.catalog.resume_run(found.run_id, again=again)
        return print_detached_run(session, resumed) if detach else conclude_run(session, await follow_run(session, resumed))
