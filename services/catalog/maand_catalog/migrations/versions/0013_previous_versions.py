"""Remember of every allocation which version ran before the current one. Of what is there already that is unknown: empty."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0011"


def upgrade() -> None:
    """Add the column."""
    op.add_column("allocations", sa.Column("previous_version", sa.String(255), nullable=False, server_default=""))
