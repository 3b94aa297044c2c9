"""Short questions about placement that other nouns ask: who runs a job now, and whom a job demands."""

from collections.abc import Iterable

from sqlalchemy import select

from maand_catalog.database.transaction import Transaction
from maand_catalog.store.tables.fleet import allocations, job_demands, workers


def active_workers(tx: Transaction, bucket_id: str, job: str) -> list[str]:
    """Return the hosts of a job's active allocations (neither removed nor disabled), by worker position."""
    return active_workers_by_job(tx, bucket_id, [job]).get(job, [])


def active_workers_by_job(tx: Transaction, bucket_id: str, jobs: Iterable[str] | None = None) -> dict[str, list[str]]:
    """Return the hosts of active allocations by worker position, for some jobs or for all that have any."""
    wanted = (
        select(allocations.c.job, allocations.c.worker)
        .join(workers, (workers.c.bucket_id == allocations.c.bucket_id) & (workers.c.host == allocations.c.worker))
        .where(allocations.c.bucket_id == bucket_id, allocations.c.removed.is_(False), allocations.c.disabled.is_(False))
        .order_by(allocations.c.job, workers.c.position)
    )
    if jobs is not None:
        wanted = wanted.where(allocations.c.job.in_(list(jobs)))
    hosts: dict[str, list[str]] = {}
    for job, worker in tx.connection.execute(wanted):
        hosts.setdefault(job, []).append(worker)
    return hosts


def demanded_jobs(tx: Transaction, bucket_id: str, job: str) -> set[str]:
    """Return the jobs that a job's hooks demand directly."""
    wanted = select(job_demands.c.demanded_job).where(job_demands.c.bucket_id == bucket_id, job_demands.c.job == job)
    return set(tx.connection.scalars(wanted))
