"""Routes by which hooks agree with each other: demands and semaphores."""

import json
import time

from maand_contracts.catalog.v1 import job_pb2, semaphore_pb2
from maand_runtime_gateway.models import Demand, Empty, Nothing, SemaphoreAcquire, SemaphoreGrant, SemaphoreNamed, SemaphoreState
from maand_runtime_gateway.upstream import Caller, Upstream
from maand_wire.errors import RemoteError

NOT_HELD = "semaphore_not_held"
"""The catalog's code for a slot that is given back and not held."""


async def list_demands(upstream: Upstream, caller: Caller, _fields: Nothing) -> list[Demand]:
    """List who demands the calling hook; which hook that is, the catalog knows from the token."""
    listed = await upstream.pages(upstream.jobs.ListHookDemands, job_pb2.ListHookDemandsRequest(), "demands", caller)
    return [
        Demand(job=demand.job, hook=demand.hook, demand_config=json.loads(demand.demand_config_json or "{}")) for demand in listed
    ]


async def acquire_slot(upstream: Upstream, caller: Caller, fields: SemaphoreAcquire) -> SemaphoreGrant:
    """Wait for a slot. When the catalog goes away meanwhile, the same request takes its place again, for the time left."""
    gives_up = time.monotonic() + fields.timeout_seconds
    request_id = caller.repeat_id

    async def attempt() -> semaphore_pb2.AcquireResponse:
        seconds_left = max(1, round(gives_up - time.monotonic()))
        request = semaphore_pb2.AcquireRequest(
            name=fields.name, capacity=fields.capacity, timeout_seconds=seconds_left, request_id=request_id
        )
        return await upstream.call(upstream.semaphores.Acquire, request, caller, own_timeout=seconds_left)

    grant = await upstream.while_away(attempt)
    return SemaphoreGrant(
        name=fields.name,
        allocation_id=grant.allocation_id,
        capacity=grant.capacity,
        fencing_token=grant.fencing_token,
    )


async def release_slot(upstream: Upstream, caller: Caller, fields: SemaphoreNamed) -> Empty:
    """Give the slot back. A repeat that finds it no longer held comes after one that gave it back and got no answer."""
    request = semaphore_pb2.ReleaseRequest(name=fields.name)
    attempts = 0

    async def attempt() -> None:
        nonlocal attempts
        attempts += 1
        try:
            await upstream.call(upstream.semaphores.Release, request, caller)
        except RemoteError as error:
            if attempts == 1 or error.code != NOT_HELD:
                raise

    await upstream.while_away(attempt)
    return Empty()


async def show_semaphore(upstream: Upstream, caller: Caller, fields: SemaphoreNamed) -> SemaphoreState:
    """Tell who is in a semaphore."""
    answer = await upstream.call_catalog(upstream.semaphores.GetStatus, semaphore_pb2.GetStatusRequest(name=fields.name), caller)
    found = answer.semaphore
    return SemaphoreState(
        name=fields.name,
        capacity=found.capacity,
        holders=[claim.allocation_id for claim in found.holders],
        waiting=len(found.waiters),
        available=found.available,
    )
