"""Trimming history: the latest versions of every key stay, and everything young enough."""

from datetime import timedelta

from sqlalchemy import delete, select

from maand_catalog.database.transaction import Transaction
from maand_catalog.store.kv.ledger import reserve_revisions
from maand_catalog.store.kv.owned import forget
from maand_catalog.store.kv.writes import REQUESTS_KEPT
from maand_catalog.store.tables.kv import kv_requests, kv_versions

VERSIONS_KEPT = 7
"""Versions of a key that stay however old they are."""

v = kv_versions.c


def trim_history(tx: Transaction, bucket_id: str, *, retain: timedelta) -> int:
    """Remove versions older than `retain` beyond the latest seven of their key; return how many went. For gc."""
    reserve_revisions(tx, bucket_id, 0)
    tx.connection.execute(
        delete(kv_requests).where(kv_requests.c.bucket_id == bucket_id, kv_requests.c.created_at < tx.now - REQUESTS_KEPT)
    )
    newest = kv_versions.alias("newest")
    newest_version = (
        select(newest.c.version)
        .where(newest.c.bucket_id == v.bucket_id, newest.c.namespace == v.namespace, newest.c.key == v.key, newest.c.newest)
        .correlate(kv_versions)
        .scalar_subquery()
    )
    old = (v.bucket_id == bucket_id) & (v.created_at < tx.now - retain) & (v.version <= newest_version - VERSIONS_KEPT)
    return forget(tx, bucket_id, old)
