"""What an executor knows about a bucket: frozen values, as the last build left them in the catalog.

Rules (`decisions`, `waves`, …) take these values and import nothing but the standard library; `catalog_client` makes them
from the catalog's messages. Secrets are never part of a `repr`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum


@dataclass(frozen=True, kw_only=True)
class TaskIdentity:
    """One claim of one task."""

    task_id: str
    fence: int


@dataclass(frozen=True, kw_only=True, order=True)
class WorkerFence:
    """What commands that change a worker carry, in order of weight: the worker refuses less than the greatest it has seen."""

    epoch: int
    seq: int
    number: int


@dataclass(frozen=True, kw_only=True)
class RunIdentity:
    """One claim of one run. Every write names it, so that an older claim is refused."""

    bucket_id: str
    run_id: str
    seq: int
    fence: int
    task: TaskIdentity | None = None
    """The claim under which a part of the run's work is done for its owner. None = by the owner itself."""
    worker_fence: WorkerFence | None = None
    """What its commands on workers carry. None = the run does not hold the bucket: they leave no mark there."""


class HostKeyPolicy(StrEnum):
    """What to do with a worker whose host key is not pinned."""

    STRICT = "strict"
    ACCEPT_NEW = "accept-new"


@dataclass(frozen=True, kw_only=True)
class BucketConfig:
    """`maand.conf` in force, as far as an executor needs it."""

    bucket_id: str
    built: bool = field(default=True, compare=False)
    owner_id: str = ""
    """Who the catalog's database is towards workers; empty = it does not say."""
    ssh_user: str = "agent"
    ssh_key: str = "worker.key"
    ssh_port: int = 22
    use_sudo: bool = True
    ssh_config: str = ""
    worker_root: str = "/opt/worker"
    host_keys: HostKeyPolicy = HostKeyPolicy.STRICT
    max_parallel_jobs: int = 4
    max_ssh_sessions: int = 2000
    ssh_starts_per_second: int = 200
    hook_env: tuple[str, ...] = ()
    hook_timeout: timedelta = timedelta(seconds=600)


@dataclass(frozen=True, kw_only=True)
class Worker:
    """One SSH host. `ssh_user` empty and `ssh_port` 0 mean the bucket's."""

    name: str
    worker_id: str = ""
    hostname: str = ""
    position: int = 0
    labels: tuple[str, ...] = ()
    memory_mb: int = 0
    cpu_mhz: int = 0
    tags: Mapping[str, str] = field(default_factory=dict)
    ssh_user: str = ""
    ssh_port: int = 0
    disabled: bool = False
    removed: bool = False
    lost: bool = False
    """Removed, and given up by a person: nothing is done there."""


class HookScope(StrEnum):
    """How often the body of a hook runs in a run."""

    ALLOCATION = "allocation"
    ROLLOUT = "rollout"


@dataclass(frozen=True, kw_only=True)
class Hook:
    """One script of a job. `timeout` None means the bucket's."""

    name: str
    job: str
    path: str
    runtime: str
    executed_on: tuple[str, ...]
    timeout: timedelta | None = None
    scope: HookScope = HookScope.ALLOCATION
    demands_job: str = ""
    demands_hook: str = ""
    demand_config_json: str = ""


@dataclass(frozen=True, kw_only=True)
class TcpProbe:
    """A TCP connection to the worker succeeds."""

    port: int


@dataclass(frozen=True, kw_only=True)
class HttpProbe:
    """An HTTP GET to the worker answers with the expected status."""

    port: int
    path: str = "/"
    expect_status: int = 200
    scheme: str = "http"


@dataclass(frozen=True, kw_only=True)
class SshProbe:
    """A command on the worker exits 0."""

    command: str


Probe = TcpProbe | HttpProbe | SshProbe


@dataclass(frozen=True, kw_only=True)
class HealthCheck:
    """The manifest's health section. `timeout` limits one probe."""

    probes: tuple[Probe, ...] = ()
    timeout: timedelta = timedelta(seconds=5)
    wait_attempts: int = 30
    wait_interval: timedelta = timedelta(seconds=1)


class RestartPolicy(StrEnum):
    """How a changed allocation is brought up to date."""

    ALWAYS = "always"
    RELOAD = "reload"
    NEVER = "never"


@dataclass(frozen=True, kw_only=True)
class Job:
    """One job as built. A limit of 0 starts or stops means all at once."""

    name: str
    job_id: str = ""
    version: str = "0.0.0"
    max_concurrent_starts: int = 0
    max_concurrent_upgrades: int = 1
    max_concurrent_stops: int = 0
    restart_policy: RestartPolicy = RestartPolicy.ALWAYS
    restart_globs: tuple[str, ...] = ()
    deployment_seq: int = 0
    hooks: tuple[Hook, ...] = ()
    health_check: HealthCheck | None = None
    demanded_jobs: tuple[str, ...] = ()
    removed: bool = False
    has_makefile: bool = True

    def hooks_on(self, event: str) -> tuple[Hook, ...]:
        """Return the hooks registered for an event, in name order."""
        return tuple(sorted((hook for hook in self.hooks if event in hook.executed_on), key=lambda hook: hook.name))


