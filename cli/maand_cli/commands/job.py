"""`maand job start|stop|restart|run|status|create`."""

from collections.abc import Callable
from typing import Any

import click

from maand_cli.click_groups import LazyGroup
from maand_cli.coroutines import runs_coroutine, takes_flags
from maand_cli.flags import Flags
from maand_cli.options import complete_jobs, complete_workers, detach_option, keep_going_option, list_option, spell_worker

job = LazyGroup(name="job", help="Act on one job's allocations, in rollout order and batches; make the folder of a new job.")


def add_control_command(action: str, line: str) -> click.Command:
    """Declare one command that acts on a job's allocations."""

    @runs_coroutine
    async def act(
        flags: Flags, *, job: str, allocations: tuple[str, ...], batch: int, keep_going: bool, detach: bool, target: str = ""
    ) -> int:
        from maand_cli.remote.session import open_session
        from maand_cli.runs.conclude import run_to_end
        from maand_contracts.catalog.v1 import run_spec_pb2

        control = run_spec_pb2.JobControlSpec(
            job=job,
            action=run_spec_pb2.JobAction.Value(f"JOB_ACTION_{action.upper()}"),
            workers=allocations,
            target=target,
            batch=batch,
        )
        async with open_session(flags) as session:
            return await run_to_end(session, run_spec_pb2.RunSpec(job_control=control, keep_going=keep_going), detach=detach)

    act.__doc__ = line
    for option in reversed(control_options(needs_target=action == "run")):
        act = option(act)
    return job.command(action)(act)


def control_options(*, needs_target: bool) -> list[Callable[[Any], Any]]:
    """Return the arguments and options of those commands."""
    target = click.option("--target", "-t", required=True, help="Make target to run.")
    return [
        click.argument("job", shell_complete=complete_jobs),
        list_option("--allocations", "-w", help="Only on these workers.", complete=complete_workers, spell=spell_worker),
        *([target] if needs_target else []),
        click.option(
            "--batch",
            type=click.IntRange(min=0),
            default=0,
            help="Allocations at once; 0 = as the manifest says (status: all).",
        ),
        keep_going_option,
        detach_option,
    ]


add_control_command("start", "Start JOB's allocations, with health gates.")
add_control_command("stop", "Stop JOB's allocations.")
add_control_command("restart", "Restart JOB's allocations batch by batch, with health gates.")
add_control_command("run", "Run a make target of JOB on its allocations.")
add_control_command("status", "Report on JOB's allocations: the Makefile's status target, or its job_control hook.")


@job.command()
@click.argument("name", metavar="JOB")
@list_option("--selectors", "-s", help="Labels a worker must all have; the job's name when left out.")
@takes_flags
def create(flags: Flags, *, name: str, selectors: tuple[str, ...]) -> int:
    """Make the folder of a new job in the workspace: manifest, Makefile, place for hooks."""
    import os
    from pathlib import Path

    from maand_cli.local.bucket import find_bucket
    from maand_cli.local.new_job import make_job
    from maand_cli.output.rows import print_note, show_values
    from maand_cli.output.terminal import write_line

    bucket = find_bucket(flags.bucket, environment=os.environ, start=Path.cwd())
    made = make_job(bucket.workspace, name, selectors)
    if flags.is_human:
        write_line(str(made))
        print_note(flags, "next: say in its Makefile how it starts, stops and restarts, then maand build")
    else:
        show_values(flags, "job", {"job": name, "path": str(made)})
    return 0
