"""Rules about demands between jobs: they exist, fit the demanded version, and go round in no circle."""

from collections.abc import Iterator, Mapping, Set

from maand_catalog.rules.build.deployment_seq import find_cycles
from maand_catalog.rules.workspace.job_files import manifest_path
from maand_catalog.rules.workspace.manifest import Demand, HookFacts, Manifest
from maand_catalog.rules.workspace.problems import Finding
from maand_catalog.rules.workspace.written_values import is_version_within
from maand_wire.nearest import did_you_mean


def demand_findings(manifests: Mapping[str, Manifest], job_names: Set[str]) -> Iterator[Finding]:
    """Check every demand. `job_names` holds also jobs whose manifest could not be read: nothing is said about those."""
    for job, manifest in manifests.items():
        for hook in manifest.hooks:
            if hook.demand and hook.demand.job:
                yield from check_demand(job, hook, hook.demand, manifests, job_names)
    yield from find_missing_versions(manifests)
    yield from cycle_findings(manifests)


def check_demand(
    job: str, hook: HookFacts, demand: Demand, manifests: Mapping[str, Manifest], job_names: Set[str]
) -> Iterator[Finding]:
    """Check one demand: not itself, a job and a hook that exist, a version in range."""
    file = manifest_path(job)
    path = ("hooks", hook.name, "demands")
    if demand.job == job:
        yield Finding(code="demands_itself", message=f'"{job}" demands itself', file=file, path=(*path, "job"))
        return
    if demand.job not in job_names:
        hint = did_you_mean(demand.job, job_names - {job})
        yield Finding(code="unknown_job", message=f'there is no job "{demand.job}"', file=file, path=(*path, "job"), help=hint)
        return
    demanded = manifests.get(demand.job)
    if demanded is None:
        return
    known = {each.name for each in demanded.hooks}
    if demand.hook not in known:
        yield Finding(
            code="unknown_hook",
            message=f'job "{demand.job}" has no hook "{demand.hook}"',
            file=file,
            path=(*path, "hook"),
            help=did_you_mean(demand.hook, known),
        )
    yield from check_version_range(file, path, demand, demanded)


def check_version_range(file: str, path: tuple[str, ...], demand: Demand, demanded: Manifest) -> Iterator[Finding]:
    """Check the demanded job's version against `min_version` and `max_version`."""
    if demanded.version is None:
        return
    ends = (("min_version", demand.min_version, "at least"), ("max_version", demand.max_version, "at most"))
    for key, end, words in ends:
        smallest, largest = (end, None) if key == "min_version" else (None, end)
        if end is not None and not is_version_within(demanded.version, smallest=smallest, largest=largest):
            yield Finding(
                code="version_out_of_range",
                message=f'job "{demand.job}" is {demanded.version}, {words} {end} is demanded',
                file=file,
                path=(*path, "config", key),
            )


def find_missing_versions(manifests: Mapping[str, Manifest]) -> Iterator[Finding]:
    """Find jobs that demand or are demanded and have no version to compare."""
    demanded = frozenset[str]().union(*(manifest.demanded_jobs() for manifest in manifests.values()))
    for job, manifest in manifests.items():
        if manifest.version is None and (job in demanded or manifest.demanded_jobs()):
            reason = "is demanded by another job" if job in demanded else "demands another job"
            yield Finding(
                code="missing_version",
                message=f'"{job}" {reason} and has no version',
                file=manifest_path(job),
                help='add "version": "1.0.0"',
            )


def cycle_findings(manifests: Mapping[str, Manifest]) -> Iterator[Finding]:
    """Find circles of demands and show the way round; a job that demands itself is told by its own rule."""
    graph = {job: manifest.demanded_jobs() - {job} for job, manifest in manifests.items()}
    for cycle in find_cycles(graph):
        following = cycle[1]
        hook = next(each.name for each in manifests[cycle[0]].hooks if each.demand and each.demand.job == following)
        yield Finding(
            code="demand_cycle",
            message=f"demands go round in a circle: {' -> '.join((*cycle, cycle[0]))}",
            file=manifest_path(cycle[0]),
            path=("hooks", hook, "demands", "job"),
            help="remove one of these demands",
        )
