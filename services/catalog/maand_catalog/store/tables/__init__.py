"""All tables of the catalog, by area. Importing this package fills `metadata`, from which Alembic compares and tests create."""

from maand_catalog.database.metadata import metadata
from maand_catalog.store.tables import buckets, database, fleet, identity, kv, runs, semaphores, tasks, workspace

__all__ = ["buckets", "database", "fleet", "identity", "kv", "metadata", "runs", "semaphores", "tasks", "workspace"]
