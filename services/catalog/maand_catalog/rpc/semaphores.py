"""SemaphoreService: locks across allocations. A hook's scope comes from its token."""

from typing import Any

from maand_catalog.database.database import Database
from maand_catalog.database.transaction import Transaction
from maand_catalog.errors import InvalidArgument
from maand_catalog.rpc.callers import caller_of, require_hook, require_role
from maand_catalog.rpc.identification import IdentityMismatch
from maand_catalog.rpc.kv_access import bucket_of, request_key
from maand_catalog.rpc.requests import asked_page, checked_id, checked_word
from maand_catalog.rules.identity import HookCaller, Role
from maand_catalog.rules.semaphores import Claim, Scope, Semaphore, check_semaphore_name, checked_capacity, checked_timeout
from maand_catalog.serving.semaphore_waiters import SemaphoreWaiters
from maand_catalog.store.semaphores import slots as store
from maand_catalog.store.semaphores.slots import SlotRequest
from maand_catalog.store.tokens import record_audit
from maand_contracts.catalog.v1 import job_pb2
from maand_contracts.catalog.v1 import semaphore_pb2 as pb
from maand_contracts.catalog.v1.semaphore_pb2_grpc import SemaphoreServiceServicer
from maand_wire.conversions import message_writer
from maand_wire.enums import enum_number, enum_word


class SemaphoreServicer(SemaphoreServiceServicer):
    """Lets hooks acquire and release, and everybody look."""

    def __init__(self, database: Database, room: SemaphoreWaiters) -> None:
        self._database = database
        self._room = room

    async def Acquire(self, request: pb.AcquireRequest, context: Any) -> pb.AcquireResponse:
        """Block until a slot is granted, the time is over, or the caller is gone."""
        caller = require_hook(context)
        ask = SlotRequest(
            scope=scope_of(caller, request.name),
            capacity=checked_capacity(request.capacity),
            invocation_id=caller.invocation_id,
            allocation_id=caller.allocation_id,
            worker=caller.worker,
            run_id=caller.run_id,
            request_id=request_key(caller, "acquire", request.request_id),
        )
        granted = await self._room.acquire(ask, checked_timeout(request.timeout_seconds))
        return pb.AcquireResponse(
            fencing_token=granted.fencing_token, capacity=granted.capacity, allocation_id=caller.allocation_id
        )

    async def Release(self, request: pb.ReleaseRequest, context: Any) -> pb.ReleaseResponse:
        """Give the slot back."""
        caller = require_hook(context)
        scope = scope_of(caller, request.name)
        await self._database.write(lambda tx: store.release_slot(tx, scope, caller.invocation_id))
        return pb.ReleaseResponse()

    async def GetStatus(self, request: pb.GetStatusRequest, context: Any) -> pb.GetStatusResponse:
        """Tell who holds and who waits."""
        scope = scope_asked_for(request, context)
        semaphore = await self._database.read(lambda tx: store.get_semaphore(tx, scope))
        return pb.GetStatusResponse(semaphore=semaphore_message(semaphore))

    async def ListSemaphores(self, request: pb.ListSemaphoresRequest, context: Any) -> pb.ListSemaphoresResponse:
        """List the semaphores in use."""
        require_role(context, Role.VIEWER)
        bucket_id, page = checked_id(request.bucket_id, "bucket_id"), asked_page(request, str, str, str, usual=1_000)
        used = await self._database.read(lambda tx: store.list_semaphores(tx, bucket_id, after=page.after, limit=page.limit + 1))
        found, more = page.cut(used, lambda last: (last.scope.job, last.scope.event, last.scope.name))
        semaphores = [semaphore_message(semaphore) for semaphore in found if semaphore.claims]
        return pb.ListSemaphoresResponse(semaphores=semaphores, next_page_token=more)

    async def ForceRelease(self, request: pb.ForceReleaseRequest, context: Any) -> pb.ForceReleaseResponse:
        """Take a slot away from a holder."""
        caller = require_role(context, Role.OPERATOR)
        scope = named_scope(request)
        taken = await self._database.write(lambda tx: take_away(tx, scope, request.allocation_id, actor=caller.name))
        return pb.ForceReleaseResponse(released=map(claim_message, taken))


def take_away(tx: Transaction, scope: Scope, allocation_id: str, *, actor: str) -> list[Claim]:
    """Take slots away and note who did it to whom."""
    taken = store.force_slot_free(tx, scope, allocation_id)
    for claim in taken:
        subject = f"{scope.job} {scope.event} {scope.name} from {claim.worker}, token {claim.ticket} (run {claim.run_id})"
        record_audit(tx, actor=actor, action="semaphore.force_release", subject=subject, bucket_id=scope.bucket_id)
    return taken


def scope_of(caller: HookCaller, name: str) -> Scope:
    """Return the scope of a hook's semaphore."""
    check_semaphore_name(name)
    return Scope(bucket_id=caller.bucket_id, job=caller.job, event=caller.event, name=name)


def scope_asked_for(request: pb.GetStatusRequest, context: Any) -> Scope:
    """Return a hook's own scope, or the one that a person names."""
    caller = caller_of(context)
    if not isinstance(caller, HookCaller):
        require_role(context, Role.VIEWER)
        return named_scope(request)
    bucket_of(caller, request.bucket_id)
    if request.job not in ("", caller.job) or enum_word(job_pb2.HookEvent, request.event) not in ("", caller.event):
        raise IdentityMismatch("a hook sees the semaphores of its own job and event only")
    return scope_of(caller, request.name)


def named_scope(request: pb.GetStatusRequest | pb.ForceReleaseRequest) -> Scope:
    """Read a scope that is named in full."""
    check_semaphore_name(request.name)
    if not request.job or not request.event:
        raise InvalidArgument("job and event are missing: they are part of a semaphore's name")
    event = checked_word(job_pb2.HookEvent, request.event, "event")
    return Scope(bucket_id=checked_id(request.bucket_id, "bucket_id"), job=request.job, event=event, name=request.name)


def semaphore_message(semaphore: Semaphore) -> pb.Semaphore:
    """Describe a semaphore."""
    return pb.Semaphore(
        job=semaphore.scope.job,
        event=enum_number(job_pb2.HookEvent, semaphore.scope.event),
        name=semaphore.scope.name,
        capacity=semaphore.capacity,
        holders=map(claim_message, semaphore.holders),
        waiters=map(claim_message, semaphore.waiters),
        available=semaphore.available,
    )


claim_message = message_writer(pb.Claim, Claim, fencing_token=lambda claim: claim.ticket)