@dataclass(frozen=True, kw_only=True)
class JobFile:
    """One stored file of a job; `path` is relative to the job's directory.

    A symbolic link has a target and no digest, a directory has neither.
    """

    path: str
    mode: int
    sha256: bytes = b""
    size: int = 0
    link_target: str = ""
    directory: bool = False


@dataclass(frozen=True, kw_only=True)
class PlannedFile:
    """One path as it is, or shall be, on a worker; `mode` with the type bits of stat(2), which older executors did not record.

    For a symbolic link the digest is that of its target, for a directory it is empty.
    """

    path: str
    mode: int
    sha256: bytes


class AllocationState(StrEnum):
    """What is known of a job on a worker."""

    PLANNED = "planned"
    DEPLOYING = "deploying"
    PROMOTED = "promoted"
    PENDING = "pending"
    FAILED = "failed"
    STOPPED = "stopped"
    REMOVED = "removed"


@dataclass(frozen=True, kw_only=True)
class Allocation:
    """One job on one worker.

    `deployed_sha256` empty = nothing was promoted there since it was placed or came back; `previous_version` empty = unknown.

    `start_owed`: a stop was begun and nothing was promoted since, so what was deployed does not run, or nobody knows.
    """

    allocation_id: str
    job: str
    worker: str
    index: int = 0
    removed: bool = False
    disabled: bool = False
    current_version: str = "0.0.0"
    previous_version: str = ""
    new_version: str = "0.0.0"
    deployed_sha256: bytes = b""
    state: AllocationState = AllocationState.PLANNED
    message: str = ""
    post_deploy_owed: bool = False
    start_owed: bool = False

    @property
    def version_before(self) -> str:
        """The version that the new one follows: what runs, and once the new one runs, what ran before it.

        Promotion does not change it. Where that is unknown, it is what runs.
        """
        if self.current_version != self.new_version:
            return self.current_version
        return self.previous_version or self.current_version

    @property
    def active(self) -> bool:
        """Whether it is meant to run."""
        return not (self.removed or self.disabled)


@dataclass(frozen=True, kw_only=True)
class AllocationMove:
    """One state change of one allocation. What is None stays as it is."""

    allocation_id: str
    to_state: AllocationState
    message: str = ""
    current_version: str | None = None
    deployed_sha256: bytes | None = None
    deployed_files: tuple[PlannedFile, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class RolloutOrder:
    """Workers of a job's active allocations, first to last."""

    workers: tuple[str, ...]
    set_by_hook: bool = False
    warning: str = ""


@dataclass(frozen=True, kw_only=True)
class AllocationCertificate:
    """One leaf for one allocation: files `certs/<name>.crt` and `certs/<name>.key`."""

    allocation_id: str
    name: str
    certificate_pem: str
    private_key_pem: str = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Certificates:
    """Leaves of some allocations, and the bucket's CA."""

    ca_certificate_pem: str = ""
    leaves: tuple[AllocationCertificate, ...] = ()

    def of(self, allocation_id: str) -> tuple[AllocationCertificate, ...]:
        """Return the leaves of one allocation, by name."""
        mine = (leaf for leaf in self.leaves if leaf.allocation_id == allocation_id)
        return tuple(sorted(mine, key=lambda leaf: leaf.name))


@dataclass(frozen=True, kw_only=True)
class MaskValues:
    """Secret values that must not be seen in any output; with them everything up to `revision` is known."""

    revision: int
    values: tuple[str, ...] = field(default=(), repr=False)


@dataclass(frozen=True, kw_only=True)
class Namespace:
    """Values of one KV namespace."""

    values: Mapping[str, str] = field(repr=False)
    secret: bool = False


@dataclass(frozen=True, kw_only=True)
class AllocationViews:
    """What hooks of some allocations of one job may read: each namespace once, and who may read which."""

    namespaces: Mapping[str, Namespace] = field(repr=False)
    readable: Mapping[str, frozenset[str]]
    """Namespaces by allocation id."""


@dataclass(frozen=True, kw_only=True)
class InvocationStart:
    """One hook process about to start."""

    allocation_id: str
    hook: str
    event: str


@dataclass(frozen=True, kw_only=True)
class BegunInvocation:
    """Identity of one hook process."""

    invocation_id: str
    token: str = field(repr=False)


class InvocationOutcome(StrEnum):
    """How a hook process ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"
    INTERRUPTED = "interrupted"


@dataclass(frozen=True, kw_only=True)
class InvocationEnd:
    """One hook process that ended."""

    invocation_id: str
    outcome: InvocationOutcome
