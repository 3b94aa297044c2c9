"""Which number each named port has: fixed ones as written, the others the lowest free number of the pool, kept for good."""

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from types import MappingProxyType

from maand_catalog.rules.build.placement import Placement
from maand_catalog.rules.workspace.bucket_facts import PortPool
from maand_catalog.rules.workspace.job_files import manifest_path
from maand_catalog.rules.workspace.manifest import Manifest
from maand_catalog.rules.workspace.problems import Finding
from maand_wire.nearest import did_you_mean


@dataclass(frozen=True, kw_only=True)
class PortFacts:
    """One named port with its number."""

    name: str
    number: int
    job: str
    fixed: bool


@dataclass(frozen=True, kw_only=True)
class PortRequest:
    """A port as a manifest asks for it; number None = any."""

    name: str
    job: str
    number: int | None


def port_requests(manifests: Mapping[str, Manifest]) -> list[PortRequest]:
    """Return all ports that are asked for, by job and name."""
    return [
        PortRequest(name=name, job=job, number=number)
        for job, manifest in sorted(manifests.items())
        for name, number in manifest.ports
    ]


def port_findings(manifests: Mapping[str, Manifest], placement: Placement | None) -> Iterator[Finding]:
    """Check names and fixed numbers, and that health checks name ports that exist."""
    asked = port_requests(manifests)
    yield from find_repeated_names(asked)
    if placement is not None:
        yield from find_shared_numbers(asked, placement)
    known = {request.name for request in asked}
    for job, manifest in manifests.items():
        for index, probe in enumerate(manifest.health_check.probes if manifest.health_check else ()):
            if isinstance(probe.port, str) and probe.port not in known:
                yield Finding(
                    code="unknown_port",
                    message=f'there is no port "{probe.port}"',
                    file=manifest_path(job),
                    path=("health_check", "checks", index, "port"),
                    help=did_you_mean(probe.port, known),
                )


def find_repeated_names(asked: Sequence[PortRequest]) -> Iterator[Finding]:
    """Find port names that two jobs use; the bucket has one list of ports."""
    first: dict[str, str] = {}
    for request in asked:
        owner = first.setdefault(request.name, request.job)
        if owner != request.job:
            yield port_finding("duplicate_port_name", f'job "{owner}" has a port "{request.name}" already', request, at="key")


def find_shared_numbers(asked: Sequence[PortRequest], placement: Placement) -> Iterator[Finding]:
    """Find fixed numbers that two ports of one worker would have."""
    owners: dict[int, list[PortRequest]] = {}
    for request in asked:
        if request.number is None:
            continue
        for other in owners.setdefault(request.number, []):
            shared = set(placement[other.job]) & set(placement[request.job])
            if other.job == request.job or shared:
                where = f" on {min(shared)}" if shared else ""
                yield port_finding(
                    "duplicate_port", f'port {request.number} is also "{other.name}" of job "{other.job}"{where}', request
                )
                break
        owners[request.number].append(request)


def assign_ports(
    asked: Sequence[PortRequest],
    pool: PortPool,
    kept: Mapping[str, tuple[str, int]],
    held: Mapping[int, Set[str]] = MappingProxyType({}),
) -> tuple[dict[str, PortFacts], list[PortRequest]]:
    """Return every port with its number, and the requests that found the pool empty.

    `kept` holds job and number that a name had so far: it is used again while the same job asks, the pool holds it and
    nobody fixed it. `held` says by which jobs' running allocations a number is held: no other job gets it.
    """
    fixed = {request.number for request in asked if request.number is not None}
    assigned = {
        request.name: PortFacts(name=request.name, number=request.number, job=request.job, fixed=True)
        for request in asked
        if request.number is not None
    }
    open_requests = [request for request in asked if request.number is None]
    used = set(fixed)
    waiting: list[PortRequest] = []
    for request in open_requests:
        owner, number = kept.get(request.name, ("", 0))
        if owner == request.job and pool.smallest <= number <= pool.largest and number not in used:
            assigned[request.name] = PortFacts(name=request.name, number=number, job=request.job, fixed=False)
            used.add(number)
        else:
            waiting.append(request)
    free = FreeNumbers(pool, used, held)
    unserved: list[PortRequest] = []
    for request in waiting:
        lowest = free.take_for(request.job)
        if lowest is None:
            unserved.append(request)
        else:
            assigned[request.name] = PortFacts(name=request.name, number=lowest, job=request.job, fixed=False)
    return assigned, unserved


class FreeNumbers:
    """The numbers of the pool that no port has, lowest first."""

    def __init__(self, pool: PortPool, used: Set[int], held: Mapping[int, Set[str]]) -> None:
        self._held = held
        self._rest = (number for number in range(pool.smallest, pool.largest + 1) if number not in used)
        self._passed_over: list[int] = []

    def take_for(self, job: str) -> int | None:
        """Take the lowest number that no other job's running allocations hold; None when there is none."""
        for number in self._passed_over:
            if self._may_have(job, number):
                self._passed_over.remove(number)
                return number
        for number in self._rest:
            if self._may_have(job, number):
                return number
            self._passed_over.append(number)
        return None

    def _may_have(self, job: str, number: int) -> bool:
        return self._held.get(number, frozenset()) <= {job}


def empty_pool_findings(unserved: Sequence[PortRequest], pool: PortPool) -> Iterator[Finding]:
    """Say which ports found no number."""
    for request in unserved:
        yield port_finding(
            "no_free_port",
            f"no number from {pool.smallest} to {pool.largest} is free",
            request,
            help_text='widen port_min and port_max in "workspace/bucket.conf"',
        )


def port_finding(code: str, message: str, request: PortRequest, *, at: str = "value", help_text: str = "") -> Finding:
    """Point at a port of a manifest."""
    return Finding(
        code=code,
        message=message,
        file=manifest_path(request.job),
        path=("resources", "ports", request.name),
        at="key" if at == "key" else "value",
        help=help_text,
    )
