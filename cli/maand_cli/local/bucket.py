"""The bucket directory: finding it, its paths, and the little the command line itself must know of `maand.conf`.

`maand.conf` is validated by the catalog. Here it is only parsed, for the bucket's id and for the names in `hook_env`.
"""

import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from maand_cli.errors import InvalidFile, NoBucket, Problem

CONF = "maand.conf"


@dataclass(frozen=True, kw_only=True)
class Bucket:
    """Paths of one bucket."""

    path: Path

    @property
    def conf(self) -> Path:
        """The settings file."""
        return self.path / CONF

    @property
    def workspace(self) -> Path:
        """What people edit."""
        return self.path / "workspace"

    @property
    def secrets(self) -> Path:
        """Keys and certificates."""
        return self.path / "secrets"

    @property
    def run(self) -> Path:
        """Sockets, locks and caches."""
        return self.path / "run"

    @property
    def workspace_digests(self) -> Path:
        """What is remembered of the workspace's files, so that they are not read again."""
        return self.run / "workspace-digests.json"

    @property
    def services_file(self) -> Path:
        """Where the local host says how it is reached."""
        return self.run / "services.json"

    @property
    def agent_link(self) -> Path:
        """Link to the socket of the SSH agent that the services ask: that of the login in which a command was typed last."""
        return self.run / "agent.sock"

    @property
    def services_log(self) -> Path:
        """What the local host logs."""
        return self.path / "logs" / "services.log"


@dataclass(frozen=True, kw_only=True)
class Conf:
    """What the command line reads from `maand.conf`."""

    bucket_id: str
    hook_env: tuple[str, ...] = ()
    ssh_key: str = "worker.key"
    """Empty: the keys of the SSH agent."""
    content: bytes = b""


def find_bucket(given: Path | None, *, environment: Mapping[str, str], start: Path) -> Bucket:
    """Find the bucket: the flag, else MAAND_BUCKET, else the nearest maand.conf from `start` upwards. Raises NoBucket."""
    named = given or (Path(environment["MAAND_BUCKET"]) if environment.get("MAAND_BUCKET") else None)
    if named is not None:
        if not (named / CONF).is_file():
            raise NoBucket(f"{named} is no bucket: it has no {CONF}", help=f"make one: maand init --bucket {named}")
        return Bucket(path=named.resolve())
    for directory in (start, *start.parents):
        if (directory / CONF).is_file():
            return Bucket(path=directory.resolve())
    raise NoBucket(
        f"no bucket here: neither {start} nor a directory above has a {CONF}",
        help="make one: maand init, or name one: --bucket DIR",
    )


def read_conf(bucket: Bucket) -> Conf:
    """Read `maand.conf`. Raises InvalidFile with the position of a syntax error or of what is missing."""
    try:
        content = bucket.conf.read_bytes()
    except OSError as error:
        raise InvalidFile(Problem(code="unreadable_file", message=f"cannot be read: {error.strerror}", file=CONF)) from error
    return parse_conf(content)


def parse_conf(content: bytes) -> Conf:
    """Take the few values out of the file's bytes."""
    values = _parse_toml(content)
    bucket_id = values.get("bucket_id")
    if not isinstance(bucket_id, str) or not bucket_id:
        raise InvalidFile(
            Problem(code="missing_key", message="bucket_id is missing", file=CONF, help="maand init adds one and keeps the rest")
        )
    names = values.get("hook_env", [])
    ssh_key = values.get("ssh_key", "worker.key")
    return Conf(
        bucket_id=bucket_id,
        hook_env=tuple(name for name in names if isinstance(name, str)) if isinstance(names, list) else (),
        ssh_key=ssh_key if isinstance(ssh_key, str) else "worker.key",
        content=content,
    )


def _parse_toml(content: bytes) -> dict[str, Any]:
    import tomllib

    try:
        return tomllib.loads(content.decode())
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise InvalidFile(Problem(code="not_utf8", message="the file is not UTF-8 text", file=CONF, line=line)) from error
    except tomllib.TOMLDecodeError as error:
        raise InvalidFile(toml_problem(str(error), content, file=CONF)) from error


def toml_problem(message: str, content: bytes, *, file: str) -> Problem:
    """Turn tomllib's sentence with its position into a problem."""
    found = re.search(r"\s*\(at (?:line (\d+), column (\d+)|end of document)\)$", message)
    if found is None:
        return Problem(code="invalid_toml", message=message, file=file)
    text = f"not TOML: {message[:1].lower()}{message[1 : found.start()]}"
    if found.group(1):
        return Problem(code="invalid_toml", message=text, file=file, line=int(found.group(1)), column=int(found.group(2)))
    return Problem(code="invalid_toml", message=f"{text} at the end", file=file, line=content.count(b"\n") + 1)


def others_may_read(path: Path) -> bool:
    """Whether a file is open to its group or to everybody, as OpenSSH would refuse a key; False for what is not there."""
    try:
        return bool(path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO))
    except OSError:
        return False
