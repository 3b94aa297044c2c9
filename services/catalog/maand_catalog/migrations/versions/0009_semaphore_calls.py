"""Remember with a held semaphore slot every call that was given it."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Add the column; a slot of before was given to the one call that it names. Claims are found by their invocation only."""
    op.add_column("semaphore_claims", sa.Column("earlier_calls", sa.String(length=320), nullable=False, server_default=""))
    op.drop_index(op.f("ix_semaphore_claims_call_id"), table_name="semaphore_claims")
