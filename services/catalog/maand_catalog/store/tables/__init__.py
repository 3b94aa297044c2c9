"""All tables of the catalog, by area. Importing this package fills `metadata`, from which Alembic compares and tests create."""

from maand_catalog.database.metadata import metadata
from maand_catalog.store.tables import buckets, fleet, identity, kv, runs, semaphores

__all__ = ["buckets", "fleet", "identity", "kv", "metadata", "runs", "semaphores"]
