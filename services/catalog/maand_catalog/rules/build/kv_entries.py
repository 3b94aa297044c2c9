"""The KV entries that build owns: what every hook and template can read about the bucket, its workers and its jobs.

Lists are comma-joined in the order of worker positions. `workers` and what counts along it (`worker_0…`, `peer_workers`,
`<job>_allocation_index`) hold the allocations that are not removed, disabled ones included: switching one off for maintenance
then changes nothing for its peers. `rollout_order` holds the active ones.
"""

import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from maand_catalog.rules.build.certificates import CertificateFacts
from maand_catalog.rules.build.checked_workspace import Workspace
from maand_catalog.rules.build.placement import selectors_of
from maand_catalog.rules.build.ports import PortFacts
from maand_catalog.rules.namespaces import (
    ROLLOUT_ORDER,
    allocation_namespace,
    job_namespace,
    settings_namespace,
    tags_namespace,
    worker_namespace,
)
from maand_catalog.rules.workspace.bucket_facts import WorkerFacts

Entries = dict[str, str]


@dataclass(frozen=True, kw_only=True)
class Built:
    """What the entries are made from: the workspace and what build decided about it."""

    bucket_id: str
    workspace: Workspace
    ports: Mapping[str, PortFacts]
    certificates: Sequence[CertificateFacts]
    ca_certificate: str

    def active(self, job: str) -> tuple[str, ...]:
        """Return the workers of a job's active allocations."""
        disabled = self.workspace.parts.disabled
        return tuple(worker for worker in self.workspace.placement[job] if not disabled.covers(job, worker))


def worker_id_of(bucket_id: str, worker: str) -> str:
    """Return the id of a worker, stable for bucket and name."""
    return str(uuid.uuid5(uuid.UUID(bucket_id), f"worker:{worker}"))


def job_id_of(bucket_id: str, job: str) -> str:
    """Return the id of a job, stable for bucket and name."""
    return str(uuid.uuid5(uuid.UUID(bucket_id), f"job:{job}"))


def owned_entries(built: Built) -> dict[str, Entries]:
    """Return all entries by namespace; private keys of certificates are added where they are sealed."""
    workspace = built.workspace
    entries = {"maand/bucket": bucket_entries(built), "maand/worker": fleet_entries(built)}
    entries |= dict(worker_entries(built))
    for job in workspace.parts.jobs:
        entries[job_namespace(job)] = job_entries(built, job)
        entries |= dict(allocation_entries(built, job))
        entries[settings_namespace(job)] = dict(workspace.parts.settings_of(job).variables)
    for leaf in built.certificates:
        entries[allocation_namespace(leaf.job, leaf.worker)][f"certs/{leaf.name}.crt"] = leaf.pem
    entries["vars/bucket"] = dict(workspace.parts.bucket_variables)
    return entries


def bucket_entries(built: Built) -> Entries:
    """Return `maand/bucket`."""
    jobs = sorted(built.workspace.parts.jobs)
    return {port.name: str(port.number) for port in built.ports.values()} | {
        "bucket_id": built.bucket_id,
        "jobs": ",".join(jobs),
        "activejobs": ",".join(job for job in jobs if built.active(job)),
    }


def workers_by_label(workers: Sequence[WorkerFacts]) -> dict[str, list[str]]:
    """Return the names of the workers with every label, by position."""
    names: dict[str, list[str]] = {}
    for worker in sorted(workers, key=lambda each: each.position):
        for label in worker.labels:
            names.setdefault(label, []).append(worker.name)
    return names


def fleet_entries(built: Built) -> Entries:
    """Return `maand/worker`."""
    entries = {"certs/ca.crt": built.ca_certificate} if built.ca_certificate else {}
    for label, workers in workers_by_label(built.workspace.workers).items():
        entries |= numbered_entries(label, workers)
        entries[f"{label}_workers"] = ",".join(workers)
        entries[f"{label}_workers_length"] = str(len(workers))
    return entries


def numbered_entries(name: str, workers: Sequence[str]) -> Entries:
    """Return `<name>_0`, `<name>_1` and so on."""
    return {f"{name}_{index}": worker for index, worker in enumerate(workers)}


def worker_entries(built: Built) -> Iterator[tuple[str, Entries]]:
    """Yield `maand/worker/<host>` and its `tags`."""
    by_label = workers_by_label(built.workspace.workers)
    index_by_label = {label: {name: index for index, name in enumerate(names)} for label, names in by_label.items()}
    jobs_on: dict[str, list[str]] = {}
    for job, names in sorted(built.workspace.placement.items()):
        for name in names:
            jobs_on.setdefault(name, []).append(job)
    for worker in built.workspace.workers:
        entries = {
            "worker_ip": worker.name,
            "worker_id": worker_id_of(built.bucket_id, worker.name),
            "hostname": worker.hostname or worker.name,
            "position": str(worker.position),
            "labels": ",".join(worker.labels),
            "worker_memory_mb": str(worker.memory_mb),
            "worker_cpu_mhz": str(worker.cpu_mhz),
            "jobs": ",".join(jobs_on.get(worker.name, ())),
        }
        for label in worker.labels:
            entries[f"{label}_peers"] = others_than(by_label[label], worker.name)
            entries[f"{label}_allocation_index"] = str(index_by_label[label][worker.name])
        yield worker_namespace(worker.name), entries
        yield tags_namespace(worker.name), dict(worker.tags)


def others_than(workers: Sequence[str], one: str) -> str:
    """Return all workers but one, comma-joined."""
    return ",".join(worker for worker in workers if worker != one)


def job_entries(built: Built, job: str) -> Entries:
    """Return `maand/job/<job>`."""
    workspace, manifest = built.workspace, built.workspace.parts.jobs[job].manifest
    workers, reserved = workspace.placement[job], workspace.reservations[job]
    return numbered_entries("worker", workers) | {
        "job_id": job_id_of(built.bucket_id, job),
        "name": job,
        "version": manifest.version_or_first(),
        "selectors": ",".join(selectors_of(job, manifest)),
        "workers": ",".join(workers),
        "workers_length": str(len(workers)),
        ROLLOUT_ORDER: ",".join(built.active(job)),
        "memory": str(reserved.memory_mb),
        "cpu": str(reserved.cpu_mhz),
        "min_memory_mb": str(manifest.memory.smallest or 0),
        "max_memory_mb": str(first_said(manifest.memory.largest, reserved.memory_mb)),
        "min_cpu_mhz": str(manifest.cpu.smallest or 0),
        "max_cpu_mhz": str(first_said(manifest.cpu.largest, reserved.cpu_mhz)),
    }


def first_said(said: int | None, otherwise: int) -> int:
    """Return what the manifest says, else the other value."""
    return otherwise if said is None else said


def allocation_entries(built: Built, job: str) -> Iterator[tuple[str, Entries]]:
    """Yield `maand/job/<job>/worker/<host>` of every allocation that is not removed."""
    workers = built.workspace.placement[job]
    version = built.workspace.parts.jobs[job].manifest.version_or_first()
    for index, worker in enumerate(workers):
        yield (
            allocation_namespace(job, worker),
            {
                f"{job}_allocation_index": str(index),
                "peer_workers": others_than(workers, worker),
                "version": version,
            },
        )
