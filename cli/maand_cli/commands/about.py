"""What maand is and where it stands: `maand version`, `info`, `schema KIND`, `completion SHELL`, `demo`."""

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import click

from maand_cli import __version__
from maand_cli.click_groups import maand_command
from maand_cli.coroutines import runs_coroutine, takes_flags
from maand_cli.flags import Flags


@maand_command()
@takes_flags
def version(flags: Flags) -> int:
    """Print the version of this command line."""
    if flags.is_human:
        print(__version__)
    else:
        from maand_cli.output.rows import show_values

        show_values(flags, "version", {"version": __version__})
    return 0


@maand_command()
@runs_coroutine
async def info(flags: Flags) -> int:
    """Tell about this bucket: where it is, what was built, what runs, how the services are reached."""
    from maand_cli import __version__
    from maand_cli.output.message_dicts import field_word, to_dict
    from maand_cli.output.rows import show_values
    from maand_cli.remote.listings import certificate_rows
    from maand_cli.remote.session import open_session
    from maand_cli.runs.unbuilt import find_unbuilt
    from maand_contracts.catalog.v1 import run_pb2

    async with open_session(flags) as session:
        bucket = to_dict(await session.catalog.get_bucket())
        unbuilt = await find_unbuilt(session)
        active = await session.catalog.list_runs(states=[run_pb2.RUN_STATE_PENDING, run_pb2.RUN_STATE_RUNNING])
        ending, authority = await certificate_rows(session.catalog, ending_only=True)
    config = bucket.pop("config")
    values = {
        "bucket": str(session.bucket.path),
        **{name: value for name, value in bucket.items() if name != "config_sha256"},
        "unbuilt": unbuilt and (unbuilt.sentence(datetime.now(tz=UTC)) if flags.is_human else unbuilt.record()),
        "certificates": describe_ending(ending, authority) if flags.is_human else {"ending": ending, "authority": authority},
        "active_runs": [f"{field_word(run, 'kind')} {run.run_id}" for run in active],
        "catalog": session.catalog_endpoint.address,
        "executor": session.executor_endpoint.address if session.executor_endpoint else "",
        "version": __version__,
    }
    show_values(flags, "info", values if flags.is_human and not flags.verbose else {**values, "config": config})
    return 0


def describe_ending(ending: Sequence[Mapping[str, Any]], authority: Mapping[str, Any] | None) -> str:
    """Say in one line what is near or past its end among the certificates, and what to do. Empty = nothing."""
    states = Counter(row["state"] for row in ending)
    words = [f"{states[state]} {said}" for state, said in (("ended", "ended"), ("ends_soon", "end soon")) if states[state]]
    helps = [row["help"] for row in ending]
    if authority and authority["in_use"] and authority["message"]:
        words.append(authority["message"])
        helps.append(authority["help"])
    return "; ".join((", ".join(words), *dict.fromkeys(helps))) if words else ""


KINDS = ("manifest", "workers", "disabled", "maand.conf", "bucket.conf", "bucket.jobs.conf")


@maand_command()
@click.argument("kind", type=click.Choice(KINDS))
@runs_coroutine
async def schema(flags: Flags, *, kind: str) -> int:
    """Print the JSON Schema of a user file, from the model that validates it: for editors."""
    import json

    from maand_cli.remote.catalog import call_rpc
    from maand_cli.remote.session import open_session
    from maand_contracts.catalog.v1 import bucket_pb2
    from maand_wire.enums import enum_number

    async with open_session(flags) as session:
        response = await call_rpc(
            session.catalog.buckets.GetSchema,
            bucket_pb2.GetSchemaRequest(kind=enum_number(bucket_pb2.UserFileKind, kind.replace(".", "_"))),
        )
    print(json.dumps(json.loads(response.json_schema), indent=2 if flags.is_human else None))
    return 0


HOW = {
    "bash": 'add to ~/.bashrc:  eval "$(maand completion bash)"',
    "zsh": 'add to ~/.zshrc:  eval "$(maand completion zsh)"',
    "fish": "save as ~/.config/fish/completions/maand.fish",
}


@maand_command()
@click.argument("shell", type=click.Choice(tuple(HOW)))
@takes_flags
def completion(flags: Flags, *, shell: str) -> int:
    """Print the completion script of a shell.

    It completes commands, flags and what the workspace names; runs, namespaces and keys too where the services run.
    """
    from click.shell_completion import get_completion_class

    from maand_cli.output.rows import print_note

    kind = get_completion_class(shell)
    if kind is None:
        return 1
    print(mend_comma_lists(kind(click.get_current_context().find_root().command, {}, "maand", "_MAAND_COMPLETE").source()))
    print_note(flags, f"# {HOW[shell]}")
    return 0


def mend_comma_lists(script: str) -> str:
    """Let fish take words that hold a comma: Click's script splits what it is answered at every comma, this one at the first."""
    return script.replace('string split ","', 'string split --max 1 ","')


@maand_command()
@click.option("--keep", is_flag=True, help="Leave the bucket; at a terminal, keep its workers until Ctrl-C.")
@runs_coroutine
async def demo(flags: Flags, *, keep: bool) -> int:
    """Watch the whole system work: build, deploy, a rolling upgrade, a hook, a command, health.

    Three workers run as SSH servers inside this process, each in its own directory. Needs bash, make and rsync; no root.
    """
    del flags
    from maand_cli.errors import MissingPrerequisite

    try:
        from maand_cli.demo.story import tell_story
    except ModuleNotFoundError as error:
        raise MissingPrerequisite(f"the demo needs {error.name}", help="pip install 'maand[all]'") from error
    return await tell_story(keep=keep)
