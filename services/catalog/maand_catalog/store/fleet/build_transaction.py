"""The build transaction: read what is remembered, write what was planned. All of it, or nothing.

`build` runs under `Database.write(…, alone=True)`. It holds no lock on the run while it works, so that the executor can renew its
lease meanwhile; the fence is checked once more, under lock, as the last act before the commit.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from typing import Any

from sqlalchemy import delete, insert, select, update

from maand_catalog.database.statements import ROWS_AT_ONCE, in_chunks, one_of, put_rows, select_page
from maand_catalog.database.transaction import Transaction
from maand_catalog.rules.build.certificates import CertificateFacts
from maand_catalog.rules.build.checked_workspace import JobSource
from maand_catalog.rules.build.kv_entries import job_id_of, worker_id_of
from maand_catalog.rules.build.plan import BuildPlan, Remembered
from maand_catalog.rules.build.ports import PortFacts
from maand_catalog.rules.workspace.tree import pack_tree
from maand_catalog.sealing.certificates import Issued
from maand_catalog.sealing.keyring import Keyring
from maand_catalog.store.fleet.allocations import (
    AllocationFilter,
    forget_emptied_jobs_and_workers,
    list_allocations,
    put_allocations,
)
from maand_catalog.store.fleet.build_kv import merge_variables, read_variables, variables_of, write_owned_entries
from maand_catalog.store.tables.buckets import builds
from maand_catalog.store.tables.fleet import certificates, hooks, job_demands, jobs, ports, workers

CERTIFICATE_FIELDS = tuple(field.name for field in fields(CertificateFacts))


@dataclass(frozen=True, kw_only=True)
class BuildIdentity:
    """Which build this is: of what, by whom."""

    bucket_id: str
    run_id: str
    snapshot_id: str
    inputs_sha256: bytes


def read_remembered(tx: Transaction, bucket_id: str) -> Remembered:
    """Return what earlier builds left behind."""
    return Remembered(
        ports=read_ports(tx, bucket_id),
        allocations=list_allocations(tx, bucket_id, AllocationFilter(include_removed=True)),
        certificates=read_certificates(tx, bucket_id),
        workers=frozenset(tx.connection.scalars(select(workers.c.name).where(workers.c.bucket_id == bucket_id))),
        jobs=frozenset(tx.connection.scalars(select(jobs.c.name).where(jobs.c.bucket_id == bucket_id))),
    )


def read_ports(
    tx: Transaction, bucket_id: str, *, after: Sequence[str] | None = None, limit: int | None = None
) -> dict[str, PortFacts]:
    """Return the ports of the last build by name."""
    wanted = select_page(select(ports).where(ports.c.bucket_id == bucket_id), ports.c.name, after=after, limit=limit)
    return {
        row.name: PortFacts(name=row.name, number=row.number, job=row.job, fixed=row.fixed)
        for row in tx.connection.execute(wanted)
    }


def read_certificates(
    tx: Transaction,
    bucket_id: str,
    job_names: Sequence[str] = (),
    *,
    ending_before: datetime | None = None,
    after: Sequence[str] | None = None,
    limit: int | None = None,
) -> list[CertificateFacts]:
    """Return the certificates by job, name and worker; of all jobs when none is named, whenever they end unless a time is."""
    c = certificates.c
    wanted = select_page(select(certificates).where(c.bucket_id == bucket_id), c.job, c.name, c.worker, after=after, limit=limit)
    if job_names:
        wanted = wanted.where(one_of(tx, c.job, job_names))
    if ending_before is not None:
        wanted = wanted.where(c.not_after < ending_before)
    return [certificate_from_row(row._mapping) for row in tx.connection.execute(wanted)]  # noqa: SLF001 - SQLAlchemy's documented name


def has_certificates(tx: Transaction, bucket_id: str) -> bool:
    """Whether the last build has any certificate."""
    return (
        tx.connection.execute(select(certificates.c.job).where(certificates.c.bucket_id == bucket_id).limit(1)).first()
        is not None
    )


def certificate_from_row(row: Mapping[Any, Any]) -> CertificateFacts:
    """Read one row."""
    values = {name: row[name] for name in CERTIFICATE_FIELDS}
    values |= {"spec_sha256": bytes(values["spec_sha256"]), "ca_sha256": bytes(values["ca_sha256"])}
    return CertificateFacts(**values)


def write_build(
    tx: Transaction, keyring: Keyring, build: BuildIdentity, plan: BuildPlan, remembered: Remembered, issued: Issued
) -> None:
    """Write everything that a plan decided."""
    bucket_id = build.bucket_id
    variables_before = read_variables(tx, bucket_id)
    write_workers(tx, bucket_id, plan)
    write_jobs(tx, bucket_id, plan)
    write_ports(tx, bucket_id, plan.ports)
    before = {allocation.allocation_id: allocation for allocation in remembered.allocations}
    put_allocations(tx, bucket_id, plan.changed_allocations, before, run_id=build.run_id)
    write_certificates(tx, bucket_id, plan, remembered, issued)
    forget_emptied_jobs_and_workers(tx, bucket_id)
    write_owned_entries(tx, keyring, bucket_id, plan, issued)
    merge_variables(tx, keyring, bucket_id, variables_of(plan), before=variables_before)
    record_build(tx, build, plan, issued)


def write_workers(tx: Transaction, bucket_id: str, plan: BuildPlan) -> None:
    """Write the workers; those that left stay as removed."""
    switched_off = set(plan.workspace.parts.disabled.workers)
    put_rows(
        tx,
        workers,
        [
            {
                "bucket_id": bucket_id,
                "name": worker.name,
                "worker_id": worker_id_of(bucket_id, worker.name),
                "hostname": worker.hostname,
                "position": worker.position,
                "labels": list(worker.labels),
                "memory_mb": worker.memory_mb,
                "cpu_mhz": worker.cpu_mhz,
                "tags": dict(worker.tags),
                "ssh_user": worker.ssh_user,
                "ssh_port": worker.ssh_port,
                "disabled": worker.name in switched_off,
                "removed": False,
                "lost": False,
            }
            for worker in plan.workspace.workers
        ],
    )
    for chunk in in_chunks(sorted(plan.removed_workers)):
        gone = update(workers).where(workers.c.bucket_id == bucket_id, one_of(tx, workers.c.name, chunk))
        tx.connection.execute(gone.values(removed=True, disabled=False))


def write_jobs(tx: Transaction, bucket_id: str, plan: BuildPlan) -> None:
    """Write jobs with hooks and demands; those that left stay as they were, marked removed, until gc."""
    present = plan.workspace.parts.jobs
    put_rows(tx, jobs, [row_of_job(bucket_id, job, plan) for job in present.values()])
    for chunk in in_chunks(sorted(present)):
        tx.connection.execute(delete(hooks).where(hooks.c.bucket_id == bucket_id, one_of(tx, hooks.c.job, chunk)))
        of_chunk = one_of(tx, job_demands.c.job, chunk)
        tx.connection.execute(delete(job_demands).where(job_demands.c.bucket_id == bucket_id, of_chunk))
    put_rows(tx, hooks, [row for job in present.values() for row in rows_of_hooks(bucket_id, job)])
    put_rows(
        tx,
        job_demands,
        [
            {"bucket_id": bucket_id, "job": name, "demanded_job": demanded}
            for name, job in present.items()
            for demanded in sorted(job.manifest.demanded_jobs())
        ],
    )
    for chunk in in_chunks(sorted(plan.removed_jobs)):
        gone = update(jobs).where(jobs.c.bucket_id == bucket_id, one_of(tx, jobs.c.name, chunk))
        tx.connection.execute(gone.values(removed=True))


def row_of_job(bucket_id: str, job: JobSource, plan: BuildPlan) -> dict[str, object]:
    """Return one job as a row."""
    manifest, reserved = job.manifest, plan.workspace.reservations[job.name]
    return {
        "bucket_id": bucket_id,
        "name": job.name,
        "job_id": job_id_of(bucket_id, job.name),
        "version": manifest.version_or_first(),
        "deployment_seq": plan.workspace.sequence[job.name],
        "memory_mb": reserved.memory_mb,
        "cpu_mhz": reserved.cpu_mhz,
        "removed": False,
        "has_makefile": job.has_makefile(),
        "facts": job_facts(job, plan),
        "variables": dict(job.variables),
        "tree": pack_tree(job.files),
    }


KEPT_APART = frozenset({"version", "memory", "cpu", "ports", "hooks", "certificates"})
"""Keys of a manifest that have columns or tables of their own. All others are kept with the job, under their names."""


def job_facts(job: JobSource, plan: BuildPlan) -> dict[str, object]:
    """Return what is only ever read together with its job."""
    facts = {name: value for name, value in asdict(job.manifest).items() if name not in KEPT_APART}
    if health := facts["health_check"]:
        facts["health_check"] = health | {"probes": [probe_facts(probe, plan.ports) for probe in health["probes"]]}
    return facts | {"selectors": list(job.selectors())}


def probe_facts(probe: dict[str, Any], numbers: Mapping[str, PortFacts]) -> dict[str, Any]:
    """Return a probe with its port as a number."""
    port = probe["port"]
    return probe | {"port": numbers[port].number if isinstance(port, str) else port}


def rows_of_hooks(bucket_id: str, job: JobSource) -> Iterable[dict[str, object]]:
    """Yield the hooks of a job as rows."""
    for script in job.scripts:
        hook, demand = script.hook, script.hook.demand
        yield {
            "bucket_id": bucket_id,
            "job": job.name,
            "name": hook.name,
            "path": script.path,
            "runtime": script.runtime,
            "executed_on": list(hook.executed_on),
            "timeout_seconds": hook.timeout_seconds,
            "scope": hook.scope,
            "demands_job": demand.job if demand else "",
            "demands_hook": demand.hook if demand else "",
            "demand_config": demand.config_json if demand else "",
        }


def write_ports(tx: Transaction, bucket_id: str, assigned: Mapping[str, PortFacts]) -> None:
    """Write the ports; names nobody uses any more are free again."""
    tx.connection.execute(delete(ports).where(ports.c.bucket_id == bucket_id))
    rows = [{"bucket_id": bucket_id, **asdict(port)} for port in assigned.values()]
    for chunk in in_chunks(rows, ROWS_AT_ONCE):
        tx.connection.execute(insert(ports), list(chunk))


def write_certificates(tx: Transaction, bucket_id: str, plan: BuildPlan, remembered: Remembered, issued: Issued) -> None:
    """Write new certificates, drop those no longer wanted; removed allocations keep theirs until gc."""
    c = certificates.c
    gone_places = {(each.job, each.worker) for each in plan.allocations if each.removed}
    wanted = {(leaf.job, leaf.name, leaf.worker) for leaf in issued.certificates}
    stale = [
        (leaf.job, leaf.name, leaf.worker)
        for leaf in remembered.certificates
        if (leaf.job, leaf.name, leaf.worker) not in wanted and (leaf.job, leaf.worker) not in gone_places
    ]
    for chunk in in_chunks(stale):
        gone = one_of(tx, (c.job, c.name, c.worker), chunk)
        tx.connection.execute(delete(certificates).where(c.bucket_id == bucket_id, gone))
    put_rows(tx, certificates, ({"bucket_id": bucket_id, **asdict(leaf)} for leaf in issued.new))


def record_build(tx: Transaction, build: BuildIdentity, plan: BuildPlan, issued: Issued) -> None:
    """Remember what was built."""
    put_rows(
        tx,
        builds,
        [
            {
                "bucket_id": build.bucket_id,
                "run_id": build.run_id,
                "built_at": tx.now,
                "snapshot_id": build.snapshot_id,
                "inputs_sha256": build.inputs_sha256,
                "ca_certificate": issued.ca_certificate,
                "renew_at": issued.renew_at,
                "jobs": len(plan.workspace.parts.jobs),
                "workers": len(plan.workspace.workers),
                "active_allocations": plan.active(),
            }
        ],
    )
