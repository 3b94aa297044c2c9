"""Bringing a database to the schema of this code: numbered migrations, applied under a lock, at start or by hand.

none, or older  ->  apply what is missing, one after the other, in one transaction
the same        ->  nothing (a start costs one query: Alembic is not even loaded)
newer           ->  refuse: the code is older than the data
"""

from pathlib import Path

from sqlalchemy import Connection, inspect, text

from maand_catalog.database.database import Database
from maand_catalog.errors import FailedPrecondition

MIGRATIONS = Path(__file__).parent.parent / "migrations"
ADVISORY_LOCK = 7_060_501_001
"""PostgreSQL: any number that nobody else uses; replicas that start together wait here for the first."""


class SchemaTooNew(FailedPrecondition):
    """The database was written by a newer maand. Start that version, or restore a backup from before the upgrade."""

    code = "schema_too_new"
    help = "start the newer version of maand, or restore a backup made before the upgrade"


def known_revisions() -> list[str]:
    """List the revisions this code knows, oldest first: they are numbered, and files begin with the number."""
    return sorted(path.name.partition("_")[0] for path in (MIGRATIONS / "versions").glob("[0-9]*.py"))


async def migrate_database(database: Database) -> str:
    """Bring the database up to date and return its revision. SchemaTooNew."""
    newest = known_revisions()[-1]
    if await database.read(lambda tx: read_schema_revision(tx.connection)) != newest:
        await database.write(lambda tx: apply_missing_migrations(tx.connection, newest), alone=True)
    return newest


def apply_missing_migrations(connection: Connection, newest: str) -> None:
    """Apply what is missing inside one transaction, under the lock; somebody else may have been faster."""
    lock_migrations(connection)
    current = read_schema_revision(connection)
    if current is not None and current not in known_revisions():
        raise SchemaTooNew(f"the database has schema {current}, this maand knows {newest} at most")
    if current != newest:
        apply_migrations(connection)


def read_schema_revision(connection: Connection) -> str | None:
    """Read the schema's revision; None for an empty database."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    revision: str | None = connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one_or_none()
    return revision


def lock_migrations(connection: Connection) -> None:
    """Keep other replicas from migrating at the same time; SQLite's write transaction does so by itself."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SET LOCAL statement_timeout = 0"))  # waiting for a slow migration elsewhere is right
        connection.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": ADVISORY_LOCK})


def apply_migrations(connection: Connection, revision: str = "head") -> None:
    """Apply what is missing up to a revision, inside the connection's transaction."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["connection"] = connection
    command.upgrade(config, revision)
