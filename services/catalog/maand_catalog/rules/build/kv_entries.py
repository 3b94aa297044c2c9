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
        """Return the hosts of a job's active allocations."""
        disabled = self.workspace.parts.disabled
        return tuple(host for host in self.workspace.placement[job] if not disabled.covers(job, host))


def worker_id_of(bucket_id: str, host: str) -> str:
    """Return the id of a worker, stable for bucket and host."""
    return str(uuid.uuid5(uuid.UUID(bucket_id), f"worker:{host}"))


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


def hosts_by_label(workers: Sequence[WorkerFacts]) -> dict[str, list[str]]:
    """Return the hosts of every label, by position."""
    hosts: dict[str, list[str]] = {}
    for worker in sorted(workers, key=lambda each: each.position):
        for label in worker.labels:
            hosts.setdefault(label, []).append(worker.host)
    return hosts


def fleet_entries(built: Built) -> Entries:
    """Return `maand/worker`."""
    entries = {"certs/ca.crt": built.ca_certificate} if built.ca_certificate else {}
    for label, hosts in hosts_by_label(built.workspace.workers).items():
        entries |= numbered_entries(label, hosts)
        entries[f"{label}_workers"] = ",".join(hosts)
        entries[f"{label}_workers_length"] = str(len(hosts))
    return entries


def numbered_entries(name: str, hosts: Sequence[str]) -> Entries:
    """Return `<name>_0`, `<name>_1` and so on."""
    return {f"{name}_{index}": host for index, host in enumerate(hosts)}


def worker_entries(built: Built) -> Iterator[tuple[str, Entries]]:
    """Yield `maand/worker/<host>` and its `tags`."""
    by_label = hosts_by_label(built.workspace.workers)
    index_by_label = {label: {host: index for index, host in enumerate(hosts)} for label, hosts in by_label.items()}
    jobs_on: dict[str, list[str]] = {}
    for job, hosts in sorted(built.workspace.placement.items()):
        for host in hosts:
            jobs_on.setdefault(host, []).append(job)
    for worker in built.workspace.workers:
        entries = {
            "worker_ip": worker.host,
            "worker_id": worker_id_of(built.bucket_id, worker.host),
            "hostname": worker.hostname or worker.host,
            "position": str(worker.position),
            "labels": ",".join(worker.labels),
            "worker_memory_mb": str(worker.memory_mb),
            "worker_cpu_mhz": str(worker.cpu_mhz),
            "jobs": ",".join(jobs_on.get(worker.host, ())),
        }
        for label in worker.labels:
            entries[f"{label}_peers"] = hosts_without(by_label[label], worker.host)
            entries[f"{label}_allocation_index"] = str(index_by_label[label][worker.host])
        yield worker_namespace(worker.host), entries
        yield tags_namespace(worker.host), dict(worker.tags)


def hosts_without(hosts: Sequence[str], host: str) -> str:
    """Return all hosts but one, comma-joined."""
    return ",".join(each for each in hosts if each != host)


def job_entries(built: Built, job: str) -> Entries:
    """Return `maand/job/<job>`."""
    workspace, manifest = built.workspace, built.workspace.parts.jobs[job].manifest
    hosts, reserved = workspace.placement[job], workspace.reservations[job]
    return numbered_entries("worker", hosts) | {
        "job_id": job_id_of(built.bucket_id, job),
        "name": job,
        "version": manifest.version_or_first(),
        "selectors": ",".join(selectors_of(job, manifest)),
        "workers": ",".join(hosts),
        "workers_length": str(len(hosts)),
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
    hosts = built.workspace.placement[job]
    version = built.workspace.parts.jobs[job].manifest.version_or_first()
    for index, host in enumerate(hosts):
        yield (
            allocation_namespace(job, host),
            {
                f"{job}_allocation_index": str(index),
                "peer_workers": hosts_without(hosts, host),
                "version": version,
            },
        )
