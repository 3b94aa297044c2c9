"""The database's epoch."""

from maand_catalog.store.transaction import Transaction


def read_epoch(tx: Transaction) -> int:
    """Return the epoch."""
    return 1
