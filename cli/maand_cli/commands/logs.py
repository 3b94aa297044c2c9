"""`maand logs [RUN]`."""

import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import click

from maand_cli.click_groups import maand_command
from maand_cli.coroutines import runs_coroutine
from maand_cli.flags import Flags
from maand_cli.options import jobs_option, workers_option
from maand_cli.remote.completions import complete_runs

if TYPE_CHECKING:
    from maand_cli.output.view import Line
    from maand_contracts.catalog.v1.run_event_pb2 import RunEvent


@maand_command()
@click.argument("run", default="", shell_complete=complete_runs)
@jobs_option
@workers_option
@click.option("-f", "--follow", is_flag=True, help="Go on until the run ends.")
@click.option("--all", "everything", is_flag=True, help="Print what maand did too, not only what hooks and commands said.")
@runs_coroutine
async def logs(flags: Flags, *, run: str, jobs: tuple[str, ...], workers: tuple[str, ...], follow: bool, everything: bool) -> int:
    """Print what hooks and commands of a run said (the newest run when RUN is left out). Secrets are masked."""
    from maand_cli.output.message_dicts import field_word
    from maand_cli.output.problems import SCHEMA_VERSION
    from maand_cli.output.streams import is_reader_gone
    from maand_cli.output.view import RunView
    from maand_cli.remote.session import open_session
    from maand_cli.runs.run_names import find_run

    async with open_session(flags) as session:
        found = await find_run(session.catalog, run)
        view = RunView(kind=field_word(found, "kind"), run_id=found.run_id)
        document: list[dict[str, Any]] = []
        if flags.output == "jsonl":
            flags.header_printed = True
            print_record({"type": "header", "schema_version": SCHEMA_VERSION, "kind": view.kind, "run_id": found.run_id})
        count = 0
        async for event in session.catalog.watch_run(found.run_id, follow=follow):
            lines = view.apply(event)
            is_wanted = (not jobs or event.job in jobs) and (not workers or event.worker in workers)
            if is_wanted and (everything or event.WhichOneof("event") == "output"):
                document += print_event(flags, event, lines, flush=follow)
                count += 1
            if is_reader_gone():
                break
    if flags.output == "json":
        print(json.dumps(document))
    if flags.output == "jsonl":
        print_record({"type": "result", "count": count})
    return 0


def print_record(record: Mapping[str, Any]) -> None:
    """Print one line for programs."""
    print(json.dumps(record), flush=True)


def print_event(flags: Flags, event: "RunEvent", lines: Iterable["Line"], *, flush: bool) -> list[dict[str, Any]]:
    """Print one event, or return it for the one document."""
    from maand_cli.output.message_dicts import to_dict
    from maand_cli.output.terminal import write_line, write_output
    from maand_cli.output.text import format_time_of_day

    if flags.output == "json":
        return [to_dict(event)]
    if flags.output == "jsonl":
        print_record({"type": "event", **to_dict(event)})
        return []
    for line in lines:
        if line.own is None:
            write_line(f"{format_time_of_day(line.time)} {line.text}", flush=flush)
        else:
            write_output(line.text, own=line.own, color=flags.color, flush=flush)
    return []
