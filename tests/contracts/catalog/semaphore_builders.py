"""Running hooks for semaphore tests: a run under a lease, and invocations of it."""

import uuid
from datetime import timedelta

from sqlalchemy import insert, update

from maand_catalog.database.clock import LONGEST_LEASE
from maand_catalog.database.database import Database
from maand_catalog.database.transaction import Transaction
from maand_catalog.rules.identity import InvocationEnd, InvocationOutcome
from maand_catalog.rules.runs import RunKind, RunState
from maand_catalog.rules.semaphores import Scope
from maand_catalog.store.runs.invocation_ends import end_given_invocations
from maand_catalog.store.semaphores.slots import SlotRequest
from maand_catalog.store.tables.identity import invocations
from maand_catalog.store.tables.runs import runs

LONG_LEASE = 2 * LONGEST_LEASE - timedelta(seconds=1)
"""Beside upkeep, where nobody renews it: a longer one would be cut down as what a clock left that jumped."""


async def a_running_run(database: Database, bucket_id: str, *, lease: timedelta = timedelta(hours=1)) -> str:
    """Make a run that an executor holds with fence 1, and return its id."""
    run_id = str(uuid.uuid4())

    def intention(tx: Transaction) -> None:
        row = {
            "run_id": run_id,
            "bucket_id": bucket_id,
            "seq": int(uuid.UUID(run_id)) % 10**15,
            "kind": RunKind.HOOKS,
            "spec": b"",
            "state": RunState.RUNNING,
            "message": "",
            "requested_by": "ada@laptop",
            "created_at": tx.now,
            "executor_id": "e1",
            "lease_until": tx.now + lease,
            "fence": 1,
            "cancel": 0,
            "last_sequence": 0,
            "result": b"",
            "parent_run_id": "",
            "sealed_hook_env": b"",
            "hook_env_key_id": "",
            "steps": 0,
            "trimmed": False,
        }
        tx.connection.execute(insert(runs), row)

    await database.write(intention)
    return run_id


async def change_run(database: Database, run_id: str, **values: object) -> None:
    """Change a run behind everybody's back."""
    await database.write(lambda tx: tx.connection.execute(update(runs).where(runs.c.run_id == run_id).values(values)))


class Hooks:
    """Invocations of one run, and what they ask for."""

    def __init__(self, database: Database, bucket_id: str, run_id: str) -> None:
        self.database = database
        self.bucket_id = bucket_id
        self.run_id = run_id

    @classmethod
    async def of_a_new_run(cls, database: Database, bucket_id: str) -> "Hooks":
        return cls(database, bucket_id, await a_running_run(database, bucket_id))

    def scope(self, name: str = "ddl") -> Scope:
        return Scope(bucket_id=self.bucket_id, job="api", event="pre_deploy", name=name)

    async def begin(self, count: int) -> list[str]:
        """Begin invocations and return their ids."""
        ids = [str(uuid.uuid4()) for _ in range(count)]

        def intention(tx: Transaction) -> None:
            rows = [
                {
                    "invocation_id": invocation_id,
                    "bucket_id": self.bucket_id,
                    "run_id": self.run_id,
                    "fence": 1,
                    "job": "api",
                    "allocation_id": f"{number:036}",
                    "worker": f"10.0.0.{number}",
                    "hook": "hook_x",
                    "event": "pre_deploy",
                    "token_sha256": uuid.UUID(invocation_id).bytes * 2,
                    "begun_at": tx.now,
                }
                for number, invocation_id in enumerate(ids)
            ]
            tx.connection.execute(insert(invocations), rows)

        await self.database.write(intention)
        return ids

    async def end(self, *ids: str) -> None:
        """End invocations, as the executor does when their processes ended."""
        ends = [InvocationEnd(invocation_id=each, outcome=InvocationOutcome.SUCCEEDED) for each in ids]
        await self.database.write(lambda tx: end_given_invocations(tx, self.bucket_id, ends))

    def ask(self, invocation_id: str, *, name: str = "ddl", capacity: int = 1, request_id: str = "") -> SlotRequest:
        return SlotRequest(
            scope=self.scope(name),
            capacity=capacity,
            invocation_id=invocation_id,
            allocation_id=f"allocation of {invocation_id}"[:36],
            worker="10.0.0.1",
            run_id=self.run_id,
            request_id=request_id,
        )
