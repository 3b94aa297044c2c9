"""Name workers by one word: the column that a job calls `name` was called `host`."""

from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    """Rename the column; PostgreSQL's index of the key has a column of its own."""
    op.execute("ALTER TABLE workers RENAME COLUMN host TO name")
    if op.get_bind().dialect.name == "postgresql":
        op.execute("ALTER TABLE pk_workers RENAME COLUMN host TO name")
