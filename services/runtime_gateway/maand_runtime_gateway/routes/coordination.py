"""Routes by which hooks agree with each other: demands and semaphores."""

import json

from maand_contracts.catalog.v1 import job_pb2, semaphore_pb2
from maand_runtime_gateway.models import Demand, Empty, Nothing, SemaphoreAcquire, SemaphoreGrant, SemaphoreNamed, SemaphoreState
from maand_runtime_gateway.upstream import Caller, Upstream


async def list_demands(upstream: Upstream, caller: Caller, _fields: Nothing) -> list[Demand]:
    """List who demands the calling hook; which hook that is, the catalog knows from the token."""
    listed = await upstream.pages(upstream.jobs.ListHookDemands, job_pb2.ListHookDemandsRequest(), "demands", caller)
    return [
        Demand(job=demand.job, hook=demand.hook, demand_config=json.loads(demand.demand_config_json or "{}")) for demand in listed
    ]


async def acquire_slot(upstream: Upstream, caller: Caller, fields: SemaphoreAcquire) -> SemaphoreGrant:
    """Wait for a slot."""
    request = semaphore_pb2.AcquireRequest(
        name=fields.name,
        capacity=fields.capacity,
        timeout_seconds=fields.timeout_seconds,
        request_id=caller.request_id,
    )
    grant = await upstream.call(upstream.semaphores.Acquire, request, caller, own_timeout=fields.timeout_seconds)
    return SemaphoreGrant(
        name=fields.name,
        allocation_id=grant.allocation_id,
        capacity=grant.capacity,
        fencing_token=grant.fencing_token,
    )


async def release_slot(upstream: Upstream, caller: Caller, fields: SemaphoreNamed) -> Empty:
    """Give the slot back."""
    await upstream.call(upstream.semaphores.Release, semaphore_pb2.ReleaseRequest(name=fields.name), caller)
    return Empty()


async def show_semaphore(upstream: Upstream, caller: Caller, fields: SemaphoreNamed) -> SemaphoreState:
    """Tell who is in a semaphore."""
    answer = await upstream.call(upstream.semaphores.GetStatus, semaphore_pb2.GetStatusRequest(name=fields.name), caller)
    found = answer.semaphore
    return SemaphoreState(
        name=fields.name,
        capacity=found.capacity,
        holders=[claim.allocation_id for claim in found.holders],
        waiting=len(found.waiters),
        available=found.available,
    )
