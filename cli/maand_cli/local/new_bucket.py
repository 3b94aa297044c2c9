"""What `maand init` puts where, keeping whatever is there: a bucket's id, CA and keys are made once."""

import os
import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from maand_cli.errors import MissingPrerequisite
from maand_cli.local.bucket import CONF, Bucket, others_may_read, read_conf
from maand_cli.local.gitignore import IGNORE_FILE, OWN_DIRECTORIES, complete_ignore_file, find_tracked_files, ignore_all_inside
from maand_cli.local.ssh_key import find_stray_public_key
from maand_cli.output.text import format_list

if TYPE_CHECKING:
    from maand_wire.new_keys import KeyPair

CONF_TEXT = """\
# Settings of this bucket. Commented lines show the defaults.

# Identity of the bucket; workers refuse another one's. Never change it.
bucket_id = "{bucket_id}"

# How workers are reached.
# ssh_user = "agent"
# ssh_key = "worker.key"            # file in secrets/; "" = the keys of the SSH agent
# ssh_port = 22
# ssh_config = ""                   # OpenSSH client configuration: ProxyJump and friends
# use_sudo = true                   # remote commands run under sudo -n
# worker_root = "/opt/worker"       # relative: below the SSH user's home, needs no root
# host_keys = "strict"              # or "accept-new"

# Certificates, days.
# certs_ttl = 60
# certs_renewal_buffer = 10

# Which bucket.jobs.<selector>.conf is read besides bucket.jobs.conf.
# job_config_selector = ""

# How much at once.
# max_parallel_jobs = 4
# max_ssh_sessions = 2000         # SSH connections kept open: more than there are workers
# ssh_starts_per_second = 200     # logins begun

# Hooks.
# hook_env = []                     # names of environment variables passed on to hooks
# hook_timeout_seconds = 600

# log_format = "kv"                 # or "json"
"""

WORKERS_TEXT = """\
[
  {"host": "192.0.2.10", "labels": ["example"], "memory": "4 gb", "cpu": "2 ghz"}
]
"""

PRIVATE = 0o600
"""Mode of files that nobody else may read."""

PRIVATE_DIRECTORIES = ("secrets", "data", "run", "logs", "tmp")
OTHER_DIRECTORIES = ("workspace", "workspace/jobs")


@dataclass(kw_only=True)
class Made:
    """What an `init` did."""

    bucket_id: str = ""
    ssh_key: str = "worker.key"
    """As maand.conf names it; empty: the SSH agent's keys."""
    made: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def make_bucket(directory: Path) -> Made:
    """Make a bucket, or what is missing of one; private things become private again.

    Raises InvalidFile when maand.conf cannot be read. Raises MissingPrerequisite where something is missing that no new one can
    stand for: half a CA, the key of stored secrets; and when the CA is over, with everything else made.
    """
    bucket = Bucket(path=directory)
    directory.mkdir(parents=True, exist_ok=True)
    made = Made()
    _make_directories(directory)
    _ignore_in_git(directory, made)  # before there is a key that git could take
    made.bucket_id = _make_conf(bucket, made)
    _make_file(directory / "workspace" / "workers.json", WORKERS_TEXT.encode(), 0o644, made)
    _make_keys(bucket, made)
    return made


def _ignore_in_git(directory: Path, made: Made) -> None:
    try:
        outcome = complete_ignore_file(directory / IGNORE_FILE)
    except OSError as error:
        why = f"{directory / IGNORE_FILE} cannot be completed: {error.strerror}"
        made.warnings.append(f"{why}; git ignores the bucket's own directories all the same, each says so itself")
    else:
        (made.kept if outcome == "kept" else made.made).append(IGNORE_FILE)
    for name in OWN_DIRECTORIES:
        ignore_all_inside(directory / name)
    tracked = find_tracked_files(directory)
    if tracked:
        tops = sorted({path.partition("/")[0] for path in tracked})
        remedy = f"take them out (git rm -r --cached {' '.join(tops)})"
        made.warnings.append(
            f"git already tracks {format_list(tracked, 4)}: {remedy}; "
            "its history keeps them, so make new keys if others have seen it"
        )


def _make_directories(directory: Path) -> None:
    for name in OTHER_DIRECTORIES:
        (directory / name).mkdir(exist_ok=True)
    for name in PRIVATE_DIRECTORIES:
        (directory / name).mkdir(mode=0o700, exist_ok=True)
        (directory / name).chmod(0o700)


