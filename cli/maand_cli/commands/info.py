"""`maand info`."""

from datetime import UTC, datetime

from maand_cli.click_groups import command
from maand_cli.coroutines import acting
from maand_cli.flags import Flags


@command()
@acting
async def info(flags: Flags) -> int:
    """Tell about this bucket: where it is, what was built, what runs, how the services are reached."""
    from maand_cli import __version__
    from maand_cli.output.message_dicts import plain
    from maand_cli.output.rows import show_values
    from maand_cli.remote.session import open_session
    from maand_cli.runs.unbuilt import find_unbuilt
    from maand_contracts.catalog.v1 import run_pb2

    async with open_session(flags) as session:
        bucket = plain(await session.catalog.get_bucket())
        unbuilt = await find_unbuilt(session)
        active = await session.catalog.list_runs(states=[run_pb2.RUN_STATE_PENDING, run_pb2.RUN_STATE_RUNNING])
    config = bucket.pop("config")
    values = {
        "bucket": str(session.bucket.path),
        **{name: value for name, value in bucket.items() if name != "config_sha256"},
        "unbuilt": unbuilt and (unbuilt.sentence(datetime.now(tz=UTC)) if flags.is_human else unbuilt.record()),
        "active_runs": [f"{run.kind} {run.run_id}" for run in active],
        "catalog": session.catalog_endpoint.address,
        "executor": session.executor_endpoint.address if session.executor_endpoint else "",
        "version": __version__,
    }
    show_values(flags, "info", values if flags.is_human and not flags.verbose else {**values, "config": config})
    return 0
