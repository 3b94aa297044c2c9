"""`maand secret set|delete|list|reveal|rotate`. Values come from standard input, a prompt or a file, never from arguments."""

import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from maand_cli.click_groups import LazyGroup
from maand_cli.coroutines import runs_coroutine
from maand_cli.errors import MissingPrerequisite, Usage
from maand_cli.flags import DurationType, Flags
from maand_cli.options import complete_jobs, refuse_empty_value
from maand_cli.remote.completions import complete_secret_keys

if TYPE_CHECKING:
    from maand_cli.remote.key_values import Rotation

secret = LazyGroup(name="secret", help="Keep secrets of jobs: stored encrypted, masked in every output.")

KEYS_MAY_GO = (
    "no value of this bucket needs an older key: all lines of kv.key but the last may go"
    " (where a catalog keeps several buckets, rotate each of them first)"
)
KEYS_ARE_LOST = (
    "put these keys back into kv.key, above its last line, and run `maand secret rotate --continue`; or write the values anew."
    " What is an older version or deleted goes with `maand gc` in time. Keep the other keys of kv.key until then"
)
KEYS_MUST_STAY = "some values were written with an older key meanwhile: keep it, and run `maand secret rotate --continue`"

MOST_NAMED = 20
"""Values that cannot be opened which are named to people."""

job_argument = click.argument("job", shell_complete=complete_jobs)


def expand_namespace(job: str) -> str:
    """Return the namespace: a job's name stands for its secrets."""
    return job if "/" in job else f"secrets/job/{job}"


def read_secret_value(file: Path | None) -> str:
    """Read the value: file, prompt at a terminal, else standard input as it is but for one line end. Refuses an empty one."""
    if file is not None:
        value, source = file.read_text(), str(file)
    elif sys.stdin.isatty():
        value, source = ask_secret_value(), "the value"
    else:
        value, source = sys.stdin.read().removesuffix("\n"), "standard input"
    refuse_empty_value(value, source=source, remedy="an empty value is stored with --empty")
    return value


def ask_secret_value() -> str:
    """Ask for the value, twice."""
    import getpass

    value = getpass.getpass("value: ")
    if value != getpass.getpass("again: "):
        raise Usage("the two values differ", help="type it again")
    return value


def check_set_arguments(job: str, key: str, *, file: Path | None, empty: bool) -> None:
    """Refuse a value among the arguments, where other users of the machine see it, without saying it once more."""
    if click.get_current_context().args:
        raise Usage(
            "the value is read from standard input, not from the arguments",
            help=f'printf %s "$VALUE" | maand secret set {job} {key}, or -f FILE, or type it at the prompt',
        )
    if empty and file is not None:
        raise Usage("--empty and --file contradict each other")


@secret.command("set", context_settings={"allow_extra_args": True})
@job_argument
@click.argument("key", shell_complete=complete_secret_keys)
@click.option("-f", "--file", type=click.Path(path_type=Path, dir_okay=False, exists=True), help="Read the value from a file.")
@click.option("--empty", is_flag=True, help="Store an empty value. Without it, empty input is refused.")
@click.option("--ttl", type=DurationType(), default=0, metavar="TIME", help="How long it lives; 0 = for ever.")
@click.option("--if-absent", is_flag=True, help="Only when there is no value.")
@runs_coroutine
async def set_secret(flags: Flags, *, job: str, key: str, file: Path | None, empty: bool, ttl: float, if_absent: bool) -> int:
    """Write one secret of JOB (or of a namespace, secrets/job/JOB). The value is prompted for, or read from standard input."""
    check_set_arguments(job, key, file=file, empty=empty)
    value = "" if empty else read_secret_value(file)
    from maand_cli.output.rows import print_note, show_values
    from maand_cli.remote.key_values import put_secret
    from maand_cli.remote.session import open_session
    from maand_contracts.catalog.v1 import secret_pb2

    namespace = expand_namespace(job)
    request = secret_pb2.PutSecretRequest(
        namespace=namespace, key=key, value=value, ttl_seconds=round(ttl), request_id=str(uuid.uuid4())
    )
    if if_absent:
        request.precondition.if_absent = True
    async with open_session(flags) as session:
        version = await put_secret(session.catalog, request)
    if flags.is_human:
        print_note(flags, f"{namespace} {key} is at version {version}")
    else:
        show_values(flags, "secret", {"namespace": namespace, "key": key, "version": version})
    return 0


