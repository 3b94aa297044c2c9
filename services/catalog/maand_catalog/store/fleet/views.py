"""What templates are rendered from: everything that hooks of some allocations may read, each namespace once."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from sqlalchemy import select

from maand_catalog.database.statements import in_chunks, one_of
from maand_catalog.database.transaction import Transaction
from maand_catalog.errors import InvalidArgument, NotFound
from maand_catalog.rules.namespaces import holds_secrets, is_private_key
from maand_catalog.rules.policy import readable_namespaces
from maand_catalog.sealing.keyring import Keyring
from maand_catalog.store.kv.entries import entry_from_row, is_present, select_entries, stream_rows
from maand_catalog.store.runs.invocations import find_places
from maand_catalog.store.tables.fleet import allocations, job_demands, workers
from maand_catalog.store.tables.kv import kv_versions


def find_active_workers(tx: Transaction, bucket_id: str, job: str) -> list[str]:
    """Return the workers of a job's active allocations (neither removed nor disabled), by worker position."""
    return find_active_workers_by_job(tx, bucket_id, [job]).get(job, [])


def find_active_workers_by_job(tx: Transaction, bucket_id: str, jobs: Iterable[str] | None = None) -> dict[str, list[str]]:
    """Return the workers of active allocations by position, for some jobs or for all that have any."""
    wanted = (
        select(allocations.c.job, allocations.c.worker)
        .join(workers, (workers.c.bucket_id == allocations.c.bucket_id) & (workers.c.name == allocations.c.worker))
        .where(allocations.c.bucket_id == bucket_id, allocations.c.removed.is_(False), allocations.c.disabled.is_(False))
        .order_by(allocations.c.job, workers.c.position)
    )
    if jobs is not None:
        wanted = wanted.where(one_of(tx, allocations.c.job, list(jobs)))
    names: dict[str, list[str]] = {}
    for job, worker in tx.connection.execute(wanted):
        names.setdefault(job, []).append(worker)
    return names


def find_demanded_jobs(tx: Transaction, bucket_id: str, job: str) -> set[str]:
    """Return the jobs that a job's hooks demand directly."""
    wanted = select(job_demands.c.demanded_job).where(job_demands.c.bucket_id == bucket_id, job_demands.c.job == job)
    return set(tx.connection.scalars(wanted))


MOST_VIEWS = 10_000

v = kv_versions.c
a = allocations.c


@dataclass(kw_only=True)
class NamespaceContent:
    """Values of one namespace, in clear."""

    namespace: str
    secret: bool
    values: dict[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, kw_only=True)
class AllocationView:
    """What one allocation may read."""

    allocation_id: str
    namespaces: tuple[str, ...]


def read_views(
    tx: Transaction, keyring: Keyring, bucket_id: str, allocation_ids: Sequence[str]
) -> tuple[list[NamespaceContent], list[AllocationView]]:
    """Return contents and views of allocations of one job. Private keys are left out: they reach a worker as files only."""
    job, workers = find_job_and_workers(tx, bucket_id, allocation_ids)
    demanded, peers = find_demanded_jobs(tx, bucket_id, job), find_peers(tx, bucket_id, job)
    views = [
        AllocationView(
            allocation_id=allocation_id,
            namespaces=tuple(readable_namespaces(job, worker, demanded_jobs=demanded, peers=peers)),
        )
        for allocation_id, worker in workers.items()
    ]
    wanted = sorted({namespace for view in views for namespace in view.namespaces})
    return list(read_contents(tx, keyring, bucket_id, wanted)), views


def find_job_and_workers(tx: Transaction, bucket_id: str, allocation_ids: Sequence[str]) -> tuple[str, dict[str, str]]:
    """Return the one job of these allocations, and the worker of each, in the order asked."""
    if not 0 < len(allocation_ids) <= MOST_VIEWS:
        raise InvalidArgument(f"1 to {MOST_VIEWS} allocations are read at once, not {len(allocation_ids)}")
    found = find_places(tx, bucket_id, allocation_ids)
    missing = [allocation_id for allocation_id in allocation_ids if allocation_id not in found]
    if missing:
        raise NotFound(f"there is no allocation {missing[0][:60]} in this bucket", help="list them: maand cat allocations")
    jobs = {job for job, _ in found.values()}
    if len(jobs) > 1:
        raise InvalidArgument(f"the allocations are of {len(jobs)} jobs; read one job at a time")
    return jobs.pop(), {allocation_id: found[allocation_id][1] for allocation_id in allocation_ids}


def find_peers(tx: Transaction, bucket_id: str, job: str) -> list[str]:
    """Return the workers of a job's allocations that are not removed."""
    query = select(a.worker).where(a.bucket_id == bucket_id, a.job == job, a.removed.is_(False)).order_by(a.position)
    return list(tx.connection.scalars(query))


def read_contents(tx: Transaction, keyring: Keyring, bucket_id: str, namespaces: Collection[str]) -> Iterator[NamespaceContent]:
    """Yield the present values of each namespace that holds any."""
    for chunk in in_chunks(sorted(namespaces)):
        wanted = select_entries(bucket_id).where(one_of(tx, v.namespace, chunk), is_present(tx)).order_by(v.namespace, v.key)
        content = NamespaceContent(namespace="", secret=False)
        for row in stream_rows(tx, wanted):
            entry = entry_from_row(row)
            if entry.namespace != content.namespace:
                yield from [content] if content.values else []
                content = NamespaceContent(namespace=entry.namespace, secret=holds_secrets(entry.namespace))
            if not is_private_key(entry.namespace, entry.key):
                content.values[entry.key] = entry.text(keyring)
        yield from [content] if content.values else []
