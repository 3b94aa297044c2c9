"""Remember with every run which trace it belongs to."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Add the column; runs of before belong to none."""
    op.add_column("runs", sa.Column("traceparent", sa.String(length=64), nullable=False, server_default=""))
