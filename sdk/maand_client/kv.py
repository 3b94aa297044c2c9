"""Variables: versioned text by namespace and key, written under conditions, watched through lost connections."""

import asyncio
import uuid
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from google.protobuf.timestamp_pb2 import Timestamp

from maand_client.calls import Calls
from maand_client.specs import whole_seconds
from maand_contracts.catalog.v1 import kv_pb2 as pb
from maand_contracts.catalog.v1.kv_pb2_grpc import KvServiceStub
from maand_wire.channels import REVISION_HEADER


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One version of one key. The value of a secret is never in it: see `Secrets`."""

    namespace: str
    key: str
    value: str
    version: int
    revision: int
    created_at: datetime
    expires_at: datetime | None
    writer: str
    deleted: bool


@dataclass(frozen=True, kw_only=True)
class Written:
    """A write that is durable: the version now in force, and the bucket-wide revision of it."""

    version: int
    revision: int


class Kv:
    """The KV of one bucket. Viewers read, operators write `vars/…`, a hook does what the policy table lets it."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._stub = KvServiceStub(calls.channel)

    async def get(self, namespace: str, key: str, *, version: int = 0) -> Entry:
        """Read one key, or an older version of it. NotFound when it is absent, deleted or expired."""
        request = pb.GetRequest(bucket_id=self._calls.bucket_id, namespace=namespace, key=key, version=version)
        return entry_from_message((await self._calls.repeated(self._stub.Get, request)).entry)

    async def put(
        self,
        namespace: str,
        key: str,
        value: str,
        *,
        if_version: int | None = None,
        if_absent: bool = False,
        ttl: timedelta = timedelta(),
    ) -> Written:
        """Write one value; it is durable and visible to everyone when this returns. An equal value makes no new version.

        With `if_version` (the newest version must be this one) or `if_absent`, LostRace when somebody else wrote first.
        `ttl` is how long it stays; 0 = for good. PermissionDenied, Invalid.
        """
        request = pb.PutRequest(
            bucket_id=self._calls.bucket_id,
            namespace=namespace,
            key=key,
            value=value,
            ttl_seconds=whole_seconds(ttl),
            precondition=make_write_condition(if_version=if_version, if_absent=if_absent),
            request_id=str(uuid.uuid4()),
        )
        response = await self._calls.repeated(self._stub.Put, request)
        return Written(version=response.version, revision=response.revision)

    async def delete(self, namespace: str, key: str, *, if_version: int | None = None) -> int:
        """Delete one key; return the tombstone's version. NotFound, LostRace."""
        request = pb.DeleteRequest(
            bucket_id=self._calls.bucket_id,
            namespace=namespace,
            key=key,
            precondition=make_write_condition(if_version=if_version),
            request_id=str(uuid.uuid4()),
        )
        return (await self._calls.repeated(self._stub.Delete, request)).version

    async def history(self, namespace: str, key: str, *, limit: int | None = None) -> tuple[Entry, ...]:
        """Return the versions that are kept, newest first, tombstones too. NotFound."""
        request = pb.ListVersionsRequest(bucket_id=self._calls.bucket_id, namespace=namespace, key=key)
        return tuple(map(entry_from_message, await self._calls.listed(self._stub.ListVersions, request, "entries", limit=limit)))

    async def restore(self, namespace: str, key: str, version: int) -> int:
        """Write an older version's value as the newest; return its version. NotFound. Not repeated by itself."""
        request = pb.RestoreRequest(bucket_id=self._calls.bucket_id, namespace=namespace, key=key, version=version)
        return (await self._calls.once(self._stub.Restore, request)).version

    async def keys(self, namespace: str) -> tuple[str, ...]:
        """Return the keys present in one namespace, sorted."""
        request = pb.ListKeysRequest(bucket_id=self._calls.bucket_id, namespace=namespace)
        listed = await self._calls.listed(self._stub.ListKeys, request, "namespaces")
        return tuple(key for found in listed for key in found.keys)

    async def entries(self, prefix: str = "") -> tuple[Entry, ...]:
        """Return what is in the namespaces that equal `prefix` or begin with it and `/`, secrets left out."""
        request = pb.ListEntriesRequest(bucket_id=self._calls.bucket_id, namespace_prefix=prefix)
        return tuple(map(entry_from_message, await self._calls.listed(self._stub.ListEntries, request, "entries")))

    async def watch(
        self, prefix: str = "", *, after_revision: int = 0, stands: asyncio.Event | None = None
    ) -> AsyncIterator[Entry]:
        """Give every version written below a prefix, tombstones too, in revision order and without end.

        After a revision (of an entry read or written before), or from the moment the watch stands: `stands` is set then, and
        whatever is written later is told. A lost replica or connection is not noticed here. OutOfRange when what followed the
        revision is no longer kept: read `entries`, then watch from the largest revision among them.
        """
        seen = after_revision

        async def attach() -> AsyncGenerator[Entry, None]:
            nonlocal seen
            request = pb.WatchRequest(bucket_id=self._calls.bucket_id, namespace_prefix=prefix, after_revision=seen)
            async with aclosing(self._calls.stream(self._stub.Watch, request, begun=begun)) as responses:
                async for response in responses:
                    seen = response.revision
                    yield entry_from_message(response.entry)

        def begun(headers: dict[str, str]) -> None:
            nonlocal seen
            seen = seen or int(headers.get(REVISION_HEADER, "0"))
            if stands is not None:
                stands.set()

        async with aclosing(self._calls.followed(attach)) as entries:
            async for entry in entries:
                yield entry


def make_write_condition(*, if_version: int | None = None, if_absent: bool = False) -> pb.Precondition | None:
    """Return what must hold for a write. ValueError when both are asked for: they contradict each other."""
    if if_absent and if_version is not None:
        raise ValueError("a write is either if_version or if_absent")
    if if_absent:
        return pb.Precondition(if_absent=True)
    return None if if_version is None else pb.Precondition(if_version=if_version)


def entry_from_message(entry: pb.Entry) -> Entry:
    """Copy an entry out of the contract."""
    return Entry(
        namespace=entry.namespace,
        key=entry.key,
        value=entry.value,
        version=entry.version,
        revision=entry.revision,
        created_at=to_datetime(entry.created_at),
        expires_at=to_datetime(entry.expires_at) if entry.HasField("expires_at") else None,
        writer=entry.writer,
        deleted=entry.deleted,
    )


def to_datetime(timestamp: Timestamp) -> datetime:
    """Return a moment, in UTC."""
    return timestamp.ToDatetime(tzinfo=UTC)
