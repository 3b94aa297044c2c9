"""Give each database an owner id that its copies do not share, and remember workers that were given up."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    """Add the columns; the next start of a catalog fills in the owner."""
    op.add_column("workers", sa.Column("lost", sa.Boolean(), nullable=False, server_default=sa.false()))
    for name in ("owner_id", "copied_from", "home"):
        op.add_column("database_facts", sa.Column(name, sa.String(255), nullable=False, server_default=""))
