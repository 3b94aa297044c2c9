"""`maand-catalog`: serve; bring the database up to date; back it up and restore it; make, list and revoke API tokens.

maand-catalog                                            serve until asked to stop
maand-catalog migrate                                    apply what the schema lacks, then exit
maand-catalog backup FILE                                copy a SQLite database, also while it is served
maand-catalog restore FILE                               put such a copy in the place of the database, in a new epoch
maand-catalog new-epoch                                  the same for one that was put back by other means (pg_restore)
maand-catalog token create --role operator --name me     print a new API token once (before anybody has one)
maand-catalog token list                                 list them: ids, names, roles, what became of them
maand-catalog token revoke TOKEN_ID                      refuse one from now on

All but serving may be done in a bucket directory, or name one with --bucket DIR; elsewhere MAAND_DATABASE_URL names the database.
"""

import argparse
import asyncio
import os
import sys
from collections.abc import Sequence

from maand_catalog.commands.database import add_database_commands, database_option, run_on_database
from maand_catalog.commands.tokens import add_token_commands
from maand_catalog.errors import CatalogError
from maand_catalog.service import start_catalog
from maand_catalog.settings import CatalogSettings
from maand_wire.endpoints import EndpointError
from maand_wire.logs import configure_logs
from maand_wire.supervision import until_asked_to_stop
from maand_wire.utf8_mode import ensure_utf8_mode


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; exit 1 with one sentence when something is in the way."""
    ensure_utf8_mode()
    options = parse_arguments(arguments)
    configure_logs(format=os.environ.get("MAAND_LOG_FORMAT", "kv"))
    try:
        asyncio.run(options.act(options))
    except (CatalogError, EndpointError) as error:
        sys.stderr.write(f"error: {error}\n")
        if getattr(error, "help", ""):
            sys.stderr.write(f"  help: {error.help}\n")  # type: ignore[union-attr]  # EndpointError has none, seen above
        sys.exit(1)


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the arguments; each command names the coroutine that carries it out."""
    parser = argparse.ArgumentParser(prog="maand-catalog", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.set_defaults(act=serve_catalog)
    commands = parser.add_subparsers(metavar="COMMAND")
    commands.add_parser("serve", help="serve until asked to stop (the default)").set_defaults(act=serve_catalog)
    where = database_option()
    add_database_commands(commands, where)
    add_token_commands(commands.add_parser("token", help="make, list and revoke API tokens"), where, run_on_database)
    return parser.parse_args(arguments)


async def serve_catalog(_options: argparse.Namespace) -> None:
    """Serve until asked to stop."""
    os.umask(0o077)  # what a catalog makes is its own
    catalog = await start_catalog(CatalogSettings.from_environment())
    try:
        await until_asked_to_stop()
    finally:
        await catalog.stop()


if __name__ == "__main__":
    main()
