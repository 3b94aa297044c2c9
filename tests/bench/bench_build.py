"""What a build costs: 200 jobs on 50 workers (10,000 allocations, 20,000 files), first, unchanged, and with one change.

    python -m tests.bench build [--jobs 200] [--workers 50] [--files 100] [--rounds 3] [--databases sqlite,postgresql]

The catalog is a process of its own, reached over its unix socket; its peak memory is what the kernel saw. PostgreSQL is durable.
Rounds of changed and unchanged builds alternate, so that a slow minute of the machine hits both.
"""

import argparse
import asyncio
import base64
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from maand_wire.channels import open_channel
from maand_wire.endpoints import Endpoint
from tests.contracts.catalog import run_verbs
from tests.contracts.catalog.bucket_verbs import BucketClient, write_authority
from tests.contracts.catalog.serving import Client
from tests.testbed.postgres import running_postgres

BUCKET_ID = "5f0c3c1e-6f6c-4b0e-9f52-000000000001"


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How large the workspace is."""

    jobs: int
    workers: int
    files: int


def workspace(scale: Scale, *, edition: int = 0) -> dict[str, str]:
    """Return a workspace: every job on every worker, a tree of demands, a tenth of the jobs with certificates."""
    hosts = [f"10.0.{number // 250}.{number % 250 + 1}" for number in range(scale.workers)]
    files = {"workers.json": json.dumps([{"host": host, "labels": ["fleet"], "memory": "1 tb"} for host in hosts])}
    for number in range(scale.jobs):
        job = f"jobs/job{number}"
        files[f"{job}/manifest.json"] = json.dumps(manifest(number))
        files[f"{job}/Makefile"] = f"start:\n\techo {edition if number == 0 else 0}\n"
        files[f"{job}/vars.toml"] = f'name = "{number}"\n'
        files[f"{job}/_hooks/hook_ready.py"] = ""
        files |= {f"{job}/conf/{index}.conf": f"{number} {index}\n" for index in range(scale.files - 4)}
    return files


def manifest(number: int) -> dict[str, Any]:
    """Return the manifest of one job."""
    hook: dict[str, Any] = {"executed_on": ["post_deploy"]}
    if number:
        hook["demands"] = {"job": f"job{(number - 1) // 2}", "hook": "hook_ready"}
    return {
        "version": "1.0.0",
        "selectors": ["fleet"],
        "resources": {"memory": {"max": "64 mb"}, "ports": {f"port_{number}": {}}},
        "hooks": {"hook_ready": hook},
        "certs": {"tls": {}} if number % 10 == 0 else {},
    }


@contextmanager
def catalog_process(database_url: str, directory: Path) -> Iterator[tuple[str, int]]:
    """Run a catalog; yield its address and process id."""
    (directory / "kv.key").write_text(f"bench:{base64.urlsafe_b64encode(bytes(32)).decode()}\n")
    (directory / "kv.key").chmod(0o600)
    write_authority(directory)
    address = f"unix:{directory}/catalog.sock"
    settings = {
        "MAAND_CATALOG_LISTEN": address,
        "MAAND_DATABASE_URL": database_url,
        "MAAND_KV_KEY_FILE": str(directory / "kv.key"),
        "MAAND_CA_DIR": str(directory),
    }
    with (directory / "log").open("w") as log:
        process = subprocess.Popen([sys.executable, "-m", "maand_catalog"], env={**os.environ, **settings}, stderr=log)
        try:
            yield address, process.pid
        finally:
            process.terminate()
            process.wait(timeout=30)


def peak_mebibytes(pid: int) -> float:
    """Return the most memory a process ever held."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) / 1024


async def timed_build(bucket: BucketClient, snapshot_id: str, *, changed: bool) -> float:
    """Build a snapshot in a run of its own and return seconds of the one call."""
    run = await bucket.begin()
    began = time.perf_counter()
    response = await bucket.build_for(run, snapshot_id)
    seconds = time.perf_counter() - began
    assert response.changed is changed
    await run_verbs.finish(bucket.catalog, run)
    return seconds


async def measure(database_url: str, scale: Scale, rounds: int) -> None:
    """Measure one database and print what was found."""
    with tempfile.TemporaryDirectory(prefix="maand-") as name, catalog_process(database_url, Path(name)) as (address, pid):
        channel = open_channel(Endpoint(address=address))
        await asyncio.wait_for(channel.channel_ready(), 30)
        catalog: Any = SimpleNamespace(local=Client(channel=channel))
        bucket = BucketClient(catalog=catalog, bucket_id=BUCKET_ID)
        await bucket.apply()
        began = time.perf_counter()
        snapshots = [await bucket.snapshot(workspace(scale, edition=edition)) for edition in (0, 1)]
        upload = time.perf_counter() - began
        before = peak_mebibytes(pid)
        first = await timed_build(bucket, snapshots[0], changed=True)
        after_first = peak_mebibytes(pid)
        changed, unchanged = [], []
        for number in range(rounds):
            wanted = snapshots[(number + 1) % 2]
            changed.append(await timed_build(bucket, wanted, changed=True))
            unchanged.append(await timed_build(bucket, wanted, changed=False))
        await channel.close()
        print(f"  upload and two snapshots   {upload:6.2f} s")
        print(f"  first build                {first:6.2f} s   peak {after_first:.0f} MiB (before the build {before:.0f} MiB)")
        print(f"  one file changed           {span(changed)}   peak {peak_mebibytes(pid):.0f} MiB")
        print(f"  unchanged                  {span(unchanged)}")
        ratio = statistics.median(changed) / statistics.median(unchanged)
        print(
            f"  unchanged is {first / statistics.median(unchanged):.1f}x faster than the first, {ratio:.1f}x than a changed one"
        )


def span(seconds: list[float]) -> str:
    """Return the least, median and most of some timings."""
    return f"{min(seconds):6.2f} / {statistics.median(seconds):.2f} / {max(seconds):.2f} s"


def main(arguments: Sequence[str]) -> None:
    """Measure on each database."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--workers", type=int, default=50)
    parser.add_argument("--files", type=int, default=100, help="files of each job")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--databases", default="sqlite,postgresql")
    options = parser.parse_args(arguments)
    scale = Scale(jobs=options.jobs, workers=options.workers, files=options.files)
    print(f"{scale.jobs} jobs x {scale.workers} workers, {scale.jobs * scale.files} files (min / median / max)")
    for database in options.databases.split(","):
        print(database)
        if database == "sqlite":
            with tempfile.TemporaryDirectory() as directory:
                asyncio.run(measure(f"sqlite:///{directory}/maand.db", scale, options.rounds))
        else:
            with running_postgres(durable=True) as cluster:
                asyncio.run(measure(cluster.create_database("bench"), scale, options.rounds))
