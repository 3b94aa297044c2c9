"""What a build will change: a workspace without a fault and what is remembered go in, a plan comes out. Nothing is written here.

Workspace + Remembered  ->  plan_build  ->  BuildPlan (or findings: no free port)  ->  store.fleet.build_transaction writes it
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from maand_catalog.rules.build.allocations import (
    Allocation,
    AllocationState,
    Target,
    keep_allocation,
    place_allocation,
    retire_allocation,
)
from maand_catalog.rules.build.certificates import (
    CertificateFacts,
    Issuer,
    LeafRequest,
    Validity,
    list_leaf_requests,
    needs_issue,
)
from maand_catalog.rules.build.checked_workspace import JobSource, Workspace
from maand_catalog.rules.build.held_ports import find_held_ports, find_holders
from maand_catalog.rules.build.ports import PortFacts, assign_ports, empty_pool_findings, port_requests
from maand_catalog.rules.workspace.job_files import TEMPLATE_SUFFIX, goes_to_workers
from maand_catalog.rules.workspace.problems import Finding

PortsByName = Mapping[str, PortFacts]


@dataclass(frozen=True, kw_only=True)
class Remembered:
    """What earlier builds left behind."""

    ports: PortsByName = field(default_factory=dict)
    allocations: Sequence[Allocation] = ()
    certificates: Sequence[CertificateFacts] = ()
    workers: frozenset[str] = frozenset()
    jobs: frozenset[str] = frozenset()


@dataclass(frozen=True, kw_only=True)
class CertificatePlan:
    """Which certificates stay, which are to be issued."""

    unchanged: tuple[CertificateFacts, ...] = ()
    to_issue: tuple[LeafRequest, ...] = ()


@dataclass(frozen=True, kw_only=True)
class BuildPlan:
    """Everything a build decided."""

    workspace: Workspace
    ports: PortsByName
    allocations: tuple[Allocation, ...]
    changed_allocations: tuple[Allocation, ...]
    certificates: CertificatePlan
    removed_workers: frozenset[str]
    removed_jobs: frozenset[str]
    added: int
    left: int

    def active(self) -> int:
        """Count the allocations that are neither removed nor disabled."""
        return sum(not allocation.removed and not allocation.disabled for allocation in self.allocations)


def plan_ports(workspace: Workspace, remembered: Remembered) -> tuple[dict[str, PortFacts], list[Finding]]:
    """Return the port numbers, and what found none or one that is still held by another job."""
    pool = workspace.parts.pool
    kept_numbers = {port.name: (port.job, port.number) for port in remembered.ports.values()}
    holders = find_holders(workspace, remembered.allocations)
    held = {number: frozenset(by_worker.values()) for number, by_worker in holders.items()}
    assigned, unserved = assign_ports(port_requests(workspace.parts.manifests()), pool, kept_numbers, held)
    return assigned, [*empty_pool_findings(unserved, pool), *find_held_ports(workspace, assigned.values(), holders)]


def plan_certificates(
    workspace: Workspace, present: Sequence[CertificateFacts], issuer: Issuer | None, validity: Validity
) -> CertificatePlan:
    """Decide which leaves are issued. Without a CA there is nothing to decide; the caller refuses if any is wanted."""
    wanted = tuple(list_leaf_requests(workspace.placement, workspace.parts.manifests()))
    if issuer is None:
        return CertificatePlan(to_issue=wanted)
    by_name: dict[tuple[str, str, str], CertificateFacts] = {(leaf.job, leaf.name, leaf.worker): leaf for leaf in present}
    unchanged: list[CertificateFacts] = []
    to_issue: list[LeafRequest] = []
    for request in wanted:
        places = [(request.job, request.name, host) for host in request.hosts]
        has = [by_name[place] for place in places if place in by_name]
        if needs_issue(request, has, issuer, validity):
            to_issue.append(request)
        else:
            unchanged += has
    return CertificatePlan(unchanged=tuple(unchanged), to_issue=tuple(to_issue))


def plan_build(
    bucket_id: str,
    workspace: Workspace,
    remembered: Remembered,
    *,
    ports: PortsByName,
    certificates: CertificatePlan,
    serials: Mapping[tuple[str, str], Sequence[str]],
    now: datetime,
) -> BuildPlan:
    """Decide the life of every allocation, placed or remembered. `serials` are those of the certificates it will have."""
    before = {allocation.allocation_id: allocation for allocation in remembered.allocations}
    by_place = {(allocation.job, allocation.worker): allocation for allocation in remembered.allocations}
    after: list[Allocation] = []
    for target in wanted_targets(workspace, ports, serials):
        known = by_place.pop((target.job, target.worker), None)
        after.append(keep_allocation(known, target, now) if known else place_allocation(bucket_id, target, now))
    after += [retire_allocation(allocation, now) for allocation in by_place.values()]
    present_workers = {worker.name for worker in workspace.workers}
    return BuildPlan(
        workspace=workspace,
        ports=ports,
        allocations=tuple(after),
        changed_allocations=tuple(each for each in after if before.get(each.allocation_id) != each),
        certificates=certificates,
        removed_workers=remembered.workers - present_workers,
        removed_jobs=remembered.jobs - workspace.parts.jobs.keys(),
        added=sum(is_newly_placed(each, before.get(each.allocation_id)) for each in after),
        left=sum(each.removed and not before[each.allocation_id].removed for each in after if each.allocation_id in before),
    )


def is_newly_placed(after: Allocation, before: Allocation | None) -> bool:
    """Whether a build places an allocation for the first time, or again after it was gone."""
    return before is None or (before.state is AllocationState.REMOVED and not after.removed)


def wanted_targets(
    workspace: Workspace, ports: PortsByName, serials: Mapping[tuple[str, str], Sequence[str]]
) -> Iterator[Target]:
    """Yield what is wanted of every placed allocation."""
    disabled = workspace.parts.disabled
    for name, job in workspace.parts.jobs.items():
        version = job.manifest.version_or_first()
        common = job_content_digest(job, workspace, ports)
        for position, worker in enumerate(workspace.placement[name]):
            own = "\0".join(sorted(serials.get((name, worker), ())))
            yield Target(
                job=name,
                worker=worker,
                position=position,
                disabled=disabled.covers(name, worker),
                version=version,
                sha256=hashlib.sha256(common + own.encode()).digest() if own else common,
            )


def job_content_digest(job: JobSource, workspace: Workspace, ports: PortsByName) -> bytes:
    """Return the digest of what all allocations of a job have in common. Configuration counts where templates could show it."""
    digest = hashlib.sha256(job.manifest.version_or_first().encode())
    files = [entry for entry in job.files if goes_to_workers(entry.path)]
    for entry in files:
        digest.update(b"\0file\0" + entry.line().encode())
    if any(entry.path.endswith(TEMPLATE_SUFFIX) for entry in files):
        for key, value in job_configuration(job, workspace, ports):
            digest.update(f"\0{key}\0{value}".encode())
    return digest.digest()


def job_configuration(job: JobSource, workspace: Workspace, ports: PortsByName) -> Iterator[tuple[str, str]]:
    """Yield the configuration of a job: variables of the bucket and its own, and its ports."""
    parts = workspace.parts
    yield from (("bucket", f"{key}={value}") for key, value in sorted(parts.bucket_variables.items()))
    yield from (("settings", f"{key}={value}") for key, value in sorted(parts.settings_of(job.name).variables))
    yield from (("variables", f"{key}={value}") for key, value in sorted(job.variables.items()))
    yield from (("port", f"{name}={ports[name].number}") for name, _ in job.manifest.ports)
