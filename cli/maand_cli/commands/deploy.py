"""`maand build` and `maand deploy`: from the workspace to the fleet."""

from datetime import UTC, datetime

import click

from maand_cli.click_groups import maand_command
from maand_cli.coroutines import runs_coroutine
from maand_cli.errors import Usage
from maand_cli.flags import Flags
from maand_cli.options import detach_option, jobs_option, keep_going_option, keep_workdir_option


@maand_command()
@jobs_option
@click.option("--build", is_flag=True, help="Build the workspace first.")
@click.option("--dry-run", is_flag=True, help="Show what would be done, touch nothing; -v shows diffs.")
@click.option("--exit-code", is_flag=True, help="With --dry-run: exit 8 when there are changes.")
@click.option("--force", is_flag=True, help="Roll out unchanged allocations too.")
@click.option("--sync-only", is_flag=True, help="Copy files, run no lifecycle.")
@click.option("--skip-unreachable", is_flag=True, help="Leave unreachable workers out instead of stopping.")
@keep_going_option
@keep_workdir_option
@detach_option
@runs_coroutine
async def deploy(
    flags: Flags,
    *,
    jobs: tuple[str, ...],
    build: bool,
    dry_run: bool,
    exit_code: bool,
    force: bool,
    sync_only: bool,
    skip_unreachable: bool,
    keep_going: bool,
    keep_workdir: bool,
    detach: bool,
) -> int:
    """Bring the fleet to what was built: wave by wave, batch by batch, each batch promoted once it is healthy.

    What is as it should be is left alone. After a failure, the next deploy does only what is left. What was edited since the last
    build is not part of it; a line tells.
    """
    if exit_code and not dry_run:
        raise Usage("--exit-code needs --dry-run", help="maand deploy --dry-run --exit-code")
    if dry_run and build:
        raise Usage("--dry-run touches nothing, --build would", help="maand build, then maand deploy --dry-run")
    from maand_cli.output.rows import print_note
    from maand_cli.remote.session import open_session
    from maand_cli.runs.conclude import print_detached_run, start_own_run
    from maand_cli.runs.follow_deploy import follow_deploy
    from maand_cli.runs.unbuilt import find_unbuilt
    from maand_cli.runs.upload import upload_workspace
    from maand_contracts.catalog.v1 import run_spec_pb2

    async with open_session(flags) as session:
        spec = run_spec_pb2.RunSpec(
            deploy=run_spec_pb2.DeploySpec(
                jobs=jobs,
                dry_run=dry_run,
                force=force,
                sync_only=sync_only,
                skip_unreachable=skip_unreachable,
                build_snapshot_id=await upload_workspace(session) if build else "",
            ),
            keep_going=keep_going,
            keep_workdir=keep_workdir,
        )
        run = await start_own_run(session, spec, detach=detach)
        unbuilt = None if build else await find_unbuilt(session)  # after the start: the deploy does not wait for it
        if unbuilt:
            print_note(flags, f"maand: {unbuilt.sentence(datetime.now(tz=UTC))}")
        more = {"unbuilt": unbuilt.record() if unbuilt else None}
        if detach:
            return print_detached_run(session, run, more)
        return await follow_deploy(session, run, more, dry_run=dry_run, changes_matter=exit_code)


@maand_command()
@detach_option
@keep_workdir_option
@runs_coroutine
async def build(flags: Flags, *, detach: bool, keep_workdir: bool) -> int:
    """Take in the workspace: validate it, place jobs, issue certificates, fill KV, run post_build hooks.

    Nothing changes when the workspace has an error; all errors are shown at once.
    """
    from maand_cli.remote.session import open_session
    from maand_cli.runs.conclude import run_to_end
    from maand_cli.runs.upload import upload_workspace
    from maand_contracts.catalog.v1 import run_spec_pb2

    async with open_session(flags) as session:
        snapshot_id = await upload_workspace(session)
        spec = run_spec_pb2.RunSpec(build=run_spec_pb2.BuildSpec(snapshot_id=snapshot_id), keep_workdir=keep_workdir)
        return await run_to_end(session, spec, detach=detach)
