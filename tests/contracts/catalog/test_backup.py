"""Backup while serving, restore, read back: as docs/operations.md says it, with the real tools."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import make_url

from maand_catalog.service import RunningCatalog, start_catalog
from maand_contracts.catalog.v1 import kv_pb2, kv_pb2_grpc, secret_pb2, secret_pb2_grpc
from maand_wire.channels import open_channel
from maand_wire.endpoints import Endpoint
from tests.contracts.catalog.run_builders import a_bucket
from tests.contracts.catalog.serving import settings_for
from tests.testbed.postgres import PostgresCluster

KEEPS = "secrets/job/api"


async def start(directory: Path, url: str, name: str) -> RunningCatalog:
    """Serve a database; every catalog of a test has the same keys."""
    return await start_catalog(settings_for(directory, listen=f"unix:{directory}/{name}.sock", database_url=url))


async def put(catalog: RunningCatalog, bucket_id: str, key: str, value: str) -> None:
    async with open_channel(Endpoint(address=catalog.address)) as channel:
        request = secret_pb2.PutSecretRequest(bucket_id=bucket_id, namespace=KEEPS, key=key, value=value)
        await secret_pb2_grpc.SecretServiceStub(channel).PutSecret(request)


async def secrets_of(catalog: RunningCatalog, bucket_id: str) -> dict[str, str]:
    """Return the secrets there are, opened: the keys fit."""
    async with open_channel(Endpoint(address=catalog.address)) as channel:
        listed = await kv_pb2_grpc.KvServiceStub(channel).ListKeys(kv_pb2.ListKeysRequest(bucket_id=bucket_id, namespace=KEEPS))
        stub = secret_pb2_grpc.SecretServiceStub(channel)
        return {
            key: (await stub.RevealSecret(secret_pb2.RevealSecretRequest(bucket_id=bucket_id, namespace=KEEPS, key=key))).value
            for entry in listed.namespaces
            for key in entry.keys
        }


async def run(*command: str, url: str = "") -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "MAAND_DATABASE_URL": url}
    return await asyncio.to_thread(
        subprocess.run, command, env=environment, capture_output=True, text=True, timeout=60, check=False
    )


async def test_a_sqlite_backup_made_while_serving_reads_back_as_of_its_moment(tmp_path: Path) -> None:
    url, copy = f"sqlite:///{tmp_path}/maand.db", tmp_path / "backup.db"
    catalog = await start(tmp_path, url, "one")
    bucket_id = await a_bucket(catalog.database)
    await put(catalog, bucket_id, "before", "a secret of before")
    made = await run(sys.executable, "-m", "maand_catalog", "backup", str(copy), url=url)
    assert made.returncode == 0, made.stderr
    await put(catalog, bucket_id, "after", "another")
    assert copy.stat().st_mode & 0o777 == 0o600
    assert b"a secret of before" not in copy.read_bytes()

    restored = await start(tmp_path, f"sqlite:///{copy}", "two")
    assert await secrets_of(restored, bucket_id) == {"before": "a secret of before"}
    assert set(await secrets_of(catalog, bucket_id)) == {"before", "after"}
    await restored.stop()
    await catalog.stop()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("sqlite:///{}/none.db", "there is no database"),
        ("postgresql://maand@127.0.0.1:1/none", "use pg_dump"),
        ("sqlite://", "only a SQLite file"),
        ("", "MAAND_DATABASE_URL is not set"),
    ],
)
async def test_what_cannot_be_backed_up_is_said_with_the_remedy(tmp_path: Path, url: str, said: str) -> None:
    refused = await run(sys.executable, "-m", "maand_catalog", "backup", str(tmp_path / "copy"), url=url.format(tmp_path))
    assert refused.returncode == 1
    assert said in refused.stderr
    assert not (tmp_path / "copy").exists()


async def test_a_backup_replaces_no_file_and_leaves_none_half_made(sqlite_url: str, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.write_text("an older backup")
    refused = await run(sys.executable, "-m", "maand_catalog", "backup", str(kept), url=sqlite_url)
    assert (refused.returncode, kept.read_text()) == (1, "an older backup")
    assert "exists already" in refused.stderr
    nowhere = await run(sys.executable, "-m", "maand_catalog", "backup", str(tmp_path / "no/where"), url=sqlite_url)
    assert "cannot be written: No such file or directory" in nowhere.stderr
    broken = tmp_path / "broken.db"
    broken.write_bytes(b"no database at all" * 100)
    failed = await run(sys.executable, "-m", "maand_catalog", "backup", str(tmp_path / "copy"), url=f"sqlite:///{broken}")
    assert "is damaged (SQLite: file is not a database)" in failed.stderr
    assert not (tmp_path / "copy").exists()


async def test_a_postgresql_dump_made_while_serving_reads_back(
    postgres: PostgresCluster, postgres_url: str, tmp_path: Path
) -> None:
    catalog = await start(tmp_path, postgres_url, "one")
    bucket_id = await a_bucket(catalog.database)
    await put(catalog, bucket_id, "before", "a secret of before")
    dump = tmp_path / "maand.dump"
    tools = {name: str(postgres.binaries / name) for name in ("pg_dump", "pg_restore")}
    dumped = await run(tools["pg_dump"], "--format=custom", f"--file={dump}", f"--dbname={postgres_url}")
    assert dumped.returncode == 0, dumped.stderr
    await put(catalog, bucket_id, "after", "another")

    url = postgres.create_database(f"{make_url(postgres_url).database}_restored")
    restoring = await run(tools["pg_restore"], "--exit-on-error", "--no-owner", f"--dbname={url}", str(dump))
    assert restoring.returncode == 0, restoring.stderr
    restored = await start(tmp_path, url, "two")
    assert await secrets_of(restored, bucket_id) == {"before": "a secret of before"}
    await restored.stop()
    await catalog.stop()
    postgres.drop_database(f"{make_url(postgres_url).database}_restored")
