"""What a job's manifest says, as facts. `building.documents.manifest_file` makes them from the text."""

from dataclasses import dataclass, field
from typing import Literal

from maand_catalog.rules.workspace.written_values import FIRST_VERSION

EVENTS = (
    "post_build",
    "pre_deploy",
    "post_deploy",
    "job_control",
    "health_check",
    "after_allocation_started",
    "after_allocation_stopped",
    "cli",
)
"""Every event a hook may run on."""

RUNTIME_BY_SUFFIX = {".py": "python", ".ts": "bun", ".js": "bun"}
"""Suffixes a hook's script may have, and what runs it."""


@dataclass(frozen=True, kw_only=True)
class Amounts:
    """What a job asks of one resource; None = not said."""

    smallest: int | None = None
    largest: int | None = None


@dataclass(frozen=True, kw_only=True)
class Demand:
    """A hook of another job that must have come first. Empty names = only a configuration, for nobody."""

    job: str
    hook: str
    min_version: str | None = None
    max_version: str | None = None
    config_json: str = ""


@dataclass(frozen=True, kw_only=True)
class HookFacts:
    """One hook as the manifest has it; its script is found in the tree."""

    name: str
    executed_on: tuple[str, ...]
    runtime: str | None = None
    timeout_seconds: int = 0
    scope: Literal["allocation", "rollout"] = "allocation"
    demand: Demand | None = None


@dataclass(frozen=True, kw_only=True)
class Probe:
    """One health check. `port` is a number or the name of a port of the bucket."""

    kind: Literal["tcp", "http", "ssh"]
    port: int | str = 0
    path: str = "/"
    expect_status: int = 200
    scheme: str = "http"
    command: str = ""


@dataclass(frozen=True, kw_only=True)
class HealthCheck:
    """The manifest's health section."""

    probes: tuple[Probe, ...] = ()
    timeout_seconds: int = 5
    wait_attempts: int = 30
    wait_interval_seconds: float = 1.0


@dataclass(frozen=True, kw_only=True)
class CertificateSpec:
    """A certificate that a job wants for its allocations."""

    name: str
    pkcs8: bool = False
    one: bool = False
    subject: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """One `manifest.json` after validation, defaults filled in."""

    version: str | None = None
    selectors: tuple[str, ...] | None = None
    max_concurrent_starts: int = 0
    max_concurrent_upgrades: int = 1
    max_concurrent_stops: int = 0
    min_allocations_count: int = 0
    restart_policy: Literal["always", "reload", "never"] = "always"
    restart_globs: tuple[str, ...] = ()
    memory: Amounts = field(default_factory=Amounts)
    cpu: Amounts = field(default_factory=Amounts)
    ports: tuple[tuple[str, int | None], ...] = ()
    hooks: tuple[HookFacts, ...] = ()
    health_check: HealthCheck | None = None
    certificates: tuple[CertificateSpec, ...] = ()

    def version_or_first(self) -> str:
        """Return the version, `0.0.0` when the manifest names none."""
        return self.version or FIRST_VERSION

    def owns_lifecycle(self) -> bool:
        """Whether a `job_control` hook starts and stops the job, so that no Makefile is needed."""
        return any("job_control" in hook.executed_on for hook in self.hooks)

    def demanded_jobs(self) -> frozenset[str]:
        """Names of the jobs whose hooks this job demands."""
        return frozenset(hook.demand.job for hook in self.hooks if hook.demand and hook.demand.job)
