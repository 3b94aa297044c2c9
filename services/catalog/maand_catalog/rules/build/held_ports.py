"""Ports that move from one job to another while the first still runs on them.

What is started on a port that another job's allocation holds cannot bind it, and a TCP probe is answered by the other. A deploy
does not put that right: it would have to stop a job on all its workers at once. So a build hands a number on only when it is free
by the time the next job starts: the holder leaves the worker, or is one that the next job demands, directly or not, and is
restarted before it.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Set

from maand_catalog.rules.build.allocations import Allocation
from maand_catalog.rules.build.checked_workspace import Workspace
from maand_catalog.rules.build.ports import PortFacts, PortRequest, port_finding
from maand_catalog.rules.workspace.problems import Finding

Holders = Mapping[int, Mapping[str, str]]
"""Job by number and worker."""


def find_holders(workspace: Workspace, allocations: Iterable[Allocation]) -> Holders:
    """Return which allocations hold which ports, as far as they go on running: what leaves is stopped before anything starts."""
    holders: defaultdict[int, dict[str, str]] = defaultdict(dict)
    for each in allocations:
        if is_wanted(workspace, each.job, each.worker):
            for number in each.held_ports:
                holders[number][each.worker] = each.job
    return holders


def find_held_ports(workspace: Workspace, assigned: Iterable[PortFacts], holders: Holders) -> Iterator[Finding]:
    """Find ports that another job's allocation still holds on a worker where the job is to run."""
    for port in assigned:
        before = jobs_restarted_before(workspace, port.job) if port.number in holders else frozenset()
        for worker, holder in sorted(holders.get(port.number, {}).items()):
            if holder != port.job and holder not in before and is_wanted(workspace, port.job, worker):
                yield port_finding(
                    "port_held",
                    f'port {port.number} is held on {worker} by job "{holder}", which runs there now',
                    PortRequest(name=port.name, job=port.job, number=port.number),
                    help_text=f"take another number, or go in two steps: move {holder} to a free port or disable it, "
                    f"build and deploy; then give {port.number} to {port.job}",
                )
                break


def is_wanted(workspace: Workspace, job: str, worker: str) -> bool:
    """Whether a job is to run on a worker."""
    return worker in workspace.placement.get(job, ()) and not workspace.parts.disabled.covers(job, worker)


def jobs_restarted_before(workspace: Workspace, job: str) -> Set[str]:
    """Return the jobs that a deploy has restarted before it begins with this one: those it demands, unless they never restart."""
    jobs, found, waiting = workspace.parts.jobs, set[str](), [job]
    while waiting:
        demanded = jobs[waiting.pop()].manifest.demanded_jobs() & jobs.keys()
        waiting += demanded - found
        found |= demanded
    return {name for name in found if jobs[name].manifest.restart_policy != "never"}
