"""`maand build`."""

from maand_cli.click_groups import command
from maand_cli.coroutines import acting
from maand_cli.flags import Flags
from maand_cli.options import detach_option, keep_workdir_option


@command()
@detach_option
@keep_workdir_option
@acting
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
