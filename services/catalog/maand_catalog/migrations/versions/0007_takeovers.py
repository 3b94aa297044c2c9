"""Count the takeovers of a run that recorded nothing, so that a run that kills its executors is not taken over without end."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Add the columns; for runs that are open now the count begins."""
    op.add_column("runs", sa.Column("steps_at_claim", sa.BigInteger(), nullable=False, server_default="0"))
    op.add_column("runs", sa.Column("barren_takeovers", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("runs", sa.Column("not_before", sa.BigInteger()))
