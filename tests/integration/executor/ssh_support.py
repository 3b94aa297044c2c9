"""Builders for tests that reach test bed workers through `Remote`."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from maand_executor.rules.facts import BucketConfig, Worker
from maand_executor.rules.remote_commands import RemoteCommand
from maand_executor.ssh.remote import Remote
from maand_executor.ssh.settings import SshSettings
from tests.testbed.sshd import SshTestBed
from tests.testbed.worker import SshWorker

BUCKET = "5b0f6a34-0000-4000-8000-000000000001"

PATIENT = SshSettings(connect_timeout=timedelta(seconds=30), grace=timedelta(seconds=1), kill_time=timedelta(seconds=20))
"""Limits that a busy machine keeps."""
IMPATIENT = SshSettings(
    connect_timeout=timedelta(seconds=2),
    connect_attempts=3,
    agent_timeout=timedelta(seconds=1),
    keepalive_interval=timedelta(seconds=0.3),
    keepalive_count=2,
    grace=timedelta(seconds=1),
    heartbeat=timedelta(seconds=0.3),
    silence=timedelta(seconds=2),
)
"""Limits that let a test of lost workers see the end of patience soon. A busy machine may break them: no other test has them."""


def fact(worker: SshWorker, **fields: Any) -> Worker:
    """Describe a test bed worker as the executor knows it."""
    return Worker(**{"name": worker.host, "worker_id": f"id-of-{worker.host}", **fields})


def command(script: str, *, sudo: bool = False, **fields: Any) -> RemoteCommand:
    """Make a command."""
    return RemoteCommand(script=script, sudo=sudo, **fields)


@asynccontextmanager
async def remote_of(
    bed: SshTestBed, *, pinned: bool = True, settings: SshSettings = PATIENT, secrets: Path | None = None, **config: Any
) -> AsyncIterator[Remote]:
    """Give a `Remote` with the bed's key and pinned host keys; it is closed with the block."""
    if secrets is None:
        secrets = bed.directory / "secrets"
        bed.write_secrets(secrets, pinned=pinned)
    remote = Remote(
        BucketConfig(**{"bucket_id": BUCKET, "ssh_user": bed.user, "ssh_port": bed.port, **config}), secrets, settings
    )
    try:
        yield remote
    finally:
        await remote.close()


def write_ssh_config(directory: Path, text: str) -> str:
    """Write an OpenSSH client configuration and return its path."""
    path = directory / "ssh_config"
    path.write_text(text)
    return str(path)


def secrets_for(directory: Path, key: Path, *beds: SshTestBed) -> Path:
    """Make secrets with one bed's key and the host keys of several."""
    secrets = directory / "shared-secrets"
    beds[0].write_secrets(secrets)
    (secrets / "worker.key").write_bytes(key.read_bytes())
    (secrets / "known_hosts").write_text("".join(bed.known_hosts for bed in beds))
    return secrets
