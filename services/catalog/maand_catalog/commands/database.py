"""`maand-catalog migrate`, `backup`, `restore_database`, `new-epoch`: the database as a whole, by whoever may open it.

Which database: `--bucket DIR`, else `MAAND_DATABASE_URL`, else that of the bucket around the working directory.
"""

import argparse
import asyncio
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from maand_catalog.database.database import Database
from maand_catalog.database.failures import translate_refusals
from maand_catalog.database.migrate import migrate_database
from maand_catalog.database.transaction import Transaction
from maand_catalog.settings import find_database_url
from maand_catalog.store.backup import back_up_database
from maand_catalog.store.restore import begin_epoch_by_hand, restore_database
from maand_catalog.store.runs.epochs import LARGEST_EPOCH, NewEpoch

T = TypeVar("T")
Commands = argparse._SubParsersAction  # noqa: SLF001 - argparse has no public name for what `add_subparsers` returns

SHOWN_RUNS = 20
"""Ended runs that are listed by name; of more, the rest is counted."""


def add_database_commands(commands: "Commands[argparse.ArgumentParser]", where: argparse.ArgumentParser) -> None:
    """Add the commands; each names the coroutine that carries it out. `where` holds the options that name the database."""
    migrating = commands.add_parser("migrate", parents=[where], help="bring the database up to date, then exit")
    migrating.set_defaults(act=migrate_only)
    backup = commands.add_parser(
        "backup", parents=[where], help="copy a SQLite database into a new file, also while it is served"
    )
    backup.add_argument("file", metavar="FILE", type=Path, help="file to make, 0600; it must not exist")
    backup.set_defaults(act=back_up_only)
    restoring = commands.add_parser("restore", parents=[where], help="put a backup in the place of a SQLite database")
    restoring.add_argument("file", metavar="FILE", type=Path, help="backup to put back; it is copied and stays as it is")
    restoring.set_defaults(act=restore_only)
    epoch = commands.add_parser(
        "new-epoch", parents=[where], help="after a backup was put back by other means: end what was open"
    )
    epoch.add_argument(
        "--above",
        metavar="EPOCH",
        type=parse_epoch,
        default=0,
        help="epoch that a worker has seen: begin a larger one (clock set back)",
    )
    epoch.set_defaults(act=new_epoch_only)


def database_option() -> argparse.ArgumentParser:
    """Return the options that name the database, for every command that opens one."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--bucket", metavar="DIR", type=Path, help="bucket directory whose database is meant")
    return parser


def parse_epoch(text: str) -> int:
    """Read an epoch from the command line."""
    if not (text.isascii() and text.isdigit() and int(text) <= LARGEST_EPOCH):
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is no epoch: a whole number as the worker's refusal names it")
    return int(text)


def chosen_database_url(options: argparse.Namespace, *, may_be_new: bool = False) -> str:
    """Return the URL of the database that is meant. MissingSetting, BadSetting."""
    return find_database_url(os.environ, bucket=options.bucket, start=Path.cwd(), may_be_new=may_be_new)


async def migrate_only(options: argparse.Namespace) -> None:
    """Bring the database up to date."""
    database = await Database.open(chosen_database_url(options))
    try:
        with translate_refusals():
            revision = await migrate_database(database)
    finally:
        await database.close()
    sys.stderr.write(f"the database has schema {revision}\n")


async def back_up_only(options: argparse.Namespace) -> None:
    """Copy the database."""
    await asyncio.to_thread(back_up_database, chosen_database_url(options), options.file)
    sys.stderr.write(f"backed up to {options.file}; keep the key files with it\n")


async def restore_only(options: argparse.Namespace) -> None:
    """Put a backup in place."""
    restored = await restore_database(chosen_database_url(options, may_be_new=True), options.file)
    sys.stderr.write(f"restored {restored.database} from {options.file} (schema {restored.revision})\n")
    tell_epoch(restored.epoch)
    if restored.kept is not None:
        sys.stderr.write(f"the replaced database is {restored.kept}; remove it when it is not needed any more\n")


async def new_epoch_only(options: argparse.Namespace) -> None:
    """Begin a new epoch."""
    tell_epoch(await begin_epoch_by_hand(chosen_database_url(options), above=options.above))


def tell_epoch(begun: NewEpoch) -> None:
    """Say which epoch began and which runs ended with the one before."""
    ended = "ended as failed because they were open:" if begun.ended else "no run was open"
    sys.stderr.write(f"epoch {begun.epoch} begins; {ended}\n")
    for run in begun.ended[:SHOWN_RUNS]:
        sys.stderr.write(f"  {run.kind} run {run.run_id} (it was {run.state})\n")
    if len(begun.ended) > SHOWN_RUNS:
        sys.stderr.write(f"  and {len(begun.ended) - SHOWN_RUNS} more: maand runs list\n")


async def run_on_database(options: argparse.Namespace, intention: Callable[[Transaction], T]) -> T:
    """Carry out one intention on the database that is meant, brought up to date."""
    database = await Database.open(chosen_database_url(options))
    try:
        with translate_refusals():
            await migrate_database(database)
            return await database.write(intention)
    finally:
        await database.close()
