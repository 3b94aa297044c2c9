"""KvService: versioned text by namespace and key."""

from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from functools import partial
from typing import Any

from maand_catalog.rpc.callers import caller_of, require_role
from maand_catalog.rpc.kv_access import Admission, asked_write, bucket_of, check_names
from maand_catalog.rpc.requests import asked_page, checked_id, page_token
from maand_catalog.rules.identity import Caller, HookCaller, Role
from maand_catalog.rules.kv_writes import KeyNotFound, Write
from maand_catalog.rules.namespaces import check_namespace, is_private_key, is_secret, secret_namespace, variables_namespace
from maand_catalog.rules.policy import Act, PolicyContext, decide_access
from maand_catalog.store.fleet.views import NamespaceContent, read_views
from maand_catalog.store.kv import entries as store
from maand_catalog.store.kv.batched_store import KvStore
from maand_catalog.store.kv.entries import Entry
from maand_catalog.store.kv.ledger import kv_topic
from maand_contracts.catalog.v1 import kv_pb2 as pb
from maand_contracts.catalog.v1.kv_pb2_grpc import KvServiceServicer
from maand_wire.channels import REVISION_HEADER
from maand_wire.conversions import message_writer

WATCH_LOOKS_EVERY = timedelta(seconds=30)
"""A quiet watch looks this often without being woken."""

CONTENT_BYTES = 4 * 1024 * 1024
"""Values in one message of a view's content at most, far below the largest message."""


