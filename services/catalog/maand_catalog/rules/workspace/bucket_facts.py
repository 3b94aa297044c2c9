"""What the files of a bucket say, as facts: its settings, its workers, what is switched off. Manifests have their own module."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

CONFIG_FILE = "maand.conf"
"""What makes a directory a bucket."""


@dataclass(frozen=True, kw_only=True)
class BucketConfig:
    """`maand.conf` after validation, defaults filled in."""

    bucket_id: str
    ssh_user: str = "agent"
    ssh_key: str = "worker.key"
    ssh_port: int = 22
    use_sudo: bool = True
    ssh_config: str = ""
    worker_root: str = "/opt/worker"
    host_keys: Literal["strict", "accept-new"] = "strict"
    certs_ttl: int = 60
    certs_renewal_buffer: int = 10
    job_config_selector: str = ""
    max_parallel_jobs: int = 4
    max_ssh_sessions: int = 2000
    ssh_starts_per_second: int = 200
    hook_env: tuple[str, ...] = ()
    hook_timeout_seconds: int = 600
    log_format: Literal["kv", "json"] = "kv"


@dataclass(frozen=True, kw_only=True)
class PortPool:
    """The numbers that jobs get when they ask for any port, both ends included."""

    smallest: int = 30000
    largest: int = 39999


@dataclass(frozen=True, kw_only=True)
class JobSettings:
    """A job's table in `bucket.jobs*.conf`: what is reserved per allocation, and everything as KV values."""

    memory_mb: int | None = None
    cpu_mhz: int | None = None
    memory_file: str = ""
    cpu_file: str = ""
    variables: tuple[tuple[str, str], ...] = ()


EVERY_WORKER = "worker"
"""The label that every worker has."""


@dataclass(frozen=True, kw_only=True)
class WorkerFacts:
    """One SSH host. `position` orders the fleet from 0, `listed` is its place in the file; memory and CPU 0 = unknown."""

    name: str
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
    """What is switched off, as listed: whole workers, and jobs entirely (no workers) or on some hosts."""

    workers: tuple[str, ...] = ()
    jobs: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def covers(self, job: str, worker: str) -> bool:
        """Whether a job is switched off on a worker."""
        if worker in self.workers:
            return True
        workers = self.jobs.get(job)
        return workers is not None and (not workers or worker in workers)
