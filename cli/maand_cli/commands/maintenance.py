"""`maand gc` and `maand health_check`: keeping a fleet clean, and knowing how it is."""

import click

from maand_cli.click_groups import maand_command
from maand_cli.coroutines import runs_coroutine
from maand_cli.flags import Flags
from maand_cli.options import detach_option, jobs_option


@maand_command()
@click.option("--retain-days", type=click.IntRange(min=0), default=30, show_default=True, help="History younger than this stays.")
@click.option("--dry-run", is_flag=True, help="Show what would be deleted, touch nothing.")
@detach_option
@runs_coroutine
async def gc(flags: Flags, *, retain_days: int, dry_run: bool, detach: bool) -> int:
    """Delete what was removed from the workspace and stopped by a deploy, data and logs on the workers too; and old history."""
    from maand_cli.output.rows import ask_confirmation_at_terminal
    from maand_cli.remote.session import open_session
    from maand_cli.runs.conclude import run_to_end
    from maand_contracts.catalog.v1 import run_spec_pb2

    if not dry_run:
        ask_confirmation_at_terminal(flags, "Delete removed jobs on the workers with their data and logs?")
    async with open_session(flags) as session:
        spec = run_spec_pb2.RunSpec(gc=run_spec_pb2.GcSpec(retain_days=retain_days, dry_run=dry_run))
        return await run_to_end(session, spec, detach=detach)


@maand_command("health_check")
@jobs_option
@click.option("--wait", is_flag=True, help="Retry until healthy, as the manifests say.")
@detach_option
@runs_coroutine
async def health_check(flags: Flags, *, jobs: tuple[str, ...], wait: bool, detach: bool) -> int:
    """Check the workers' SSH ports, then each job's probes, then its health_check hooks."""
    from maand_cli.remote.session import open_session
    from maand_cli.runs.conclude import run_to_end
    from maand_contracts.catalog.v1 import run_spec_pb2

    async with open_session(flags) as session:
        spec = run_spec_pb2.RunSpec(health_check=run_spec_pb2.HealthCheckSpec(jobs=jobs, wait=wait))
        return await run_to_end(session, spec, detach=detach)
