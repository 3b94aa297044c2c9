"""`maand hooks NAME [JOB] [-- ARGS]`."""

import click

from maand_cli.click_groups import command, rest_of
from maand_cli.coroutines import acting
from maand_cli.flags import Flags
from maand_cli.options import detach_option, keep_going_option, keep_workdir_option, known_hooks, known_jobs


@command(
    keeps_rest=True, options_metavar="[OPTIONS]", epilog="Arguments after -- go to the script. `maand hooks test --help` too."
)
@click.argument("name", shell_complete=known_hooks)
@click.argument("job", required=False, default="", shell_complete=known_jobs)
@keep_going_option
@keep_workdir_option
@detach_option
@acting
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
