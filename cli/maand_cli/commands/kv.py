"""`maand kv get|set|delete|list|history|restore`."""

import sys
import uuid
from pathlib import Path

import click

from maand_cli.click_groups import LazyGroup
from maand_cli.coroutines import runs_coroutine
from maand_cli.errors import Usage
from maand_cli.flags import DurationType, Flags
from maand_cli.options import refuse_empty_value
from maand_cli.remote.completions import complete_keys, complete_namespaces

kv = LazyGroup(name="kv", help="Read and write variables (namespaces vars/…) and their history.")

version_option = click.option("--version", type=click.IntRange(min=0), default=0, help="An older version; 0 = the newest.")


@kv.command()
@click.argument("namespace", shell_complete=complete_namespaces)
@click.argument("key", shell_complete=complete_keys)
@version_option
@runs_coroutine
async def get(flags: Flags, *, namespace: str, key: str, version: int) -> int:
    """Print one value."""
    from maand_cli.output.message_dicts import to_dict
    from maand_cli.output.rows import show_values
    from maand_cli.output.terminal import write_text
    from maand_cli.remote.key_values import get_entry
    from maand_cli.remote.session import open_session

    async with open_session(flags) as session:
        entry = await get_entry(session.catalog, namespace, key, version=version)
    if flags.is_human:
        write_text(entry.value)
    else:
        show_values(flags, "entry", to_dict(entry))
    return 0


@kv.command("set")
@click.argument("namespace", shell_complete=complete_namespaces)
@click.argument("key", shell_complete=complete_keys)
@click.argument("value", required=False)
@click.option("-f", "--file", type=click.Path(path_type=Path, dir_okay=False, exists=True), help="Read the value from a file.")
@click.option("--ttl", type=DurationType(), default=0, metavar="TIME", help="How long it lives; 0 = for ever.")
@click.option("--if-version", type=click.IntRange(min=1), help="Only when the newest version is this one.")
@click.option("--if-absent", is_flag=True, help="Only when there is no value.")
@runs_coroutine
async def set_value(
    flags: Flags,
    *,
    namespace: str,
    key: str,
    value: str | None,
    file: Path | None,
    ttl: float,
    if_version: int | None,
    if_absent: bool,
) -> int:
    """Write one value: the argument, a file, or standard input for `-`."""
    if (value is None) == (file is None):
        raise Usage("give one value, or a file with -f", help="maand kv set vars/job/api key value")
    if if_version and if_absent:
        raise Usage("--if-version and --if-absent contradict each other")
    text = read_value(value, file)
    from maand_cli.output.rows import print_note, show_values
    from maand_cli.remote.key_values import put_entry
    from maand_cli.remote.session import open_session
    from maand_contracts.catalog.v1 import kv_pb2

    request = kv_pb2.PutRequest(namespace=namespace, key=key, value=text, ttl_seconds=round(ttl), request_id=str(uuid.uuid4()))
    if if_version:
        request.precondition.if_version = if_version
    if if_absent:
        request.precondition.if_absent = True
    async with open_session(flags) as session:
        version = await put_entry(session.catalog, request)
    if flags.is_human:
        print_note(flags, f"{namespace} {key} is at version {version}")
    else:
        show_values(flags, "entry", {"namespace": namespace, "key": key, "version": version})
    return 0


def read_value(value: str | None, file: Path | None) -> str:
    """Return the value: the file's content, standard input for `-`, else the argument. What is read and empty is refused."""
    if file is None and value != "-":
        return value or ""
    text = sys.stdin.read() if file is None else file.read_text()
    source = "standard input" if file is None else str(file)
    refuse_empty_value(text, source=source, remedy="an empty value is stored when it is the argument: ''")
    return text


@kv.command()
@click.argument("namespace", shell_complete=complete_namespaces)
@click.argument("key", shell_complete=complete_keys)
@runs_coroutine
async def delete(flags: Flags, *, namespace: str, key: str) -> int:
    """Delete one value; its history stays and `kv restore` brings it back."""
    from maand_cli.output.rows import print_note
    from maand_cli.remote.key_values import delete_entry
    from maand_cli.remote.session import open_session

    async with open_session(flags) as session:
        await delete_entry(session.catalog, namespace, key)
    print_note(flags, f"{namespace} {key} is deleted")
    return 0


@kv.command("list")
@click.argument("prefix", default="", shell_complete=complete_namespaces)
@runs_coroutine
async def list_values(flags: Flags, *, prefix: str) -> int:
    """List values of all namespaces, or those below PREFIX. Secrets are not among them."""
    from maand_cli.output.rows import show_rows
    from maand_cli.remote.key_values import entry_rows
    from maand_cli.remote.session import open_session

    async with open_session(flags) as session:
        rows = await entry_rows(session.catalog, prefix)
    show_rows(flags, "entries", ("namespace", "key", "value", "version", "expires_at"), rows)
    return 0


@kv.command()
@click.argument("namespace", shell_complete=complete_namespaces)
@click.argument("key", shell_complete=complete_keys)
@click.option("-n", "--limit", type=click.IntRange(min=1), default=20, show_default=True, help="At most this many versions.")
@runs_coroutine
async def history(flags: Flags, *, namespace: str, key: str, limit: int) -> int:
    """List the versions of one key, newest first: what, when, by whom."""
    from maand_cli.output.rows import show_rows
    from maand_cli.remote.key_values import version_rows
    from maand_cli.remote.session import open_session

    async with open_session(flags) as session:
        rows = await version_rows(session.catalog, namespace, key, limit=limit)
    show_rows(flags, "versions", ("version", "created_at", "deleted", "value", "writer"), rows)
    return 0


@kv.command()
@click.argument("namespace", shell_complete=complete_namespaces)
@click.argument("key", shell_complete=complete_keys)
@click.argument("version", type=click.IntRange(min=1))
@runs_coroutine
async def restore(flags: Flags, *, namespace: str, key: str, version: int) -> int:
    """Write an older version's value as the newest one."""
    from maand_cli.output.rows import print_note
    from maand_cli.remote.key_values import restore_entry
    from maand_cli.remote.session import open_session

    async with open_session(flags) as session:
        fresh = await restore_entry(session.catalog, namespace, key, version=version)
    print_note(flags, f"{namespace} {key}: version {version} is back as version {fresh}")
    return 0