class KvServicer(KvServiceServicer):
    """Reads and writes entries. Hooks go by the policy table, people and services by their role."""

    def __init__(self, kv: KvStore) -> None:
        self._kv = kv
        self._database = kv.database
        self._admission = Admission(kv.database)

    async def Put(self, request: pb.PutRequest, context: Any) -> pb.PutResponse:
        """Write one value."""
        caller = caller_of(context)
        write = asked_write(caller, request, "put", value=request.value)
        await self._admission.admit(caller, Act.WRITE, write.bucket_id, write.namespace, write.key)
        await self._admission.check_rollout_order(caller, request)
        written = await self._kv.write(write)
        return pb.PutResponse(version=written.version, revision=written.revision)

    async def Get(self, request: pb.GetRequest, context: Any) -> pb.GetResponse:
        """Read one value; a hook reads secrets decrypted."""
        caller = caller_of(context)
        bucket_id = bucket_of(caller, request.bucket_id)
        check_names(request.namespace, request.key)
        await self._admission.admit(caller, Act.READ, bucket_id, request.namespace, request.key)
        entry = await self._kv.get(bucket_id, request.namespace, request.key, request.version)
        response = pb.GetResponse(entry=entry_message(entry))
        if entry.sealed is not None and isinstance(caller, HookCaller):
            response.secret_value = entry.text(self._kv.keyring)
        return response

    async def Delete(self, request: pb.DeleteRequest, context: Any) -> pb.DeleteResponse:
        """Write a tombstone."""
        caller = caller_of(context)
        write = asked_write(caller, request, "delete", value=None)
        await self._admission.admit(caller, Act.DELETE, write.bucket_id, write.namespace, write.key)
        return pb.DeleteResponse(version=(await self._kv.write(write)).version)

    async def ListKeys(self, request: pb.ListKeysRequest, context: Any) -> pb.ListKeysResponse:
        """List keys of one namespace, or of a hook's own variables and secrets."""
        caller = caller_of(context)
        bucket_id = bucket_of(caller, request.bucket_id)
        namespaces = [request.namespace]
        if isinstance(caller, HookCaller) and not request.namespace:
            namespaces = sorted((variables_namespace(caller.job), secret_namespace(caller.job)))
        page = asked_page(request, str, str, usual=10_000, most=10_000)
        found: list[tuple[str, str]] = []
        for namespace in namespaces:
            check_namespace(namespace)
            await self._admission.admit(caller, Act.LIST, bucket_id, namespace)
            if page.after is None or page.after[0] <= namespace:
                after = page.after[1:] if page.after and page.after[0] == namespace else None
                keys = await self._database.read(partial(store.list_keys, bucket_id=bucket_id, namespace=namespace, after=after))
                found += [(namespace, key) for key in shown_keys(caller, namespace, keys)]
        shown, more = page.cut(found, lambda last: last)
        return pb.ListKeysResponse(
            namespaces=[
                pb.NamespaceKeys(namespace=namespace, keys=[key for place, key in shown if place == namespace])
                for namespace in namespaces
            ],
            next_page_token=more,
        )

    async def ListEntries(self, request: pb.ListEntriesRequest, context: Any) -> pb.ListEntriesResponse:
        """List entries below a prefix, without secrets."""
        bucket_id = self._bucket_for_viewer(request.bucket_id, context)
        page = asked_page(request, str, str, usual=1_000)
        prefix = request.namespace_prefix.removesuffix("/")
        entries, more = await self._database.read(
            lambda tx: store.list_entries(tx, bucket_id, prefix, limit=page.limit, after=page.after)
        )
        token = page_token((entries[-1].namespace, entries[-1].key)) if more else ""
        return pb.ListEntriesResponse(entries=map(entry_message, entries), next_page_token=token)

    async def ListVersions(self, request: pb.ListVersionsRequest, context: Any) -> pb.ListVersionsResponse:
        """List the versions of one key, newest first; those of a secret without values."""
        bucket_id = self._bucket_for_viewer(request.bucket_id, context)
        check_names(request.namespace, request.key)
        page = asked_page(request, int, usual=100)
        before = page.after[0] if page.after else None
        entries, more = await self._database.read(
            lambda tx: store.list_versions(tx, bucket_id, request.namespace, request.key, limit=page.limit, before=before)
        )
        if not entries and before is None:
            raise KeyNotFound(request.namespace, request.key)
        token = page_token((entries[-1].version,)) if more else ""
        return pb.ListVersionsResponse(entries=map(entry_message, entries), next_page_token=token)

    async def Restore(self, request: pb.RestoreRequest, context: Any) -> pb.RestoreResponse:
        """Write an older version's value as the newest."""
        caller = require_role(context, Role.OPERATOR)
        bucket_id, secret = checked_id(request.bucket_id, "bucket_id"), is_secret(request.namespace, request.key)
        check_names(request.namespace, request.key)
        act = Act.WRITE_SECRET if secret else Act.WRITE
        await self._admission.admit(caller, act, bucket_id, request.namespace, request.key)
        old = await self._kv.get(bucket_id, request.namespace, request.key, request.version)
        write = Write(
            bucket_id=bucket_id,
            namespace=old.namespace,
            key=old.key,
            value=old.text(self._kv.keyring),
            secret=secret,
            writer=caller.name,
        )
        return pb.RestoreResponse(version=(await self._kv.write(write)).version)

    async def Watch(self, request: pb.WatchRequest, context: Any) -> AsyncIterator[pb.WatchResponse]:
        """Stream changes in revision order. The headers come when the watch stands: what is written from then on is told."""
        bucket_id, prefix = self._bucket_for_viewer(request.bucket_id, context), request.namespace_prefix.removesuffix("/")
        told = request.after_revision or await self._database.read(lambda tx: store.read_revision(tx, bucket_id))
        with self._database.bus.subscribe(kv_topic(bucket_id)) as changed:
            await context.send_initial_metadata(((REVISION_HEADER, str(told)),))
            while True:
                after = told
                entries, told = await self._database.read(
                    lambda tx, after=after: store.list_changes(tx, bucket_id, prefix, after)  # type: ignore[misc]
                )
                for entry in entries:
                    yield pb.WatchResponse(revision=entry.revision, entry=entry_message(entry))
                if told == after:
                    await changed.wait(WATCH_LOOKS_EVERY)

    async def ReadAllocationViews(
        self, request: pb.ReadAllocationViewsRequest, context: Any
    ) -> AsyncIterator[pb.ReadAllocationViewsResponse]:
        """Return everything that hooks of these allocations may read, each namespace once."""
        require_role(context, Role.EXECUTOR)
        bucket_id, ids = checked_id(request.bucket_id, "bucket_id"), list(request.allocation_ids)
        contents, views = await self._database.read(lambda tx: read_views(tx, self._kv.keyring, bucket_id, ids))
        for content in contents:
            for part in parts_of(content):
                yield pb.ReadAllocationViewsResponse(content=part)
        for view in views:
            yield pb.ReadAllocationViewsResponse(
                view=pb.AllocationView(allocation_id=view.allocation_id, namespaces=view.namespaces)
            )

    def _bucket_for_viewer(self, bucket_id: str, context: Any) -> str:
        require_role(context, Role.VIEWER)
        return checked_id(bucket_id, "bucket_id")


def shown_keys(caller: Caller, namespace: str, keys: list[str]) -> list[str]:
    """Leave out the private keys of a hook's peers."""
    if not isinstance(caller, HookCaller):
        return keys
    nothing = PolicyContext()
    return [
        key
        for key in keys
        if not is_private_key(namespace, key) or decide_access(caller, Act.READ, namespace, key, nothing) is None
    ]


def parts_of(content: NamespaceContent) -> Iterator[pb.NamespaceContent]:
    """Cut one namespace's content into messages of a sane size."""
    part, size = pb.NamespaceContent(namespace=content.namespace, secret=content.secret), 0
    for key, value in content.values.items():
        if size > CONTENT_BYTES:
            yield part
            part, size = pb.NamespaceContent(namespace=content.namespace, secret=content.secret), 0
        part.values[key] = value
        size += len(key) + len(value)
    yield part


entry_message = message_writer(pb.Entry, Entry, value=lambda entry: entry.value or "", deleted=lambda entry: entry.is_tombstone)
"""An entry; the value of a secret is left out."""
