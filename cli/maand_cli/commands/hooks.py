"""`maand hooks NAME [JOB] [-- ARGS]`; and `maand hooks test JOB HOOK`: one hook against an in-memory gateway, without a fleet."""

import json
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import click

from maand_cli.click_groups import maand_command, rest_of
from maand_cli.coroutines import runs_coroutine, takes_flags
from maand_cli.errors import InvalidFile, Problem, Usage
from maand_cli.exits import Exit
from maand_cli.flags import Flags
from maand_cli.options import (
    complete_cli_hook_jobs,
    complete_cli_hooks,
    complete_hooks,
    complete_jobs,
    detach_option,
    keep_going_option,
    keep_workdir_option,
)

if TYPE_CHECKING:
    from maand_hook_sdk.hook_runner import HookTestReport


@maand_command(
    keeps_rest=True, options_metavar="[OPTIONS]", epilog="Arguments after -- go to the script. `maand hooks test --help` too."
)
@click.argument("name", shell_complete=complete_cli_hooks)
@click.argument("job", required=False, default="", shell_complete=complete_cli_hook_jobs)
@keep_going_option
@keep_workdir_option
@detach_option
@runs_coroutine
async def hooks(flags: Flags, *, name: str, job: str, keep_going: bool, keep_workdir: bool, detach: bool) -> int:
    """Run hook NAME on event cli: over all active allocations of JOB, in rollout order and batches.

    Without JOB: on every job that registers the hook for cli, in name order.
    """
    args = rest_of(click.get_current_context())
    from maand_cli.remote.session import open_session
    from maand_cli.runs.conclude import run_to_end
    from maand_contracts.catalog.v1 import run_spec_pb2

    async with open_session(flags) as session:
        spec = run_spec_pb2.RunSpec(
            hooks=run_spec_pb2.HooksSpec(hook=name, job=job, args=args), keep_going=keep_going, keep_workdir=keep_workdir
        )
        return await run_to_end(session, spec, detach=detach)


@maand_command("hooks test", keeps_rest=True, epilog="Arguments after -- go to the script.")
@click.argument("job", shell_complete=complete_jobs)
@click.argument("hook", shell_complete=complete_hooks)
@click.option("--allocation", metavar="WORKER", help="The allocation it runs for; the state's first when left out.")
@click.option("--event", default="cli", show_default=True, help="The event it is told.")
@click.option(
    "--state",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    metavar="FILE",
    help="JSON file that fills the gateway: kv, secrets, replies of workers.",
)
@takes_flags
def hooks_test(flags: Flags, *, job: str, hook: str, allocation: str | None, event: str, state: Path | None) -> int:
    """Run HOOK of JOB against an in-memory gateway; print what it said, which calls it made, and the store afterwards.

    JOB is a job of the workspace, or the path of a job's directory.
    """
    from maand_hook_sdk.hook_runner import HookTestError, run_hook_test
    from maand_hook_sdk.memory_state import BadState, MemoryState

    for number in (signal.SIGTERM, signal.SIGHUP):  # end as Ctrl-C does: with nothing left behind
        signal.signal(number, signal.default_int_handler)
    try:
        report = run_hook_test(
            find_job_directory(flags, job),
            hook,
            allocation=allocation,
            event=event,
            state=MemoryState.read(state) if state else None,
            args=rest_of(click.get_current_context()),
            timeout=flags.timeout or 600,
        )
    except BadState as error:
        raise InvalidFile(Problem(code=error.code, message=str(error), file=str(state or ""))) from error
    except HookTestError as error:
        raise Usage(str(error)) from error
    if flags.is_human:
        print_report(flags, report)
    else:
        print(json.dumps(report.to_json()))
    if report.timed_out:
        return Exit.TIMED_OUT
    return Exit.DONE if report.ok else Exit.FAILED


def find_job_directory(flags: Flags, job: str) -> Path:
    """Return the job's directory. Raises Usage when there is none."""
    import os

    from maand_cli.local.bucket import find_bucket
    from maand_wire.nearest import nearest_or_known

    if "/" in job or job.startswith("."):
        if not Path(job).is_dir():
            raise Usage(f"{job} is no directory")
        return Path(job).absolute()
    jobs = find_bucket(flags.bucket, environment=os.environ, start=Path.cwd()).workspace / "jobs"
    if not (jobs / job).is_dir():
        known = [path.name for path in jobs.iterdir() if path.is_dir()] if jobs.is_dir() else []
        raise Usage(f'no job "{job}" in the workspace', help=nearest_or_known(job, known))
    return jobs / job


def print_report(flags: Flags, report: "HookTestReport") -> None:
    """Print a report for people: the script's own output, then calls, then the store."""
    from maand_cli.output.rows import print_note
    from maand_cli.output.terminal import write_line, write_text

    values = report.to_json()
    write_text(values["stdout"], end="")
    if report.stderr:
        print_note(flags, report.stderr.rstrip("\n"))
    write_line("calls:")
    for call in values["calls"]:
        fields = ", ".join(f"{name}={value!r}" for name, value in call["fields"].items())
        write_line(f"  {call['status']} {call['method']} {call['path']}  {fields}".rstrip())
    write_line("state after:")
    for namespace, entries in values["state"].items():
        for key, value in entries.items():
            shown = "***" if namespace.startswith("secrets/") else value
            write_line(f"  {namespace}  {key} = {shown}")
    print_note(flags, "timed out" if values["timed_out"] else f"exit code {values['exit_code']}")
