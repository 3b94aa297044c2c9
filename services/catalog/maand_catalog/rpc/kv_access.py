"""Admission to the KV store: the policy asked with the facts it needs, and requests turned into writes.

request + caller  ->  bucket and names checked  ->  policy  ->  kv.Write
"""

import hashlib

from maand_catalog.database.database import Database
from maand_catalog.errors import InvalidArgument, PermissionDenied
from maand_catalog.rpc.identification import IdentityMismatch
from maand_catalog.rpc.requests import checked_id, checked_text
from maand_catalog.rules.identity import Caller, HookCaller
from maand_catalog.rules.kv_writes import Precondition, Write, checked_ttl
from maand_catalog.rules.namespaces import ROLLOUT_ORDER, check_key, check_namespace, check_value
from maand_catalog.rules.policy import Act, Denied, PolicyContext, decide_access, demanded_job_of
from maand_catalog.store.fleet.views import find_active_workers, find_demanded_jobs
from maand_contracts.catalog.v1 import kv_pb2 as pb
from maand_contracts.catalog.v1 import secret_pb2

DeleteRequest = pb.DeleteRequest | secret_pb2.DeleteSecretRequest
WriteRequest = pb.PutRequest | secret_pb2.PutSecretRequest | DeleteRequest

LONGEST_REQUEST_ID = 256


class Admission:
    """Decides who may do what, with the facts of the bucket."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def admit(self, caller: Caller, act: Act, bucket_id: str, namespace: str, key: str = "") -> None:
        """Let the caller do this, or raise `PermissionDenied`."""
        context = PolicyContext()
        if isinstance(caller, HookCaller) and demanded_job_of(namespace) not in (None, caller.job):
            job = caller.job
            demanded = await self._database.read(lambda tx: find_demanded_jobs(tx, bucket_id, job))
            context = PolicyContext(demanded_jobs=frozenset(demanded))
        denied = decide_access(caller, act, namespace, key, context)
        if denied is not None:
            raise access_denied(denied)

    async def check_rollout_order(self, caller: Caller, request: pb.PutRequest) -> None:
        """Refuse a rollout order that is no permutation of the job's active workers, or that would not last."""
        if not isinstance(caller, HookCaller) or request.key != ROLLOUT_ORDER or not request.namespace.startswith("maand/"):
            return
        if request.ttl_seconds:
            raise InvalidArgument("a rollout order has no TTL: the next build resets it")
        active = await self._database.read(lambda tx: find_active_workers(tx, caller.bucket_id, caller.job))
        if sorted(request.value.split(",")) != sorted(active):
            raise InvalidArgument(
                "a rollout order names every active worker of the job once, comma-joined",
                help=f"the active workers are {','.join(active) or 'none'}",
            )


def access_denied(denied: Denied) -> PermissionDenied:
    """Turn a refusal of the policy into the error for its caller."""
    return PermissionDenied(denied.reason, help=denied.help)


def asked_write(caller: Caller, request: WriteRequest, act: str, *, value: str | None, secret: bool = False) -> Write:
    """Read a write from its request, names and value checked; a `value` of None asks for a tombstone."""
    write = Write(
        bucket_id=bucket_of(caller, request.bucket_id),
        namespace=request.namespace,
        key=request.key,
        value=value,
        secret=secret,
        ttl=None if isinstance(request, DeleteRequest) else checked_ttl(request.ttl_seconds),
        condition=condition_of(request.precondition) if request.HasField("precondition") else None,
        writer=caller.name,
        request_id=request_key(caller, act, request.request_id),
    )
    check_names(write.namespace, write.key)
    if value is not None:
        check_value(value)
    return write


def bucket_of(caller: Caller, bucket_id: str) -> str:
    """Return the bucket meant: a hook's own, or the one a person names."""
    if not isinstance(caller, HookCaller):
        return checked_id(bucket_id, "bucket_id")
    if bucket_id not in ("", caller.bucket_id):
        raise IdentityMismatch("a hook works in its own bucket only")
    return caller.bucket_id


def check_names(namespace: str, key: str) -> None:
    """Refuse names that cannot be kept."""
    check_namespace(namespace)
    check_key(key)


def condition_of(precondition: pb.Precondition) -> Precondition:
    """Read a precondition. InvalidArgument for one that says nothing: a lost field must not make a write unconditional."""
    match precondition.WhichOneof("condition"):
        case "if_version":
            return Precondition(version=precondition.if_version)
        case "if_absent" if precondition.if_absent:
            return Precondition(version=None)
        case "if_absent":
            raise InvalidArgument("if_absent is true or unset", help="use if_version for a key that is there")
        case _:
            raise InvalidArgument("the precondition is empty", help="set if_version or if_absent, or leave it out")


def request_key(caller: Caller, act: str, request_id: str) -> str:
    """Return under what a request is remembered: nobody can meet, or learn, the outcome of somebody else's."""
    if not request_id:
        return ""
    checked_text(request_id, "request_id", longest=LONGEST_REQUEST_ID)
    who = caller.invocation_id if isinstance(caller, HookCaller) else caller.name
    return hashlib.sha256(f"{who}\n{act}\n{request_id}".encode()).hexdigest()
