"""`maand schema KIND`."""

import click

from maand_cli.click_groups import command
from maand_cli.coroutines import acting
from maand_cli.flags import Flags

KINDS = ("manifest", "workers", "disabled", "maand.conf", "bucket.conf", "bucket.jobs.conf")


@command()
@click.argument("kind", type=click.Choice(KINDS))
@acting
async def schema(flags: Flags, *, kind: str) -> int:
    """Print the JSON Schema of a user file, from the model that validates it: for editors."""
    import json

    from maand_cli.remote.catalog import call
    from maand_cli.remote.session import open_session
    from maand_contracts.catalog.v1 import bucket_pb2

    async with open_session(flags) as session:
        response = await call(session.catalog.buckets.GetSchema, bucket_pb2.GetSchemaRequest(kind=kind))
    print(json.dumps(json.loads(response.json_schema), indent=2 if flags.is_human else None))
    return 0
