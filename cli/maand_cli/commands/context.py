"""`maand context list|use|add`."""

import os
from pathlib import Path

import click

from maand_cli.click_groups import LazyGroup
from maand_cli.coroutines import takes_flags
from maand_cli.flags import Flags

context = LazyGroup(
    name="context", help="Name clusters and choose which one commands speak to; `local` is the bucket's own services."
)

FILE = click.Path(exists=True, dir_okay=False, resolve_path=True)


@context.command("list")
@takes_flags
def list_contexts(flags: Flags) -> int:
    """List the contexts, the one in use marked."""
    from maand_cli.local.contexts import LOCAL, choose_context, contexts_file, read_contexts
    from maand_cli.output.rows import show_rows

    contexts = read_contexts(contexts_file(os.environ))
    used, _ = choose_context(flags.context, environment=os.environ)
    rows = [{"name": LOCAL, "catalog": "the bucket's own services", "executor": "", "in_use": used == LOCAL}]
    rows += [
        {"name": name, "catalog": known.catalog, "executor": known.executor, "in_use": used == name}
        for name, known in contexts.named.items()
    ]
    if flags.is_human:
        for row in rows:
            row["in_use"] = "*" if row["in_use"] else ""
    show_rows(flags, "contexts", ("in_use", "name", "catalog"), rows)
    return 0


@context.command()
@click.argument("name")
@takes_flags
def use(flags: Flags, *, name: str) -> int:
    """Let commands speak to NAME unless --context or MAAND_CONTEXT says otherwise; `local` = the bucket's own services."""
    from maand_cli.local.contexts import contexts_file, use_context
    from maand_cli.output.rows import show_values

    use_context(contexts_file(os.environ), name)
    show_values(flags, "context", {"context": name})
    return 0


@context.command()
@click.argument("name")
@click.option("--catalog", required=True, metavar="HOST:PORT[,…]", help="Where the catalogs listen; several are used in turn.")
@click.option("--executor", default="", metavar="HOST:PORT", help="Where an executor listens.")
@click.option("--ca", type=FILE, default=None, help="CA that signed the servers' certificates.")
@click.option("--token-file", type=FILE, default=None, help="File with the API token.")
@click.option("--certificate", type=FILE, default=None, help="Certificate to present, when the servers ask for one.")
@click.option("--key", type=FILE, default=None, help="Its key.")
@takes_flags
def add(flags: Flags, *, name: str, catalog: str, executor: str, **files: str | None) -> int:
    """Add context NAME, or replace it. Files are remembered by name, not copied."""
    from maand_cli.local.contexts import Context, add_context, contexts_file
    from maand_cli.output.rows import print_note, show_values

    path = contexts_file(os.environ)
    named = {option: value for option, value in files.items() if value}
    replaced = add_context(path, name, Context(catalog=catalog, executor=executor, **named))
    show_values(flags, "context", {"context": name, "catalog": catalog, **named})
    print_note(flags, f"{'replaced in' if replaced else 'written to'} {Path(path)}; try: maand --context {name} info")
    return 0
