"""How many runs there are that have not ended, for metrics. Reads the index of active runs only."""

from sqlalchemy import and_, func, select

from maand_catalog.database.transaction import Transaction
from maand_catalog.rules.meter import UnfinishedRuns
from maand_catalog.rules.runs import RunState
from maand_catalog.store.runs.leases import NOBODY_AHEAD
from maand_catalog.store.tables.runs import runs

COUNT = select(runs.c.kind, runs.c.state, func.count()).where(runs.c.finished_at.is_(None)).group_by(runs.c.kind, runs.c.state)
OLDEST_PENDING = select(func.min(runs.c.created_at)).where(
    and_(runs.c.finished_at.is_(None), runs.c.state == RunState.PENDING, NOBODY_AHEAD)
)


def count_unfinished(tx: Transaction) -> UnfinishedRuns:
    """Count the runs of all buckets that have not ended, by kind and state as stored."""
    oldest = tx.connection.execute(OLDEST_PENDING).scalar_one_or_none()
    return UnfinishedRuns(
        by_kind_and_state={(kind, state): count for kind, state, count in tx.connection.execute(COUNT)},
        oldest_pending_seconds=max((tx.now - oldest).total_seconds(), 0.0) if oldest else 0.0,
    )
