"""Count the lives of a database: a restored backup begins a new epoch."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Create the table; without a row it is the first epoch."""
    op.create_table(
        "database_facts",
        sa.Column("one", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("one = 1", name=op.f("ck_database_facts_one")),
        sa.PrimaryKeyConstraint("one", name=op.f("pk_database_facts")),
    )
