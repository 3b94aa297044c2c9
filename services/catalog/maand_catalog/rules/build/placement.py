"""Which worker runs which job, and what is wrong with that: selectors, fewest allocations, names in `disabled.json`."""

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set

from maand_catalog.rules.workspace.bucket_facts import Disabled, WorkerFacts
from maand_catalog.rules.workspace.job_files import manifest_path
from maand_catalog.rules.workspace.manifest import Manifest
from maand_catalog.rules.workspace.problems import Finding, KeyPath
from maand_wire.nearest import did_you_mean

WORKERS_FILE = "workspace/workers.json"
DISABLED_FILE = "workspace/disabled.json"

Placement = Mapping[str, tuple[str, ...]]
"""Hosts of every job, by worker position."""


def selectors_of(job: str, manifest: Manifest) -> tuple[str, ...]:
    """Return the labels a worker must all have: the job's own name when the manifest names none."""
    return (job,) if manifest.selectors is None else manifest.selectors


def place_jobs(workers: Sequence[WorkerFacts], manifests: Mapping[str, Manifest]) -> dict[str, tuple[str, ...]]:
    """Return where each job goes: every worker that has all the selectors, by position."""
    workers_by_label: dict[str, set[str]] = {}
    for worker in workers:
        for label in worker.labels:
            workers_by_label.setdefault(label, set()).add(worker.name)
    in_order = [worker.name for worker in sorted(workers, key=lambda worker: worker.position)]
    placed: dict[str, tuple[str, ...]] = {}
    for job, manifest in manifests.items():
        fitting = set.intersection(*(workers_by_label.get(label, set()) for label in selectors_of(job, manifest)))
        placed[job] = tuple(name for name in in_order if name in fitting)
    return placed


def allocation_count_findings(placement: Placement, manifests: Mapping[str, Manifest]) -> Iterator[Finding]:
    """Find jobs with fewer allocations than their manifest wants; disabled ones count, since they are placed."""
    for job, manifest in manifests.items():
        if len(placement[job]) < manifest.min_allocations_count:
            yield Finding(
                code="too_few_allocations",
                message=f"{len(placement[job])} workers match, at least {manifest.min_allocations_count} are wanted",
                file=manifest_path(job),
                path=("min_allocations_count",),
                help=f"give more workers the labels {', '.join(selectors_of(job, manifest))}",
            )


def describe_unmatched_jobs(placement: Placement, manifests: Mapping[str, Manifest]) -> list[str]:
    """Return a sentence for each job that no worker matches: allowed, and seldom meant."""
    return [
        f'job "{job}" matches no worker: no worker has the labels {", ".join(selectors_of(job, manifests[job]))}'
        for job, names in placement.items()
        if not names
    ]


def disabled_findings(
    disabled: Disabled, *, placement: Placement | None, job_names: Set[str], workers: Set[str] | None
) -> Iterator[Finding]:
    """Find names in `disabled.json` that nothing has. What could not be read (None) is not judged."""
    for job, on_workers in disabled.jobs.items():
        if job not in job_names:
            yield unknown_name_finding("unknown_job", f'there is no job "{job}"', ("jobs", job), job, job_names)
        elif placement is not None and job in placement:
            for index, name in enumerate(on_workers):
                if name not in placement[job]:
                    path = ("jobs", job, "allocations", index)
                    message = f'job "{job}" is not placed on "{name}"'
                    yield unknown_name_finding("unknown_allocation", message, path, name, placement[job])
    for index, name in enumerate(disabled.workers):
        if workers is not None and name not in workers:
            yield unknown_name_finding("unknown_worker", f'there is no worker "{name}"', ("workers", index), name, workers)


def unknown_name_finding(code: str, message: str, path: KeyPath, word: str, known: Iterable[str]) -> Finding:
    """Point at a name in `disabled.json` and suggest the nearest one that exists."""
    hint = did_you_mean(word, known)
    return Finding(code=code, message=message, file=DISABLED_FILE, path=path, at="key", help=hint)
