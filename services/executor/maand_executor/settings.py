"""Settings of an executor, grouped, each with unit, default and reason; read once at start from the environment.

| Variable                | Meaning                                                                             | Default        |
|-------------------------|-------------------------------------------------------------------------------------|----------------|
| `MAAND_EXECUTOR_LISTEN` | where RemoteService and ExecutorService listen                                      | 127.0.0.1:7601 |
| `MAAND_SECRETS_DIR`     | directory with `worker.key`, `known_hosts`, `ca.crt`                                | (required)     |
| `MAAND_STATE_DIR`       | directory for caches and the private directories of hooks                           | (required)     |
| `MAAND_WORKSPACE_DIR`   | the bucket's workspace on this machine, for a job's own `_hooks/.venv`              | none           |
| `MAAND_HOOK_API`        | `host:port` at which hooks find the runtime API                                     | 127.0.0.1:8080 |
| `MAAND_BUCKET_IDS`      | only runs of these buckets, comma-separated                                         | any            |
| `MAAND_HOOK_PROCESSES`  | hook processes side by side; a batch waits until there is room for all of it        | 20 a core      |
| `MAAND_METRICS_LISTEN`  | `host:port` for Prometheus, over TLS beyond loopback                                | not served     |

The catalog is found as `maand_wire.endpoints` says (`MAAND_CATALOG_ADDRESS`, `MAAND_TLS_*`, `MAAND_API_TOKEN_FILE`).
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Self

from maand_wire.endpoints import Endpoint, EndpointError, TlsFiles


@dataclass(frozen=True, kw_only=True)
class LeaseSettings:
    """How runs are claimed and kept."""

    renew_every: timedelta = timedelta(seconds=3)
    """A fifth of the catalog's 15 s lease: four renewals may be lost before the run is."""
    renew_task_every: timedelta = timedelta(seconds=1)
    """Likewise for tasks; outcomes go along, so that little is unknown when this executor dies."""
    give_up_at: float = 0.8
    """Share of the lease after which an executor that could not renew stops by itself, before anybody may take over."""
    claim_wait: timedelta = timedelta(seconds=20)
    """How long one ClaimRun waits; below the idle limits of proxies and load balancers."""
    retry_pause: timedelta = timedelta(seconds=1)
    """Pause after a ClaimRun that failed, so that a catalog that is down is not hammered."""


@dataclass(frozen=True, kw_only=True)
class WorkSettings:
    """How much is done at once, and for how long."""

    runs_at_once: int = 16
    """Runs side by side in one executor; each is mostly waiting, the SSH pool and the hook engine bound the real work."""
    hook_processes: int = 0
    """Hook processes side by side; 0 = what the hook engine gives a machine. Whole batches wait for room, parts never."""
    task_width: int = 50
    """Workers in one task of wide work: a second or two of SSH for one executor, so that others get their share."""
    left_to_others: timedelta = timedelta(milliseconds=500)
    """How long tasks that must all be under way at once are left to other executors, before their run's owner takes the rest."""
    foreign_tasks_at_once: int = 4
    """Tasks of other executors' runs side by side; its own runs' tasks are not counted, they never wait for these."""
    lifecycle_timeout: timedelta = timedelta(seconds=300)
    """Limit of one `make` target on a worker: the specification's."""
    copy_timeout: timedelta = timedelta(seconds=900)
    """Limit of one rsync: a gigabyte over 10 Mbit/s."""
    connect_timeout: timedelta = timedelta(seconds=5)
    """Limit of looking whether a worker's SSH port answers."""
    preflight_timeout: timedelta = timedelta(seconds=30)
    """Limit of reaching one worker and looking for its tools."""
    content_kept: timedelta = timedelta(days=30)
    """How long stored content that nothing uses stays on disk: longer than most pauses between two deploys of a job."""
    stop_grace: timedelta = timedelta(seconds=1)
    """What calls of hooks that are in progress get when the executor stops; the hooks are gone by then."""


@dataclass(frozen=True, kw_only=True)
class ExecutorSettings:
    """Everything an executor is told."""

    listen: str
    catalog: Endpoint
    secrets_dir: Path
    state_dir: Path
    workspace_dir: Path | None = None
    hook_api: str = "127.0.0.1:8080"
    tls: TlsFiles | None = None
    bucket_ids: tuple[str, ...] = ()
    metrics_listen: str | None = None
    lease: LeaseSettings = field(default_factory=LeaseSettings)
    work: WorkSettings = field(default_factory=WorkSettings)

    @property
    def staging_dir(self) -> Path:
        """Where trees are made that are about to be copied: one directory a run, private."""
        return self.state_dir / "staging"

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Self:
        """Read the variables of the table above. Raises `EndpointError` naming the variable that is missing."""
        workspace = environment.get("MAAND_WORKSPACE_DIR")
        return cls(
            listen=environment.get("MAAND_EXECUTOR_LISTEN", "127.0.0.1:7601"),
            catalog=Endpoint.from_environment("CATALOG", environment),
            secrets_dir=required_directory("MAAND_SECRETS_DIR", environment),
            state_dir=required_directory("MAAND_STATE_DIR", environment),
            workspace_dir=Path(workspace) if workspace else None,
            hook_api=environment.get("MAAND_HOOK_API", "127.0.0.1:8080"),
            tls=TlsFiles.from_environment(environment),
            bucket_ids=tuple(filter(None, environment.get("MAAND_BUCKET_IDS", "").split(","))),
            metrics_listen=environment.get("MAAND_METRICS_LISTEN") or None,
            work=WorkSettings(hook_processes=read_hook_processes(environment)),
        )


def read_hook_processes(environment: Mapping[str, str]) -> int:
    """Read how many hook processes may run side by side; 0 = not said. Raises `EndpointError` for anything but a whole number."""
    text = environment.get("MAAND_HOOK_PROCESSES") or "0"
    if not (text.isascii() and text.isdigit()):
        raise EndpointError(f"MAAND_HOOK_PROCESSES is not a whole number: {text}")
    return int(text)


def required_directory(name: str, environment: Mapping[str, str]) -> Path:
    """Return the directory a variable names."""
    value = environment.get(name)
    if not value:
        raise EndpointError(f"{name} is not set; it names a directory, see `maand_executor/settings.py`")
    return Path(value)
