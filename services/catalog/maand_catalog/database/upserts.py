"""INSERT … ON CONFLICT: both databases have it under the same words, SQLAlchemy under two imports."""

from sqlalchemy import Table
from sqlalchemy.dialects import postgresql, sqlite

from maand_catalog.database.transaction import Transaction


def upsert(tx: Transaction, table: Table) -> postgresql.Insert:
    """Return an INSERT that knows `on_conflict_do_nothing` and `on_conflict_do_update`, for the transaction's database."""
    return upsert_for(tx.dialect, table)


def upsert_for(dialect: str, table: Table) -> postgresql.Insert:
    """Return such an INSERT for one of the two databases: for statements that are made once."""
    if dialect == "postgresql":
        return postgresql.insert(table)
    insert: postgresql.Insert = sqlite.insert(table)  # type: ignore[assignment]  # same methods, no common base
    return insert
