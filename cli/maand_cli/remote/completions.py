"""What only the catalog knows, for TAB: runs, namespaces, keys. Services that run are asked, none is started."""

import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from maand_cli.flags import flags_of

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from maand_cli.remote.catalog import Catalog

PATIENCE_SECONDS = 2.0
"""How long whoever pressed TAB waits for an answer at most."""

MOST_RUNS = 20


def complete_runs(ctx: click.Context, _param: click.Parameter, incomplete: str) -> "list[CompletionItem]":
    """Complete ids of the newest runs, with what they are."""
    from click.shell_completion import CompletionItem

    from maand_cli.output.message_dicts import field_word

    async def ask(catalog: "Catalog") -> "list[CompletionItem]":
        return [
            CompletionItem(run.run_id, help=f"{field_word(run, 'kind')} {field_word(run, 'state')}")
            for run in await catalog.list_runs(limit=MOST_RUNS)
            if run.run_id.startswith(incomplete)
        ]

    return ask_catalog(ctx, ask)


def complete_namespaces(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Complete namespaces that have values."""
    from maand_cli.remote.key_values import entry_rows

    async def ask(catalog: "Catalog") -> list[str]:
        return sorted({row["namespace"] for row in await entry_rows(catalog, incomplete)})

    return ask_catalog(ctx, ask)


def complete_keys(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Complete keys of the namespace that was given before."""
    from maand_cli.remote.key_values import entry_rows

    async def ask(catalog: "Catalog") -> list[str]:
        namespace = ctx.params.get("namespace")
        rows = await entry_rows(catalog, str(namespace))
        return sorted(row["key"] for row in rows if row["namespace"] == namespace and row["key"].startswith(incomplete))

    return ask_catalog(ctx, ask)


def complete_secret_keys(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Complete keys of secrets of the job that was given before."""
    from maand_cli.remote.key_values import secret_rows

    async def ask(catalog: "Catalog") -> list[str]:
        rows = await secret_rows(catalog, str(ctx.params.get("job") or ""))
        return sorted({row["key"] for row in rows if row["key"].startswith(incomplete)})

    return ask_catalog(ctx, ask)


def ask_catalog(ctx: click.Context, ask: "Callable[[Catalog], Awaitable[list[Any]]]") -> list[Any]:
    """Return what the catalog of this command answers; nothing where none runs, or it takes too long."""
    import asyncio  # here: other commands of these groups need none

    try:
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")
        return asyncio.run(ask_at(ctx, ask))
    except Exception:  # noqa: BLE001 - a shell that completes has no place for any error
        return []


async def ask_at(ctx: click.Context, ask: "Callable[[Catalog], Awaitable[list[Any]]]") -> list[Any]:
    """Ask at the address that the flags, the environment and the bucket name."""
    import asyncio

    from maand_cli.local.bucket import find_bucket, read_conf
    from maand_cli.local.contexts import choose_context
    from maand_cli.local.services import find_services
    from maand_cli.remote.catalog import Catalog
    from maand_cli.remote.session import read_remote_endpoints
    from maand_wire.channels import open_channel
    from maand_wire.endpoints import Endpoint

    flags, environment = flags_of(ctx), dict(os.environ)
    bucket = find_bucket(flags.bucket, environment=environment, start=Path.cwd())
    name, context = choose_context(flags.context, environment=environment)
    if context is not None:
        endpoint = context.catalog_endpoint()
    elif not name:
        endpoint = read_remote_endpoints(environment)[0]
    elif services := find_services(bucket):
        endpoint = Endpoint(address=services.catalog)
    else:
        return []
    async with open_channel(endpoint) as channel:
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await ask(Catalog(channel, read_conf(bucket).bucket_id))
