"""Remember of every allocation whether it was stopped and not promoted since, whatever was tried in between."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    """Add the column; the history of moves says what is true of the allocations that are there."""
    op.add_column("allocations", sa.Column("start_owed", sa.Boolean(), nullable=False, server_default=sa.false()))
    allocations = sa.table("allocations", sa.column("bucket_id"), sa.column("allocation_id"), sa.column("start_owed"))
    op.execute(allocations.update().where(stopped_since_promoted(allocations)).values(start_owed=sa.true()))


def stopped_since_promoted(allocations: sa.TableClause) -> sa.Exists:
    """Whether an allocation was stopped, and not promoted later; one that left before its first deploy was not stopped."""
    stop, promotion = moves().alias("stop"), moves().alias("promotion")
    promoted_later = sa.exists().where(
        promotion.c.bucket_id == stop.c.bucket_id,
        promotion.c.allocation_id == stop.c.allocation_id,
        promotion.c.to_state == "promoted",
        promotion.c.number > stop.c.number,
    )
    return sa.exists().where(
        stop.c.bucket_id == allocations.c.bucket_id,
        stop.c.allocation_id == allocations.c.allocation_id,
        stop.c.to_state.in_(("stopped", "removed")),
        stop.c.from_state != "planned",
        ~promoted_later,
    )


def moves() -> sa.TableClause:
    """Name the columns that are read."""
    names = ("bucket_id", "allocation_id", "number", "from_state", "to_state")
    return sa.table("allocation_moves", *(sa.column(name) for name in names))
