"""What was built, as it is listed: workers, jobs with their hooks and files, demands, rollout orders."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import select

from maand_catalog.database.statements import in_chunks, one_of, select_page
from maand_catalog.database.transaction import Transaction
from maand_catalog.errors import NotFound
from maand_catalog.rules.namespaces import ROLLOUT_ORDER, job_namespace
from maand_catalog.rules.workspace.tree import TreeEntry, unpack_tree
from maand_catalog.store.fleet.views import find_active_workers
from maand_catalog.store.kv.entries import get_entry
from maand_catalog.store.tables.fleet import hooks, job_demands, jobs, workers
from maand_wire.nearest import did_you_mean


@dataclass(frozen=True, kw_only=True)
class ListedWorker:
    """One worker as built."""

    worker_id: str
    name: str
    hostname: str
    position: int
    labels: list[str]
    memory_mb: int
    cpu_mhz: int
    tags: dict[str, str]
    ssh_user: str
    ssh_port: int
    disabled: bool
    removed: bool
    lost: bool


@dataclass(frozen=True, kw_only=True)
class ListedHook:
    """One hook as built."""

    job: str
    name: str
    path: str
    runtime: str
    executed_on: list[str]
    timeout_seconds: int
    scope: str
    demands_job: str
    demands_hook: str
    demand_config: str


@dataclass(frozen=True, kw_only=True)
class ListedJob:
    """One job as built. `facts` are those of `build_transaction.job_facts`."""

    job_id: str
    name: str
    version: str
    deployment_seq: int
    memory_mb: int
    cpu_mhz: int
    removed: bool
    has_makefile: bool
    facts: dict[str, Any]
    hooks: list[ListedHook] = field(default_factory=list)
    demanded_jobs: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class RolloutOrder:
    """The order in force."""

    workers: list[str]
    set_by_hook: bool
    warning: str = ""


WORKER_COLUMNS = [column for column in workers.columns if column.name != "bucket_id"]
HOOK_COLUMNS = [column for column in hooks.columns if column.name != "bucket_id"]
JOB_COLUMNS = [column for column in jobs.columns if column.name not in ("bucket_id", "tree", "variables")]


def list_workers(
    tx: Transaction,
    bucket_id: str,
    *,
    names: Collection[str] = (),
    labels: Collection[str] = (),
    include_removed: bool = False,
) -> list[ListedWorker]:
    """Return workers by position, those that left last. Labels match when a worker has any of them."""
    w = workers.c
    wanted = select(*WORKER_COLUMNS).where(w.bucket_id == bucket_id).order_by(w.removed, w.position, w.name)
    if not include_removed:
        wanted = wanted.where(w.removed.is_(False))
    found = [ListedWorker(**row) for row in tx.connection.execute(wanted).mappings()]
    return [
        worker
        for worker in found
        if (not names or worker.name in names) and (not labels or set(labels).intersection(worker.labels))
    ]


def list_jobs(
    tx: Transaction,
    bucket_id: str,
    *,
    names: Sequence[str] = (),
    include_removed: bool = False,
    after: Sequence[str] | None = None,
    limit: int | None = None,
) -> list[ListedJob]:
    """Return jobs by name with their hooks. NotFound for a name that was never built."""
    j = jobs.c
    wanted = select_page(select(*JOB_COLUMNS).where(j.bucket_id == bucket_id), j.name, after=after, limit=limit)
    if names:
        check_job_names(tx, bucket_id, names, include_removed=include_removed)
        wanted = wanted.where(one_of(tx, j.name, names))
    if not include_removed:
        wanted = wanted.where(j.removed.is_(False))
    rows = tx.connection.execute(wanted).mappings().all()
    found = [ListedJob(**row) for row in rows]
    return add_hooks(tx, bucket_id, found)


def add_hooks(tx: Transaction, bucket_id: str, found: list[ListedJob]) -> list[ListedJob]:
    """Add hooks by name and demanded jobs to listed jobs."""
    by_name = {job.name: job for job in found}
    for names in in_chunks(sorted(by_name)):
        h, d = hooks.c, job_demands.c
        wanted = select(*HOOK_COLUMNS).where(h.bucket_id == bucket_id, one_of(tx, h.job, names)).order_by(h.name)
        for row in tx.connection.execute(wanted).mappings():
            by_name[row["job"]].hooks.append(ListedHook(**row))
        demands = select(d.job, d.demanded_job).where(d.bucket_id == bucket_id, one_of(tx, d.job, names)).order_by(d.demanded_job)
        for job, demanded in tx.connection.execute(demands):
            by_name[job].demanded_jobs.append(demanded)
    return found


def check_job_names(tx: Transaction, bucket_id: str, names: Sequence[str], *, include_removed: bool) -> None:
    """Refuse a name that no job has, with the nearest one that exists."""
    wanted = select(jobs.c.name).where(jobs.c.bucket_id == bucket_id)
    if not include_removed:
        wanted = wanted.where(jobs.c.removed.is_(False))
    known = set(tx.connection.scalars(wanted))
    unknown = next((name for name in names if name not in known), None)
    if unknown is not None:
        raise NotFound(f'there is no job "{unknown[:64]}"', help=did_you_mean(unknown, known) or "run `maand build`")


def list_job_files(tx: Transaction, bucket_id: str, job: str) -> tuple[TreeEntry, ...]:
    """Return the stored files of a job, also of one that left. NotFound."""
    wanted = select(jobs.c.tree).where(jobs.c.bucket_id == bucket_id, jobs.c.name == job)
    tree = tx.connection.scalar(wanted)
    if tree is None:
        check_job_names(tx, bucket_id, [job], include_removed=True)
        raise NotFound(f'there is no job "{job[:64]}"')
    return unpack_tree(bytes(tree))


def list_hook_demands(
    tx: Transaction, bucket_id: str, job: str, hook: str, *, after: Sequence[str] | None = None, limit: int | None = None
) -> list[ListedHook]:
    """Return the hooks of present jobs that demand a hook, by job and hook."""
    h = hooks.c
    wanted = (
        select(*HOOK_COLUMNS)
        .join(jobs, (jobs.c.bucket_id == h.bucket_id) & (jobs.c.name == h.job))
        .where(h.bucket_id == bucket_id, h.demands_job == job, h.demands_hook == hook, jobs.c.removed.is_(False))
    )
    page = select_page(wanted, h.job, h.name, after=after, limit=limit)
    return [ListedHook(**row) for row in tx.connection.execute(page).mappings()]


def read_rollout_order(tx: Transaction, bucket_id: str, job: str) -> RolloutOrder:
    """Return the order in force: the KV entry when it still is a permutation of the active workers, else position order."""
    check_job_names(tx, bucket_id, [job], include_removed=True)
    by_position = find_active_workers(tx, bucket_id, job)
    try:
        entry = get_entry(tx, bucket_id, job_namespace(job), ROLLOUT_ORDER)
    except NotFound:
        return RolloutOrder(workers=by_position, set_by_hook=False)
    chosen = [name.strip() for name in (entry.value or "").split(",") if name.strip()]
    if chosen == by_position:
        return RolloutOrder(workers=by_position, set_by_hook=False)
    if sorted(chosen) == sorted(by_position):
        return RolloutOrder(workers=chosen, set_by_hook=True)
    warning = f'the rollout order of job "{job}" is ignored: it does not name exactly the active workers'
    return RolloutOrder(workers=by_position, set_by_hook=False, warning=warning)
