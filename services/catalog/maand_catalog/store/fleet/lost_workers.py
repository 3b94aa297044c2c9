"""Giving up workers that left the workspace: a person's word that nothing can or shall be done there any more."""

from collections.abc import Collection, Sequence

from sqlalchemy import update

from maand_catalog.database.statements import one_of
from maand_catalog.database.transaction import Transaction
from maand_catalog.errors import FailedPrecondition, NotFound
from maand_catalog.store.fleet.listings import list_workers
from maand_catalog.store.tables.fleet import workers
from maand_wire.nearest import nearest_or_known


class WorkerNotRemoved(FailedPrecondition):
    """Only a worker that left `workers.json` can be given up. Remove it there and build first."""

    code = "worker_not_removed"


def give_up_workers(tx: Transaction, bucket_id: str, names: Collection[str]) -> Sequence[str]:
    """Mark workers as lost, and return those that were not before. NotFound, WorkerNotRemoved: then nothing changed."""
    known = {worker.name: worker for worker in list_workers(tx, bucket_id, include_removed=True)}
    for name in names:
        if name not in known:
            left = [worker.name for worker in known.values() if worker.removed]
            raise NotFound(f'no worker is called "{name}"', help=nearest_or_known(name, left))
        if not known[name].removed:
            raise WorkerNotRemoved(
                f"{name} is still in workspace/workers.json",
                help="remove it there and run `maand build`; one that is away for a while is left out with --skip-unreachable",
            )
    new = [name for name in names if not known[name].lost]
    tx.connection.execute(
        update(workers).where(workers.c.bucket_id == bucket_id, one_of(tx, workers.c.name, new)).values(lost=True)
    )
    return new
