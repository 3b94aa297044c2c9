"""Remember of every allocation which version ran before the current one, and which ports what runs there may hold.

The version is unknown of what is there already: empty. What runs holds the ports of the last build, as far as is known.
"""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"

RUNNING = ("deploying", "promoted", "pending", "failed")


def upgrade() -> None:
    """Add the columns."""
    op.add_column("allocations", sa.Column("previous_version", sa.String(255), nullable=False, server_default=""))
    op.add_column("allocations", sa.Column("held_ports", sa.Text(), nullable=False, server_default=""))
    ports = sa.table("ports", *map(sa.column, ("bucket_id", "job", "number")))
    by_job: dict[tuple[str, str], list[int]] = {}
    for bucket_id, job, number in op.get_bind().execute(sa.select(ports).order_by(ports.c.number)):
        by_job.setdefault((bucket_id, job), []).append(number)
    allocations = sa.table("allocations", *map(sa.column, ("bucket_id", "job", "state", "held_ports")))
    for (bucket_id, job), numbers in by_job.items():
        c = allocations.c
        runs = (c.bucket_id == bucket_id, c.job == job, c.state.in_(RUNNING))
        op.execute(allocations.update().where(*runs).values(held_ports=",".join(map(str, numbers))))
