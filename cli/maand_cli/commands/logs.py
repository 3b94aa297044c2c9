"""`maand logs [RUN]`."""

import click

from maand_cli.acting import acting
from maand_cli.flags import Flags
from maand_cli.grammar import command
from maand_cli.options import jobs_option, workers_option


@command()
@click.argument("run", default="")
@jobs_option
@workers_option
@click.option("-f", "--follow", is_flag=True, help="Go on until the run ends.")
@click.option("--all", "everything", is_flag=True, help="Print what maand did too, not only what hooks and commands said.")
@acting
async def logs(flags: Flags, *, run: str, jobs: tuple[str, ...], workers: tuple[str, ...], follow: bool, everything: bool) -> int:
    """Print what hooks and commands of a run said (the newest run when RUN is left out). Secrets are masked."""
    import json

    from maand_cli.output.text import clock
    from maand_cli.output.view import Importance, RunView
    from maand_cli.plain import plain
    from maand_cli.run_names import find_run
    from maand_cli.session import open_session

    async with open_session(flags) as session:
        found = await find_run(session.catalog, run)
        view = RunView(kind=found.kind, run_id=found.run_id)
        kept = []
        async for event in session.catalog.watch_run(found.run_id, follow=follow):
            lines = view.apply(event)
            if (jobs and event.job not in jobs) or (workers and event.worker not in workers):
                continue
            if not everything and event.WhichOneof("event") != "output":
                continue
            if flags.output == "json":
                kept.append(plain(event))
            elif flags.output == "jsonl":
                print(json.dumps(plain(event)), flush=True)
            for line in lines if flags.is_human else ():
                is_output = line.importance in (Importance.DATA, Importance.OUTPUT)
                print(line.text if is_output else f"{clock(line.time)} {line.text}", flush=follow)
    if flags.output == "json":
        print(json.dumps(kept))
    return 0
