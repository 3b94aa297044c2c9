"""A workspace that was understood: every file as facts, and the decisions that follow from them alone.

compiled files -> Parts (whatever could be read) -> findings across files
               -> Workspace (only when nothing is wrong) -> `plan`, which adds what is remembered
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from maand_catalog.rules.build.demands import demand_findings
from maand_catalog.rules.build.deployment_seq import deployment_sequence
from maand_catalog.rules.build.placement import Placement, allocation_count_findings, disabled_findings, place_jobs, selectors_of
from maand_catalog.rules.build.ports import port_findings
from maand_catalog.rules.build.resources import Reservation, capacity_findings, reservation_findings, reservation_of
from maand_catalog.rules.workspace.bucket_facts import BucketConfig, Disabled, JobSettings, PortPool, WorkerFacts
from maand_catalog.rules.workspace.job_files import MAKEFILES, HookScript
from maand_catalog.rules.workspace.manifest import Manifest
from maand_catalog.rules.workspace.problems import Finding
from maand_catalog.rules.workspace.tree import TreeEntry


@dataclass(frozen=True, kw_only=True)
class JobSource:
    """One job's folder: manifest, files (paths relative to it), scripts of its hooks, and the entries of `vars.toml`."""

    name: str
    manifest: Manifest
    files: tuple[TreeEntry, ...] = ()
    scripts: tuple[HookScript, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)

    def selectors(self) -> tuple[str, ...]:
        """Return the labels a worker must all have."""
        return selectors_of(self.name, self.manifest)

    def has_makefile(self) -> bool:
        """Whether `make` finds something to do, a template included."""
        return any(entry.path in MAKEFILES for entry in self.files)


@dataclass(frozen=True, kw_only=True)
class WorkspaceParts:
    """What could be read of a workspace. Jobs whose manifest is wrong are only in `job_names`; unreadable workers are None."""

    config: BucketConfig
    job_names: frozenset[str]
    jobs: Mapping[str, JobSource]
    workers: tuple[WorkerFacts, ...] | None
    disabled: Disabled = field(default_factory=Disabled)
    pool: PortPool = field(default_factory=PortPool)
    bucket_variables: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, JobSettings] = field(default_factory=dict)

    def manifests(self) -> dict[str, Manifest]:
        """Return the manifests that could be read, by job."""
        return {name: job.manifest for name, job in self.jobs.items()}

    def settings_of(self, job: str) -> JobSettings:
        """Return a job's table of `bucket.jobs*.conf`; empty when it has none."""
        return self.settings.get(job, JobSettings())


@dataclass(frozen=True, kw_only=True)
class Workspace:
    """A workspace without a fault."""

    parts: WorkspaceParts
    workers: tuple[WorkerFacts, ...]
    placement: Placement
    sequence: Mapping[str, int]
    reservations: Mapping[str, Reservation]
    warnings: tuple[str, ...] = ()


def findings_across_files(parts: WorkspaceParts) -> Iterator[Finding]:
    """Apply every rule that looks at more than one file, as far as the files could be read."""
    manifests = parts.manifests()
    placement = None if parts.workers is None else place_jobs(parts.workers, manifests)
    workers = None if parts.workers is None else {worker.name for worker in parts.workers}
    yield from demand_findings(manifests, parts.job_names)
    yield from port_findings(manifests, placement)
    yield from disabled_findings(parts.disabled, placement=placement, job_names=parts.job_names, workers=workers)
    for job, manifest in manifests.items():
        yield from reservation_findings(job, manifest, parts.settings_of(job))
    if parts.workers is not None and placement is not None:
        yield from allocation_count_findings(placement, manifests)
        yield from capacity_findings(parts.workers, placement, reservations_of(parts), parts.disabled)


def reservations_of(parts: WorkspaceParts) -> dict[str, Reservation]:
    """Return what every job reserves per allocation."""
    return {name: reservation_of(job.manifest, parts.settings_of(name)) for name, job in parts.jobs.items()}


def assemble_workspace(parts: WorkspaceParts, warnings: tuple[str, ...]) -> Workspace:
    """Return the workspace; only for parts without findings."""
    assert parts.workers is not None, "a workspace without workers.json has a finding"
    manifests = parts.manifests()
    return Workspace(
        parts=parts,
        workers=parts.workers,
        placement=place_jobs(parts.workers, manifests),
        sequence=deployment_sequence({job: manifest.demanded_jobs() for job, manifest in manifests.items()}),
        reservations=reservations_of(parts),
        warnings=warnings,
    )
