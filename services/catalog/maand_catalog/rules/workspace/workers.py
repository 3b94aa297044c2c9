"""Workers and what is switched off, as facts from `workers.json` and `disabled.json`."""

from collections.abc import Mapping
from dataclasses import dataclass, field

EVERY_WORKER = "worker"
"""The label that every worker has."""


@dataclass(frozen=True, kw_only=True)
class WorkerFacts:
    """One SSH host. `position` orders the fleet from 0, `listed` is its place in the file; memory and CPU 0 = unknown."""

    host: str
    position: int
    listed: int = 0
    hostname: str = ""
    labels: tuple[str, ...] = (EVERY_WORKER,)
    memory_mb: int = 0
    cpu_mhz: int = 0
    tags: tuple[tuple[str, str], ...] = ()
    ssh_user: str = ""
    ssh_port: int = 0


@dataclass(frozen=True, kw_only=True)
class Disabled:
    """What is switched off, as listed: whole workers, and jobs entirely (no hosts) or on some hosts."""

    workers: tuple[str, ...] = ()
    jobs: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def covers(self, job: str, host: str) -> bool:
        """Whether a job is switched off on a host."""
        if host in self.workers:
            return True
        hosts = self.jobs.get(job)
        return hosts is not None and (not hosts or host in hosts)
