"""Secrets of a real bucket, too many for one message or without their key: every command goes on, and says what is lost."""

import json
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from maand_contracts.catalog.v1 import secret_pb2
from maand_contracts.catalog.v1.secret_pb2_grpc import SecretServiceStub
from maand_wire.channels import open_blocking_channel
from maand_wire.endpoints import Endpoint
from tests.integration.cli.conftest import Maand

pytestmark = pytest.mark.timeout(300)

API = "secrets/job/api"
MIB = 1024 * 1024


class Secrets:
    """Secrets of a bucket, written without a process for each."""

    def __init__(self, bucket_id: str, stub: Any) -> None:
        self._bucket_id = bucket_id
        self._stub = stub

    def put(self, key: str, value: str) -> None:
        self._stub.PutSecret(secret_pb2.PutSecretRequest(bucket_id=self._bucket_id, namespace=API, key=key, value=value))


@contextmanager
def secrets_of(maand: Maand) -> Iterator[Secrets]:
    maand.must("services", "start")
    bucket_id = tomllib.loads((maand.bucket / "maand.conf").read_text())["bucket_id"]
    with open_blocking_channel(Endpoint(address=maand.services()["catalog"])) as channel:
        yield Secrets(bucket_id, SecretServiceStub(channel))  # type: ignore[arg-type]  # the blocking kind


@pytest.fixture
def bucket(maand: Maand) -> Maand:
    """A bucket with one worker, which nobody reaches, and a hook that writes a secret and prints it, and one it finds."""
    (maand.bucket / "workspace/workers.json").write_text('[{"host": "10.255.255.1", "labels": ["api"]}]')
    job = maand.bucket / "workspace/jobs/api"
    (job / "_hooks").mkdir(parents=True)
    manifest = {"version": "1.0.0", "selectors": ["api"], "hooks": {"hook_print": {"executed_on": ["post_build"]}}}
    (job / "manifest.json").write_text(json.dumps(manifest))
    (job / "Makefile").write_text("start stop restart:\n\t@true\n")
    (job / "_hooks/hook_print.py").write_text(
        "from maand import get_store_value, put_job_secret\n"
        "known = get_store_value('secrets/job/api', 'known')\n"
        "print('it was', known.json()['value'] if known.ok else 'absent', flush=True)\n"
        "put_job_secret('fresh', 'born-a-moment-ago').raise_for_status()\n"
        "print('it is born-a-moment-ago')\n"
    )
    maand.must("build")
    return maand


def prints_masked(bucket: Maand) -> None:
    said = bucket.must("build")
    assert "it was ***" in said.out + said.err
    assert "it is ***" in said.out + said.err
    assert "born-a-moment-ago" not in said.out + said.err


def test_secrets_beyond_the_largest_message_stop_no_run_and_are_masked(bucket: Maand) -> None:
    with secrets_of(bucket) as secrets:
        for number in range(68):
            secrets.put("large", f"{number:02}-" * (MIB // 3))
        secrets.put("known", "known-before-the-run")
    prints_masked(bucket)
    bucket.must("gc")


def lose_key(bucket: Maand) -> str:
    """Replace the key file by one with another key, as a restore from the wrong backup does; return the lost key's id."""
    path = bucket.bucket / "secrets/kv.key"
    lost = path.read_text().partition(":")[0]
    bucket.must("services", "stop")
    path.write_text("k-new:" + "A" * 43 + "\n")
    return lost


def test_after_the_key_was_lost_everything_goes_on_and_what_is_lost_is_named(bucket: Maand) -> None:
    with secrets_of(bucket) as secrets:
        for key in ("known", "lost", "deleted"):
            secrets.put(key, f"old value of {key}")
        bucket.must("secret", "delete", "api", "deleted")
    lost = lose_key(bucket)
    with secrets_of(bucket) as secrets:
        secrets.put("known", "known-before-the-run")

    prints_masked(bucket)
    bucket("health_check")
    rotated = bucket.must("secret", "rotate").err
    bucket.must("gc")
    shown = bucket("secret", "reveal", "api", "lost")

    warnings = [line for line in bucket.log().splitlines() if "cannot be opened" in line]
    for entry in ("known version 1", "lost version 1", "deleted version 1"):
        assert sum(f"{API} {entry}" in line for line in warnings) == 1, warnings
        assert f"{API} {entry}" in rotated
    assert lost in rotated
    assert "gave up this run" not in bucket.log()
    assert "old value" not in bucket.log() + rotated
    assert shown.code != 0
    assert f"{API} lost version 1 cannot be opened: the key {lost} is not in kv.key" in shown.err
    bucket.must("secret", "set", "api", "lost", "-f", str(a_file(bucket, "a new value")))
    assert bucket.must("secret", "reveal", "api", "lost").out == "a new value\n"


def a_file(bucket: Maand, text: str) -> Path:
    path = bucket.bucket / "value"
    path.write_text(text)
    return path
