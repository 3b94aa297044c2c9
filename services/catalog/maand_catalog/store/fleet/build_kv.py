"""The KV side of a build: what it owns, what it merges, what it puts back."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import select

from maand_catalog.database.transaction import Transaction
from maand_catalog.rules.build.kv_entries import Built, owned_entries
from maand_catalog.rules.build.plan import BuildPlan
from maand_catalog.rules.namespaces import (
    ROLLOUT_ORDER,
    allocation_namespace,
    job_namespace,
    private_key_name,
    settings_namespace,
    tags_namespace,
    variables_namespace,
    worker_namespace,
)
from maand_catalog.sealing.certificates import Issued
from maand_catalog.sealing.keyring import Keyring
from maand_catalog.store.fleet.views import find_active_workers_by_job
from maand_catalog.store.kv.bulk import KEEP, WantedKeys, merge_namespaces, replace_owned_namespaces
from maand_catalog.store.tables.fleet import jobs

WRITER = "build"


def write_owned_entries(tx: Transaction, keyring: Keyring, bucket_id: str, plan: BuildPlan, issued: Issued) -> None:
    """Make the KV that build owns hold exactly what it should; what removed allocations may still need is left alone."""
    facts = Built(
        bucket_id=bucket_id,
        workspace=plan.workspace,
        ports=plan.ports,
        certificates=issued.certificates,
        ca_certificate=issued.ca_certificate,
    )
    wanted: dict[str, dict[str, Any]] = dict(owned_entries(facts))
    for leaf in issued.certificates:
        key = issued.keys.get((leaf.job, leaf.name, leaf.worker), KEEP)
        wanted[allocation_namespace(leaf.job, leaf.worker)][private_key_name(leaf.name)] = key
    replace_owned_namespaces(tx, keyring, bucket_id=bucket_id, wanted=wanted, writer=WRITER, spared=find_spared_namespaces(plan))


def find_spared_namespaces(plan: BuildPlan) -> frozenset[str]:
    """Return the namespaces of what left but is still to be stopped or forgotten."""
    spared: set[str] = set()
    present_jobs = plan.workspace.parts.jobs.keys()
    present_workers = {worker.name for worker in plan.workspace.workers}
    for each in plan.allocations:
        if not each.removed:
            continue
        spared.add(allocation_namespace(each.job, each.worker))
        if each.job not in present_jobs:
            spared.update((job_namespace(each.job), settings_namespace(each.job)))
        if each.worker not in present_workers:
            spared.update((worker_namespace(each.worker), tags_namespace(each.worker)))
    return frozenset(spared)


def variables_of(plan: BuildPlan) -> dict[str, Mapping[str, str]]:
    """Return the entries of every `vars.toml` by job."""
    return {name: job.variables for name, job in plan.workspace.parts.jobs.items()}


def read_variables(tx: Transaction, bucket_id: str) -> dict[str, Mapping[str, str]]:
    """Return the entries of every `vars.toml` as the last build had them, by job."""
    wanted = select(jobs.c.name, jobs.c.variables).where(jobs.c.bucket_id == bucket_id, jobs.c.removed.is_(False))
    return {row.name: row.variables for row in tx.connection.execute(wanted)}


def merge_variables(
    tx: Transaction,
    keyring: Keyring,
    bucket_id: str,
    variables: Mapping[str, Mapping[str, str]],
    *,
    before: Mapping[str, Mapping[str, str]],
) -> None:
    """Lay `vars.toml` over `vars/job/<job>`: its keys are written, keys it lost go, keys that hooks wrote stay."""
    wanted: dict[str, WantedKeys] = {variables_namespace(job): entries for job, entries in variables.items() if entries}
    stale = {
        variables_namespace(job): before[job].keys() - entries.keys()
        for job, entries in variables.items()
        if job in before and before[job].keys() - entries.keys()
    }
    if wanted or stale:
        merge_namespaces(tx, keyring, bucket_id=bucket_id, wanted=wanted, stale=stale, writer=WRITER)


def reset_rollout_orders(tx: Transaction, keyring: Keyring, bucket_id: str) -> None:
    """Put every job's rollout order back to position order; writes only what a hook had changed."""
    workers = find_active_workers_by_job(tx, bucket_id)
    names = tx.connection.scalars(select(jobs.c.name).where(jobs.c.bucket_id == bucket_id, jobs.c.removed.is_(False)))
    wanted: dict[str, WantedKeys] = {job_namespace(name): {ROLLOUT_ORDER: ",".join(workers.get(name, ()))} for name in names}
    merge_namespaces(tx, keyring, bucket_id=bucket_id, wanted=wanted, writer=WRITER)
