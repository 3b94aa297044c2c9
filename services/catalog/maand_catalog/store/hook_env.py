"""Values of `hook_env` at rest: bound to their run, kept until it ends, re-encrypted by a rotation like every secret."""

from sqlalchemy import ColumnElement, and_, bindparam, func, select, update

from maand_catalog.keyring import Keyring, Sealed, associated
from maand_catalog.store.tables_runs import runs
from maand_catalog.store.transaction import Transaction


def binding(bucket_id: str, run_id: str) -> bytes:
    """Return what the values of one run are bound to."""
    return associated("hook_env", bucket_id, run_id)


def rotate_hook_env(tx: Transaction, keyring: Keyring, bucket_id: str) -> int:
    """Re-encrypt the values of every run that has not ended and whose key is an older one; return how many runs that were."""
    query = select(runs.c.run_id, runs.c.sealed_hook_env, runs.c.hook_env_key_id).where(is_pending(keyring, bucket_id))
    rows = tx.connection.execute(query.order_by(runs.c.seq).with_for_update()).all()
    changes = []
    for row in rows:
        place = binding(bucket_id, row.run_id)
        sealed = keyring.seal(keyring.open(Sealed(key_id=row.hook_env_key_id, data=row.sealed_hook_env), place), place)
        changes.append({"of": row.run_id, "data": sealed.data, "new": sealed.key_id})
    if changes:
        stored = update(runs).where(runs.c.run_id == bindparam("of"))
        tx.connection.execute(stored.values(sealed_hook_env=bindparam("data"), hook_env_key_id=bindparam("new")), changes)
    return len(changes)


def count_pending(tx: Transaction, keyring: Keyring, bucket_id: str) -> int:
    """Count the runs whose values an older key encrypts."""
    return tx.connection.scalar(select(func.count()).where(is_pending(keyring, bucket_id))) or 0


def is_pending(keyring: Keyring, bucket_id: str) -> ColumnElement[bool]:
    """Return the condition that a run has values and an older key encrypts them."""
    return and_(runs.c.bucket_id == bucket_id, runs.c.sealed_hook_env != b"", runs.c.hook_env_key_id != keyring.newest)