@secret.command()
@job_argument
@click.argument("key", shell_complete=complete_secret_keys)
@runs_coroutine
async def delete(flags: Flags, *, job: str, key: str) -> int:
    """Delete one secret of JOB."""
    from maand_cli.output.rows import ask_confirmation_at_terminal, print_note
    from maand_cli.remote.key_values import delete_secret
    from maand_cli.remote.session import open_session

    ask_confirmation_at_terminal(flags, f"Delete {expand_namespace(job)} {key}?")
    async with open_session(flags) as session:
        await delete_secret(session.catalog, expand_namespace(job), key)
    print_note(flags, f"{expand_namespace(job)} {key} is deleted")
    return 0


@secret.command("list")
@click.argument("job", default="", shell_complete=complete_jobs)
@runs_coroutine
async def list_secrets(flags: Flags, *, job: str) -> int:
    """List secrets without values, of all jobs or one."""
    from maand_cli.output.rows import show_rows
    from maand_cli.remote.key_values import secret_rows
    from maand_cli.remote.session import open_session

    async with open_session(flags) as session:
        rows = await secret_rows(session.catalog, job.removeprefix("secrets/job/"))
    show_rows(flags, "secrets", ("namespace", "key", "version", "created_at", "expires_at", "key_id", "writer"), rows)
    return 0


@secret.command()
@job_argument
@click.argument("key", shell_complete=complete_secret_keys)
@click.option("--version", type=click.IntRange(min=0), default=0, help="An older version; 0 = the newest.")
@runs_coroutine
async def reveal(flags: Flags, *, job: str, key: str, version: int) -> int:
    """Print one secret's value. The catalog writes down who did."""
    from maand_cli.output.rows import show_values
    from maand_cli.output.terminal import write_text
    from maand_cli.remote.key_values import reveal_secret
    from maand_cli.remote.session import open_session

    async with open_session(flags) as session:
        revealed = await reveal_secret(session.catalog, expand_namespace(job), key, version=version)
    if flags.is_human:
        write_text(revealed.value)
    else:
        values = {"namespace": expand_namespace(job), "key": key, "value": revealed.value, "version": revealed.version}
        show_values(flags, "secret", values)
    return 0


@secret.command()
@click.option("--continue", "go_on", is_flag=True, help="Go on with an interrupted rotation; make no new key.")
@runs_coroutine
async def rotate(flags: Flags, *, go_on: bool) -> int:
    """Encrypt every secret with a new key, while everything goes on.

    In local mode a key is appended to secrets/kv.key first; in a cluster, append one to the catalogs' key file yourself.
    When nothing is left to go, the older lines of the file may be deleted: see docs/bucket.md.
    """
    from maand_cli.output.message_dicts import to_dict
    from maand_cli.output.rows import print_note, show_values
    from maand_cli.remote.key_values import Rotation, rotate_secrets
    from maand_cli.remote.session import open_session
    from maand_wire.new_keys import make_kv_key_line

    rotation = Rotation()
    async with open_session(flags) as session:
        if session.is_local and not go_on:
            append_key(session.bucket.secrets / "kv.key", make_kv_key_line())
        async for rotation in rotate_secrets(session.catalog):
            print_note(flags, f"{rotation.done} values re-encrypted, {rotation.remaining} to go")
    if flags.is_human:
        for line in describe_rotation(rotation):
            print_note(flags, line)
    else:
        unreadable = [to_dict(value) for value in rotation.unreadable]
        values = {"rotated": rotation.done, "remaining": rotation.remaining, "unreadable": unreadable}
        show_values(flags, "rotation", values)
    return 0


def describe_rotation(rotation: "Rotation") -> Iterator[str]:
    """Say what could not be re-encrypted and why, and whether older keys may go."""
    lost = rotation.unreadable
    if lost:
        key_ids = ", ".join(sorted({value.key_id for value in lost}))
        yield f"{len(lost)} values cannot be opened and stay as they are; kv.key does not hold, or not as it was: {key_ids}"
        yield from (f"  {value.namespace} {value.key} version {value.version}, key {value.key_id}" for value in lost[:MOST_NAMED])
        if len(lost) > MOST_NAMED:
            yield f"  and {len(lost) - MOST_NAMED} more: maand secret rotate --continue -o json"
        yield KEYS_ARE_LOST
    elif rotation.remaining:
        yield KEYS_MUST_STAY
    else:
        yield KEYS_MAY_GO


def append_key(path: Path, line: bytes) -> None:
    """Append a key; it is on disk before anything is encrypted with it."""
    import os

    if not path.is_file():
        raise MissingPrerequisite(f"{path} is missing; without it no secret can be read", help="put it back from your backup")
    with path.open("rb+") as file:
        content = file.read()
        file.write(line if content.endswith(b"\n") or not content else b"\n" + line)
        file.flush()
        os.fsync(file.fileno())
