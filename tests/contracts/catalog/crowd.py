"""A crowd of clients in a process of its own, to be killed in the middle: `python -m tests.contracts.catalog.crowd '<json>'`.

Every step is one line of JSON in a file, appended before the next step begins, so that a kill loses none that was taken.
Times are the machine's monotonic clock, comparable between processes.

locks   each client acquires, stays inside for a moment, releases, again and again
counts  each client adds one to a shared counter with `if_version`, again and again
"""

import asyncio
import json
import os
import sys
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio

from maand_contracts.catalog.v1 import kv_pb2, semaphore_pb2
from maand_contracts.catalog.v1.kv_pb2_grpc import KvServiceStub
from maand_contracts.catalog.v1.semaphore_pb2_grpc import SemaphoreServiceStub
from maand_wire.channels import OPTIONS, bearer_header
from maand_wire.errors import RemoteError, remote_errors

BROKEN = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED, grpc.StatusCode.UNKNOWN})
"""A catalog was killed: try the next one. Whether the call took effect is not known."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """What a crowd does."""

    kind: str
    addresses: list[str]
    log: str
    rounds: int
    bucket_id: str = ""
    capacity: int = 1
    hooks: list[tuple[str, str]] = field(default_factory=list)
    """Invocation id and token of each client."""


class Client:
    """One client: a channel to each catalog, of which it uses one until that breaks."""

    def __init__(self, task: Task, number: int, log: int) -> None:
        self.task = task
        self._log = log
        self._channels = [grpc.aio.insecure_channel(address, options=OPTIONS) for address in task.addresses]
        self._at = number
        self.invocation, self._token = task.hooks[number] if task.hooks else (str(number), "")

    async def lock(self) -> None:
        """Acquire, stay inside, release, as many times as asked."""
        for _ in range(self.task.rounds):
            request = semaphore_pb2.AcquireRequest(
                name="ddl", capacity=self.task.capacity, timeout_seconds=600, request_id=str(uuid.uuid4())
            )
            granted = await self._call(SemaphoreServiceStub, "Acquire", request)
            self._say("enter", token=granted.fencing_token)
            await asyncio.sleep(0.002)
            self._say("exit", token=granted.fencing_token)
            await self._release()

    async def _release(self) -> None:
        try:
            await self._call(SemaphoreServiceStub, "Release", semaphore_pb2.ReleaseRequest(name="ddl"))
        except Refused as error:
            if error.tries == 1 or error.code != "semaphore_not_held":
                self._say("lost", code=error.code)

    async def count(self) -> None:
        """Add one to the counter, as many times as asked."""
        for _ in range(self.task.rounds):
            while not await self._add_one():
                pass
            self._say("added")

    async def _add_one(self) -> bool:
        entry = (await self._call(KvServiceStub, "Get", kv_pb2.GetRequest(**counter(self.task.bucket_id)))).entry
        put = kv_pb2.PutRequest(
            **counter(self.task.bucket_id),
            value=str(int(entry.value) + 1),
            precondition=kv_pb2.Precondition(if_version=entry.version),
            request_id=str(uuid.uuid4()),
        )
        try:
            await self._call(KvServiceStub, "Put", put)
        except Refused as error:
            if error.code != "kv_precondition_lost":
                raise
            return False
        return True

    async def _call(self, stub: Callable[[grpc.aio.Channel], Any], method: str, request: Any) -> Any:
        """Call until a catalog answers; `Refused` when it says no."""
        metadata = [bearer_header(self._token)] if self._token else []
        tries = 0
        while True:
            tries += 1
            try:
                with remote_errors():
                    return await getattr(stub(self._channels[self._at % len(self._channels)]), method)(request, metadata=metadata)
            except RemoteError as error:
                if error.status not in BROKEN:
                    raise Refused(error.code, tries) from error
                self._at += 1
                await asyncio.sleep(0.05)

    def _say(self, what: str, **more: Any) -> None:
        line = {"what": what, "at": time.monotonic(), "who": self.invocation, **more}
        os.write(self._log, (json.dumps(line) + "\n").encode())


class Refused(Exception):
    """A catalog refused, after so many tries."""

    def __init__(self, code: str, tries: int) -> None:
        super().__init__(f"{code} after {tries} tries")
        self.code = code
        self.tries = tries


def counter(bucket_id: str) -> dict[str, Any]:
    """Return where the shared counter is."""
    return {"bucket_id": bucket_id, "namespace": "vars/job/api", "key": "counter"}


async def run(task: Task, clients: int) -> None:
    """Let all clients work at once."""
    log = os.open(task.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    crowd = [Client(task, number, log) for number in range(clients)]
    await asyncio.gather(*(client.lock() if task.kind == "locks" else client.count() for client in crowd))


if __name__ == "__main__":
    options = json.loads(sys.argv[1])
    number_of_clients = options.pop("clients")
    asyncio.run(run(Task(**options), number_of_clients))
