"""What the catalog can be told, with unit, default and reason of each setting.

| Variable                | Meaning                                                                                     |
|-------------------------|---------------------------------------------------------------------------------------------|
| `MAAND_CATALOG_LISTEN`  | `unix:/path` or `host:port` to serve on, default `127.0.0.1:7600`                            |
| `MAAND_CATALOG_SERVICES_LISTEN` | second `host:port`, for callers with a certificate only; executors must then use it  |
| `MAAND_DATABASE_URL`    | `sqlite:////path` or `postgresql://user@host/name`; needed                                   |
| `MAAND_KV_KEY_FILE`     | file with the keys that encrypt secrets, one `<key_id>:<base64url of 32 bytes>` a line; needed |
| `MAAND_CA_DIR`          | directory with `ca.crt` and `ca.key`, which sign the certificates of jobs; needed            |
| `MAAND_METRICS_LISTEN`  | `host:port` for Prometheus, over TLS beyond loopback; unset = no metrics are served          |
| `MAAND_TLS_*`           | files of the server's TLS identity (see `maand_wire.endpoints`); needed beyond loopback      |
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Self

from maand_catalog.errors import InvalidArgument
from maand_catalog.rules.workspace.bucket_facts import CONFIG_FILE
from maand_catalog.store.runs.leases import LEASE
from maand_catalog.store.runs.retention import Retention
from maand_wire.endpoints import TlsFiles


class MissingSetting(InvalidArgument):
    """A variable that the catalog cannot do without is not set. Set it."""

    code = "missing_setting"


class BadSetting(InvalidArgument):
    """A variable holds what the catalog cannot use. Write what its documentation asks for."""

    code = "bad_setting"


@dataclass(frozen=True, kw_only=True)
class UpkeepIntervals:
    """How often the catalog looks after what nobody asks for."""

    look_every: timedelta = timedelta(seconds=1)
    """Lapsed leases and lock timeouts: one cheap read; semaphores of a dead executor are free after at most this."""

    count_every: timedelta = timedelta(seconds=5)
    """Runs that have not ended, for metrics: fresher than any scrape, one read of a small index."""

    trim_every: timedelta = timedelta(minutes=10)
    """Events past their retention: nothing waits for it."""


@dataclass(frozen=True, kw_only=True)
class CatalogSettings:
    """Settings of one catalog process."""

    database_url: str
    kv_key_file: Path
    ca_dir: Path
    listen: str = "127.0.0.1:7600"
    services_listen: str | None = None
    """Where callers must show a certificate (mutual TLS). When set, an executor's token is refused anywhere else."""

    tls: TlsFiles | None = None
    metrics_listen: str | None = None
    lease: timedelta = LEASE
    """Validity of a claim without renewal. Executors renew every 3 s, so that four may fail before a run is taken over."""

    retention: Retention = field(default_factory=Retention)
    upkeep: UpkeepIntervals = field(default_factory=UpkeepIntervals)
    stop_grace: timedelta = timedelta(seconds=5)
    """How long calls in progress may go on when the catalog stops; streams are ended and resume at another replica."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Self:
        """Read the settings of this process. MissingSetting, BadSetting."""
        return cls(
            database_url=require_variable(environment, "MAAND_DATABASE_URL", "sqlite:////var/lib/maand/maand.db"),
            kv_key_file=Path(require_variable(environment, "MAAND_KV_KEY_FILE", "/run/secrets/kv.key")),
            ca_dir=Path(require_variable(environment, "MAAND_CA_DIR", "/run/secrets/ca")),
            listen=environment.get("MAAND_CATALOG_LISTEN") or cls.listen,
            services_listen=environment.get("MAAND_CATALOG_SERVICES_LISTEN") or None,
            tls=TlsFiles.from_environment(environment),
            metrics_listen=environment.get("MAAND_METRICS_LISTEN") or None,
            retention=read_retention(environment),
        )


def read_retention(environment: Mapping[str, str]) -> Retention:
    """Read how long events of runs are kept. BadSetting."""
    usual = Retention()
    return Retention(
        newest_runs=read_whole_number(environment, "MAAND_EVENTS_KEEP_RUNS", usual.newest_runs),
        younger_than=timedelta(days=read_whole_number(environment, "MAAND_EVENTS_KEEP_DAYS", usual.younger_than.days)),
    )


def read_whole_number(environment: Mapping[str, str], name: str, usual: int) -> int:
    """Return a variable's value as a number; the usual one when it is not set. BadSetting."""
    value = environment.get(name)
    if not value:
        return usual
    if not (value.isascii() and value.isdigit() and len(value) <= 6):
        raise BadSetting(f"{name} is not a whole number", help=f"for example {name}={usual}", facts={"variable": name})
    return int(value)


def require_variable(environment: Mapping[str, str], name: str, example: str) -> str:
    """Return a variable's value. MissingSetting."""
    value = environment.get(name)
    if not value:
        raise MissingSetting(f"{name} is not set", help=f"set it, for example {name}={example}", facts={"variable": name})
    return value


def find_database_url(environment: Mapping[str, str], *, bucket: Path | None, start: Path, may_be_new: bool = False) -> str:
    """Return the URL of the database that a command by hand means. MissingSetting, BadSetting.

    The bucket that was named, else MAAND_DATABASE_URL, else the bucket that MAAND_BUCKET names or that is around `start`. The
    database of a bucket must be there unless it `may_be_new`: where the services are elsewhere none is made by mistake.
    """
    if bucket is None and environment.get("MAAND_DATABASE_URL"):
        return environment["MAAND_DATABASE_URL"]
    named = bucket or (Path(environment["MAAND_BUCKET"]) if environment.get("MAAND_BUCKET") else None)
    directory = find_bucket_directory(named, start=start)
    database = directory / "data" / "maand.db"
    if not may_be_new and not database.is_file():
        raise BadSetting(
            f"there is no database {database}", help="start the services once (maand services start), or set MAAND_DATABASE_URL"
        )
    return f"sqlite:///{database}"


def find_bucket_directory(named: Path | None, *, start: Path) -> Path:
    """Return the bucket directory that was named, or the nearest one from `start` upwards. MissingSetting, BadSetting."""
    if named is not None:
        if not (named / CONFIG_FILE).is_file():
            raise BadSetting(f"{named} is no bucket: it has no {CONFIG_FILE}", help="name the directory with that file")
        return named.resolve()
    for directory in (start, *start.parents):
        if (directory / CONFIG_FILE).is_file():
            return directory.resolve()
    raise MissingSetting(
        f"MAAND_DATABASE_URL is not set, and neither {start} nor a directory above is a bucket",
        help="name a bucket: --bucket DIR, or a database: MAAND_DATABASE_URL=postgresql://maand@localhost/maand",
        facts={"variable": "MAAND_DATABASE_URL"},
    )