def _make_conf(bucket: Bucket, made: Made) -> str:
    """Make `maand.conf`, or add the id to one that has none; return the id."""
    fresh = str(uuid.uuid4())
    if not bucket.conf.exists():
        _make_file(bucket.conf, CONF_TEXT.format(bucket_id=fresh).encode(), 0o644, made)
        return fresh
    made.kept.append(CONF)
    text = bucket.conf.read_text()
    found = re.search(r"""^\s*bucket_id\s*=\s*["'](.*)["']""", text, re.MULTILINE)
    if found:
        return found[1]
    bucket.conf.write_text(f'bucket_id = "{fresh}"\n{text}')
    return fresh


def _make_keys(bucket: Bucket, made: Made) -> None:
    from maand_wire.new_keys import make_certificate_authority, make_kv_key_line, make_ssh_key

    def make_authority() -> "KeyPair":
        return make_certificate_authority(f"maand {made.bucket_id}", now=datetime.now(tz=UTC))

    comment = f"maand-{made.bucket_id[:8]}"
    made.ssh_key = read_conf(bucket).ssh_key
    if made.ssh_key and Path(made.ssh_key).name == made.ssh_key:
        key = bucket.secrets / made.ssh_key
        _make_pair(key, key.with_name(f"{key.name}.pub"), lambda: make_ssh_key(comment), made)
    if stray := find_stray_public_key(bucket, made.ssh_key):
        made.warnings.append(stray)
    _make_pair(bucket.secrets / "ca.key", bucket.secrets / "ca.crt", make_authority, made)
    _refuse_to_replace(bucket.secrets / "ca.crt", bucket.secrets / "ca.key", "it is what workers trust")
    _refuse_to_replace(bucket.secrets / "kv.key", bucket.path / "data" / "maand.db", "it opens the secrets stored there")
    _make_file(bucket.secrets / "kv.key", make_kv_key_line(), PRIVATE, made)
    _make_file(bucket.secrets / "known_hosts", b"", PRIVATE, made)
    _refuse_ended_authority(bucket.secrets / "ca.crt", datetime.now(tz=UTC))


def _refuse_to_replace(wanted: Path, witness: Path, why: str) -> None:
    """Refuse when a file is gone that must have been there, as another one tells."""
    if witness.exists() and not wanted.exists():
        raise MissingPrerequisite(
            f"{wanted.parent.name}/{wanted.name} is missing but {witness.parent.name}/{witness.name} is there",
            help=f"put it back from your backup: {why}; to begin anew, move {witness.parent.name}/{witness.name} away",
        )


def _refuse_ended_authority(certificate: Path, now: datetime) -> None:
    """Refuse to call a bucket complete whose CA is over. What is no certificate is for a build to say."""
    from maand_wire.new_keys import read_end

    try:
        ends = read_end(certificate.read_bytes())
    except ValueError:
        return
    if ends <= now:
        raise MissingPrerequisite(
            f"the bucket's CA, secrets/{certificate.name}, ended on {ends:%Y-%m-%d}: no certificate can be issued",
            help="move secrets/ca.crt and secrets/ca.key away and repeat `maand init`: it makes a new CA; "
            "then `maand build` and `maand deploy`",
        )


def _make_pair(private: Path, public: Path, make: Callable[[], "KeyPair"], made: Made) -> None:
    if private.exists():
        _make_private(private, made)
        made.kept.append(f"secrets/{private.name}")
        return
    if public.exists():
        raise MissingPrerequisite(
            f"secrets/{private.name} is missing but secrets/{public.name} is there",
            help=f"put the key back; to begin anew, move secrets/{public.name} away",
        )
    pair = make()
    _make_file(private, pair.private, PRIVATE, made)
    _make_file(public, pair.public, 0o644, made)


def _make_file(path: Path, content: bytes, mode: int, made: Made) -> None:
    """Make one file with its mode from the first moment on; keep one that exists."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    except FileExistsError:
        if mode == PRIVATE:
            _make_private(path, made)
        made.kept.append(path.name)
        return
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    path.chmod(mode)
    made.made.append(path.name)


def _make_private(path: Path, made: Made) -> None:
    """Close a file to everybody else, and tell when a key was open until now."""
    if others_may_read(path) and path.suffix == ".key":
        mode = path.stat().st_mode & 0o777
        made.warnings.append(
            f"secrets/{path.name} could be read by others (mode {mode:04o}); now closed: make a new one if somebody did"
        )
    path.chmod(PRIVATE)
