"""Hooks with real tokens, over real gRPC."""

import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import insert

from maand_catalog.database.database import Database, Transaction
from maand_catalog.rules.identity import token_digest
from maand_catalog.store.tables.fleet import job_demands, jobs, workers
from maand_catalog.store.tables.identity import invocations
from maand_wire.channels import bearer_header
from tests.contracts.catalog.run_builders import an_allocation
from tests.contracts.catalog.semaphore_builders import LONG_LEASE, a_running_run

Metadata = list[tuple[str, str]]


@dataclass(frozen=True, kw_only=True)
class Hook:
    """A running hook and the metadata of its calls."""

    invocation_id: str
    allocation_id: str
    worker: str
    metadata: Metadata


async def a_running_hook(
    database: Database, bucket_id: str, *, job: str = "api", worker: str = "10.0.0.1", event: str = "pre_deploy"
) -> Hook:
    """Begin one invocation of a run of its own, on a new allocation."""
    run_id = await a_running_run(database, bucket_id, lease=LONG_LEASE)
    await a_worker(database, bucket_id, worker)
    allocation_id = await an_allocation(database, bucket_id, job=job, worker=worker)
    return await another_hook(
        database, bucket_id, run_id=run_id, allocation_id=allocation_id, job=job, worker=worker, event=event
    )


async def another_hook(database: Database, bucket_id: str, *, event: str, worker: str, **row: str) -> Hook:
    """Begin one more invocation on an allocation that is there."""
    invocation_id, token = str(uuid.uuid4()), f"mh_{uuid.uuid4().hex}"
    row |= {"invocation_id": invocation_id, "bucket_id": bucket_id, "hook": "hook_x", "event": event, "worker": worker}
    more = {"fence": 1, "token_sha256": token_digest(token), "begun_at": datetime.now(UTC)}
    await database.write(lambda tx: tx.connection.execute(insert(invocations), {**row, **more}))
    return Hook(invocation_id=invocation_id, allocation_id=row["allocation_id"], worker=worker, metadata=[bearer_header(token)])


async def a_worker(database: Database, bucket_id: str, host: str) -> None:
    """Make a worker as a build would."""
    row: dict[str, Any] = {
        "bucket_id": bucket_id,
        "name": host,
        "worker_id": str(uuid.uuid4()),
        "hostname": "",
        "position": int(host.rpartition(".")[2]),
        "labels": [],
        "memory_mb": 0,
        "cpu_mhz": 0,
        "tags": {},
        "ssh_user": "",
        "ssh_port": 0,
        "disabled": False,
        "removed": False,
    }
    await database.write(lambda tx: tx.connection.execute(insert(workers), row))


async def a_demand(database: Database, bucket_id: str, job: str, demanded: str) -> None:
    """Let one job demand another."""

    def intention(tx: Transaction) -> None:
        row = {
            "bucket_id": bucket_id,
            "name": job,
            "job_id": str(uuid.uuid4()),
            "version": "1.0.0",
            "deployment_seq": 1,
            "memory_mb": 0,
            "cpu_mhz": 0,
            "removed": False,
            "has_makefile": False,
            "facts": {},
            "variables": {},
            "tree": b"",
        }
        tx.connection.execute(insert(jobs), row)
        tx.connection.execute(insert(job_demands), {"bucket_id": bucket_id, "job": job, "demanded_job": demanded})

    await database.write(intention)
