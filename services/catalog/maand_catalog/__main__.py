"""`maand-catalog`: serve; bring the database up to date; back it up; make, list and revoke API tokens.

maand-catalog                                            serve until asked to stop
maand-catalog migrate                                    apply what the schema lacks, then exit
maand-catalog backup FILE                                copy a SQLite database, also while it is served
maand-catalog token create --role operator --name me     print a new API token once (before anybody has one)
maand-catalog token list                                 list them: ids, names, roles, what became of them
maand-catalog token revoke TOKEN_ID                      refuse one from now on
"""

import argparse
import asyncio
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from maand_catalog.errors import CatalogError
from maand_catalog.service import start_catalog
from maand_catalog.settings import CatalogSettings, needed
from maand_catalog.store.backup import back_up
from maand_catalog.store.database import Database
from maand_catalog.store.migrate import migrate
from maand_catalog.store.transaction import Transaction
from maand_catalog.token_commands import add_token_commands
from maand_wire.endpoints import EndpointError
from maand_wire.lifecycle import until_asked_to_stop
from maand_wire.logs import configure_logs

T = TypeVar("T")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; exit 1 with one sentence when something is in the way."""
    options = parse(arguments)
    configure_logs(format=os.environ.get("MAAND_LOG_FORMAT", "kv"))
    try:
        asyncio.run(options.act(options))
    except (CatalogError, EndpointError) as error:
        sys.stderr.write(f"error: {error}\n")
        if getattr(error, "help", ""):
            sys.stderr.write(f"  help: {error.help}\n")  # type: ignore[union-attr]  # EndpointError has none, seen above
        sys.exit(1)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the arguments; each command names the coroutine that carries it out."""
    parser = argparse.ArgumentParser(prog="maand-catalog", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.set_defaults(act=serve)
    commands = parser.add_subparsers(metavar="COMMAND")
    commands.add_parser("serve", help="serve until asked to stop (the default)").set_defaults(act=serve)
    commands.add_parser("migrate", help="bring the database up to date, then exit").set_defaults(act=migrate_only)
    backup = commands.add_parser("backup", help="copy a SQLite database into a new file, also while it is served")
    backup.add_argument("file", type=Path, help="file to make, 0600; it must not exist")
    backup.set_defaults(act=back_up_only)
    add_token_commands(commands.add_parser("token", help="make, list and revoke API tokens"), on_database)
    return parser.parse_args(arguments)


async def serve(_options: argparse.Namespace) -> None:
    """Serve until asked to stop."""
    catalog = await start_catalog(CatalogSettings.from_environment())
    try:
        await until_asked_to_stop()
    finally:
        await catalog.stop()


async def migrate_only(_options: argparse.Namespace) -> None:
    """Bring the database up to date."""
    database = await open_database()
    try:
        revision = await migrate(database)
    finally:
        await database.close()
    sys.stderr.write(f"the database has schema {revision}\n")


async def back_up_only(options: argparse.Namespace) -> None:
    """Copy the database."""
    url = needed(os.environ, "MAAND_DATABASE_URL", "sqlite:////var/lib/maand/maand.db")
    await asyncio.to_thread(back_up, url, options.file)
    sys.stderr.write(f"backed up to {options.file}; keep the key files with it\n")


async def on_database(intention: Callable[[Transaction], T]) -> T:
    """Carry out one intention on an up-to-date database."""
    database = await open_database()
    try:
        await migrate(database)
        return await database.write(intention)
    finally:
        await database.close()


async def open_database() -> Database:
    """Open the database that the environment names; commands that only touch it need no other setting."""
    return await Database.open(needed(os.environ, "MAAND_DATABASE_URL", "postgresql://maand@localhost/maand"))


if __name__ == "__main__":
    main()
