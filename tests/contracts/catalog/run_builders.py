"""Runs and what they need, with good defaults."""

import uuid
from datetime import UTC, datetime

from sqlalchemy import insert

from maand_catalog.database.database import Database, Transaction
from maand_catalog.store.tables.buckets import buckets
from maand_catalog.store.tables.fleet import allocations
from maand_contracts.catalog.v1 import run_event_pb2 as events
from maand_contracts.catalog.v1 import run_pb2 as pb
from maand_contracts.catalog.v1 import run_spec_pb2 as specs

DEPLOY = specs.RunSpec(deploy=specs.DeploySpec())
BUILD = specs.RunSpec(build=specs.BuildSpec(snapshot_id="s1"))
COMMAND = specs.RunSpec(run_command=specs.RunCommandSpec(command="uptime"))
HOOKS = specs.RunSpec(hooks=specs.HooksSpec(hook="hook_x"))
HEALTH = specs.RunSpec(health_check=specs.HealthCheckSpec())
NOWHERE = "00000000-0000-0000-0000-000000000000"


def a_create(bucket_id: str, spec: specs.RunSpec = DEPLOY, **fields: object) -> pb.CreateRunRequest:
    return pb.CreateRunRequest(bucket_id=bucket_id, spec=spec, requested_by="ada@laptop", **fields)  # type: ignore[arg-type]


def an_output(*lines: str) -> events.RunEvent:
    event = events.RunEvent(job="api", worker="10.0.0.1")
    event.time.FromDatetime(datetime(2026, 1, 2, tzinfo=UTC))
    event.output.step, event.output.stream = "start", events.OUTPUT_STREAM_STDOUT
    event.output.lines.extend(lines)
    return event


def finished(message: str = "done") -> events.RunEvent:
    return events.RunEvent(run_finished=events.RunFinished(result=events.RunResult(message=message)))


async def a_bucket(database: Database) -> str:
    """Make a bucket as ApplyBucketConfig would, and return its id."""
    bucket_id = str(uuid.uuid4())
    row = {"bucket_id": bucket_id, "created_at": datetime.now(UTC), "maand_conf": b"", "config_sha256": bytes(32)}
    await database.write(lambda tx: tx.connection.execute(insert(buckets), row))
    return bucket_id


async def an_allocation(database: Database, bucket_id: str, *, job: str = "api", worker: str = "10.0.0.1") -> str:
    """Make an allocation as a build would, and return its id."""
    allocation_id = str(uuid.uuid4())

    def intention(tx: Transaction) -> None:
        row = {
            "bucket_id": bucket_id,
            "allocation_id": allocation_id,
            "job": job,
            "worker": worker,
            "position": 0,
            "removed": False,
            "disabled": False,
            "current_version": "0.0.0",
            "new_version": "1.0.0",
            "deployed_sha256": b"",
            "target_sha256": bytes(32),
            "promoted_target_sha256": b"",
            "state": "planned",
            "state_since": tx.now,
            "message": "",
            "run_id": "",
            "post_deploy_owed": False,
            "moves": 0,
        }
        tx.connection.execute(insert(allocations), row)

    await database.write(intention)
    return allocation_id
