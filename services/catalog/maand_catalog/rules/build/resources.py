"""What a job reserves per allocation, and whether it all fits the workers. Every violation is told."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from maand_catalog.rules.build.placement import WORKERS_FILE, Placement
from maand_catalog.rules.workspace.bucket_facts import Disabled, JobSettings, WorkerFacts
from maand_catalog.rules.workspace.manifest import Amounts, Manifest
from maand_catalog.rules.workspace.problems import Finding


@dataclass(frozen=True, kw_only=True)
class Reservation:
    """What one allocation of a job takes from its worker."""

    memory_mb: int
    cpu_mhz: int


def reservation_of(manifest: Manifest, settings: JobSettings) -> Reservation:
    """Return the reservation: the operator's value, else the manifest's largest, else its smallest, else nothing."""
    return Reservation(
        memory_mb=first_named_amount(settings.memory_mb, manifest.memory),
        cpu_mhz=first_named_amount(settings.cpu_mhz, manifest.cpu),
    )


def first_named_amount(chosen: int | None, asked: Amounts) -> int:
    """Return the first amount that somebody named."""
    return next((value for value in (chosen, asked.largest, asked.smallest) if value is not None), 0)


def reservation_findings(job: str, manifest: Manifest, settings: JobSettings) -> Iterator[Finding]:
    """Check the operator's values against the range of the manifest."""
    rows = (
        ("memory", "mb", settings.memory_mb, settings.memory_file, manifest.memory),
        ("cpu", "mhz", settings.cpu_mhz, settings.cpu_file, manifest.cpu),
    )
    for key, unit, chosen, file, asked in rows:
        if chosen is None:
            continue
        too_small = asked.smallest is not None and chosen < asked.smallest
        too_large = asked.largest is not None and chosen > asked.largest
        if too_small or too_large:
            bound = f"at least {asked.smallest}" if too_small else f"at most {asked.largest}"
            yield Finding(
                code="reservation_out_of_range",
                message=f'{key} of job "{job}" is {chosen} {unit}, its manifest allows {bound} {unit}',
                file=file,
                path=(job, key),
            )


def capacity_findings(
    workers: Sequence[WorkerFacts], placement: Placement, reservations: Mapping[str, Reservation], disabled: Disabled
) -> Iterator[Finding]:
    """Check that the active allocations of each worker fit it; a worker with unknown memory or CPU is not judged."""
    jobs_on: dict[str, list[str]] = {worker.name: [] for worker in workers}
    for job, names in placement.items():
        for name in names:
            if not disabled.covers(job, name):
                jobs_on[name].append(job)
    for worker in sorted(workers, key=lambda each: each.position):
        for key, unit, has in (("memory", "mb", worker.memory_mb), ("cpu", "mhz", worker.cpu_mhz)):
            shares = {job: getattr(reservations[job], f"{key}_{unit}") for job in jobs_on[worker.name]}
            if has and sum(shares.values()) > has:
                yield over_capacity_finding(worker, key, unit, has, shares)


def over_capacity_finding(worker: WorkerFacts, key: str, unit: str, has: int, shares: Mapping[str, int]) -> Finding:
    """Say what a worker lacks and who takes most of it."""
    largest = sorted(shares.items(), key=lambda share: (-share[1], share[0]))[:3]
    takers = ", ".join(f"{job} {share}" for job, share in largest)
    return Finding(
        code="over_capacity",
        message=f'"{worker.name}" has {has} {unit} of {key}, its jobs reserve {sum(shares.values())} ({takers})',
        file=WORKERS_FILE,
        path=(worker.listed, key),
        help="give jobs less in bucket.jobs.conf, or place or disable some elsewhere",
    )
