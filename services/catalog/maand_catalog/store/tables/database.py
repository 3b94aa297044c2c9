"""Table of what is true of the database as a whole, whatever its buckets hold."""

from sqlalchemy import BigInteger, CheckConstraint, Column, Integer, Table

from maand_catalog.database.metadata import metadata

database_facts = Table(
    "database_facts",
    metadata,
    Column("one", Integer(), primary_key=True, autoincrement=False),
    Column("epoch", BigInteger(), nullable=False),
    CheckConstraint("one = 1", name="one"),
)
"""At most one row. None: the database lives its first life, epoch 1 (see `store.epochs`)."""
