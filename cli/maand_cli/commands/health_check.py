"""`maand health_check`."""

import click

from maand_cli.click_groups import command
from maand_cli.coroutines import acting
from maand_cli.flags import Flags
from maand_cli.options import detach_option, jobs_option


@command("health_check")
@jobs_option
@click.option("--wait", is_flag=True, help="Retry until healthy, as the manifests say.")
@detach_option
@acting
async def health_check(flags: Flags, *, jobs: tuple[str, ...], wait: bool, detach: bool) -> int:
    """Check the workers' SSH ports, then each job's probes, then its health_check hooks."""
    from maand_cli.remote.session import open_session
    from maand_cli.runs.conclude import run_to_end
    from maand_contracts.catalog.v1 import run_spec_pb2

    async with open_session(flags) as session:
        spec = run_spec_pb2.RunSpec(health_check=run_spec_pb2.HealthCheckSpec(jobs=jobs, wait=wait))
        return await run_to_end(session, spec, detach=detach)
