"""Semaphores: held by hooks, looked at by viewers, taken away by operators.

A slot belongs to a hook invocation, so that it can never leak: it is free again when the invocation ends in whatever way, or its
executor's lease lapses. A service that is no hook has nothing of that kind to bind a slot to, and the catalog refuses it one;
where such a service needs mutual exclusion, a KV entry written with `if_absent` and a `ttl` is the lease to use.
"""

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta

from maand_client.calls import Calls
from maand_client.errors import FailedPrecondition, Unavailable
from maand_client.specs import whole_seconds
from maand_contracts.catalog.v1 import job_pb2
from maand_contracts.catalog.v1 import semaphore_pb2 as pb
from maand_contracts.catalog.v1.semaphore_pb2_grpc import SemaphoreServiceStub
from maand_wire.conversions import message_reader
from maand_wire.enums import enum_number

USUAL_WAIT = timedelta(minutes=10)
"""The contract's own default."""
ANSWER_TIME = timedelta(seconds=15)
"""How much longer than the wait itself its answer may take."""


@dataclass(frozen=True, kw_only=True)
class Grant:
    """A slot that is held. The fencing token is larger than that of every earlier grant of this semaphore."""

    name: str
    fencing_token: int
    capacity: int
    allocation_id: str


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One hook invocation in a semaphore, holding or waiting."""

    invocation_id: str
    allocation_id: str
    worker: str
    run_id: str
    since: datetime
    fencing_token: int


@dataclass(frozen=True, kw_only=True)
class Semaphore:
    """One lock with everyone in it: holders by fencing token, waiters in order."""

    job: str
    event: str
    name: str
    capacity: int
    available: int
    holders: tuple[Claim, ...]
    waiters: tuple[Claim, ...]


class Semaphores:
    """The semaphores of one bucket."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._stub = SemaphoreServiceStub(calls.channel)

    @asynccontextmanager
    async def held(self, name: str, *, capacity: int = 1, wait: timedelta = USUAL_WAIT) -> AsyncIterator[Grant]:
        """Hold a slot of the calling hook's semaphore while the block runs. For a client with a hook's token.

        Waits at most `wait` (up to an hour), first come, first served: TimedOut. FailedPrecondition when another capacity is in
        force; PermissionDenied for a caller that is no hook. After the block, FailedPrecondition when an operator took the slot
        away meanwhile: what the block did was not protected to its end.
        """
        request = pb.AcquireRequest(
            name=name, capacity=capacity, timeout_seconds=max(whole_seconds(wait), 1), request_id=str(uuid.uuid4())
        )
        granted = await self._calls.repeated(self._stub.Acquire, request, limit=wait + ANSWER_TIME)
        try:
            yield Grant(
                name=name,
                fencing_token=granted.fencing_token,
                capacity=granted.capacity,
                allocation_id=granted.allocation_id,
            )
        finally:
            await self._release(name)

    async def _release(self, name: str) -> None:
        request = pb.ReleaseRequest(name=name)
        try:
            await self._calls.once(self._stub.Release, request)
        except Unavailable:  # whether it was given back nobody knows; "you hold none" then means yes
            with suppress(FailedPrecondition):
                await self._calls.repeated(self._stub.Release, request)

    async def status(self, job: str, event: str, name: str) -> Semaphore:
        """Tell who holds and who waits. For viewers; a hook leaves job and event empty for its own."""
        request = pb.GetStatusRequest(
            bucket_id=self._calls.bucket_id, job=job, event=enum_number(job_pb2.HookEvent, event), name=name
        )
        return semaphore_from_message((await self._calls.repeated(self._stub.GetStatus, request)).semaphore)

    async def in_use(self) -> tuple[Semaphore, ...]:
        """Return the semaphores somebody is in. For viewers."""
        request = pb.ListSemaphoresRequest(bucket_id=self._calls.bucket_id)
        return tuple(map(semaphore_from_message, await self._calls.listed(self._stub.ListSemaphores, request, "semaphores")))

    async def force_release(self, job: str, event: str, name: str, *, allocation_id: str = "") -> tuple[Claim, ...]:
        """Take a slot away from its holder; it is audited. For operators. Not repeated: the next holder's slot is another one.

        Without `allocation_id` the only holder's; FailedPrecondition when there are several, NotFound when there is none.
        """
        request = pb.ForceReleaseRequest(
            bucket_id=self._calls.bucket_id,
            job=job,
            event=enum_number(job_pb2.HookEvent, event),
            name=name,
            allocation_id=allocation_id,
        )
        return tuple(map(claim_from_message, (await self._calls.once(self._stub.ForceRelease, request)).released))


claim_from_message = message_reader(Claim, pb.Claim)
semaphore_from_message = message_reader(Semaphore, pb.Semaphore)
