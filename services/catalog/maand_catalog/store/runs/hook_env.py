"""Values of `hook_env` at rest: bound to their run, kept until it ends, re-encrypted by a rotation like every secret."""

from sqlalchemy import ColumnElement, and_, bindparam, func, select, update

from maand_catalog.database.transaction import Transaction
from maand_catalog.sealing.keyring import CannotDecrypt, Keyring, Sealed, associated_data
from maand_catalog.store.tables.runs import runs


def hook_env_binding(bucket_id: str, run_id: str) -> bytes:
    """Return what the values of one run are bound to."""
    return associated_data("hook_env", bucket_id, run_id)


def rotate_hook_env(tx: Transaction, keyring: Keyring, bucket_id: str) -> int:
    """Re-encrypt the values of every run that has not ended and whose key is an older one; return how many runs that were.

    `CannotDecrypt` names the run whose key is gone.
    """
    query = select(runs.c.run_id, runs.c.sealed_hook_env, runs.c.hook_env_key_id).where(
        is_sealed_with_older_key(keyring, bucket_id)
    )
    rows = tx.connection.execute(query.order_by(runs.c.seq).with_for_update()).all()
    changes = []
    for row in rows:
        place = hook_env_binding(bucket_id, row.run_id)
        sealed = reseal_hook_env(keyring, Sealed(key_id=row.hook_env_key_id, data=row.sealed_hook_env), place, run_id=row.run_id)
        changes.append({"of": row.run_id, "data": sealed.data, "new": sealed.key_id})
    if changes:
        stored = update(runs).where(runs.c.run_id == bindparam("of"))
        tx.connection.execute(stored.values(sealed_hook_env=bindparam("data"), hook_env_key_id=bindparam("new")), changes)
    return len(changes)


def reseal_hook_env(keyring: Keyring, sealed: Sealed, place: bytes, *, run_id: str) -> Sealed:
    """Return the values of one run under the newest key."""
    try:
        return keyring.seal(keyring.open(sealed, place), place)
    except CannotDecrypt as error:
        raise CannotDecrypt(
            f"hook_env of run {run_id} cannot be opened: {error}",
            help=f"put the key back into kv.key, above the last line, or give the run up: maand runs cancel {run_id}",
            facts={"run_id": run_id, "key_id": sealed.key_id},
        ) from error


def count_stale_hook_env(tx: Transaction, keyring: Keyring, bucket_id: str) -> int:
    """Count the runs whose values an older key encrypts."""
    return tx.connection.scalar(select(func.count()).where(is_sealed_with_older_key(keyring, bucket_id))) or 0


def is_sealed_with_older_key(keyring: Keyring, bucket_id: str) -> ColumnElement[bool]:
    """Return the condition that a run has values and an older key encrypts them."""
    return and_(runs.c.bucket_id == bucket_id, runs.c.sealed_hook_env != b"", runs.c.hook_env_key_id != keyring.newest)
