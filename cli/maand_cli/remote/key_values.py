"""Variables, secrets and semaphores as this command line reads and writes them."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from maand_cli.output.message_dicts import to_dict
from maand_cli.remote.catalog import Catalog, call_rpc, list_items
from maand_contracts.catalog.v1 import kv_pb2, kv_pb2_grpc, secret_pb2, secret_pb2_grpc, semaphore_pb2, semaphore_pb2_grpc

Rows = list[dict[str, Any]]


async def entry_rows(catalog: Catalog, prefix: str) -> Rows:
    """List entries below a namespace prefix."""
    request = kv_pb2.ListEntriesRequest(bucket_id=catalog.bucket_id, namespace_prefix=prefix)
    return [to_dict(entry) async for entry in list_items(_kv(catalog).ListEntries, request, "entries")]


async def version_rows(catalog: Catalog, namespace: str, key: str, *, limit: int) -> Rows:
    """List versions of one key, newest first."""
    request = kv_pb2.ListVersionsRequest(bucket_id=catalog.bucket_id, namespace=namespace, key=key, page_size=min(limit, 100))
    return [to_dict(entry) async for entry in list_items(_kv(catalog).ListVersions, request, "entries", limit=limit)]


async def get_entry(catalog: Catalog, namespace: str, key: str, *, version: int) -> kv_pb2.Entry:
    """Read one variable."""
    request = kv_pb2.GetRequest(bucket_id=catalog.bucket_id, namespace=namespace, key=key, version=version)
    return (await call_rpc(_kv(catalog).Get, request)).entry


async def put_entry(catalog: Catalog, request: kv_pb2.PutRequest) -> int:
    """Write one variable; return its version."""
    request.bucket_id = catalog.bucket_id
    return (await call_rpc(_kv(catalog).Put, request)).version


async def delete_entry(catalog: Catalog, namespace: str, key: str) -> int:
    """Delete one variable; return the tombstone's version."""
    request = kv_pb2.DeleteRequest(bucket_id=catalog.bucket_id, namespace=namespace, key=key)
    return (await call_rpc(_kv(catalog).Delete, request)).version


async def restore_entry(catalog: Catalog, namespace: str, key: str, *, version: int) -> int:
    """Bring an older version back; return the new one."""
    request = kv_pb2.RestoreRequest(bucket_id=catalog.bucket_id, namespace=namespace, key=key, version=version)
    return (await call_rpc(_kv(catalog).Restore, request)).version


async def put_secret(catalog: Catalog, request: secret_pb2.PutSecretRequest) -> int:
    """Write one secret; return its version."""
    request.bucket_id = catalog.bucket_id
    return (await call_rpc(_secrets(catalog).PutSecret, request)).version


async def delete_secret(catalog: Catalog, namespace: str, key: str) -> int:
    """Delete one secret; return the tombstone's version."""
    request = secret_pb2.DeleteSecretRequest(bucket_id=catalog.bucket_id, namespace=namespace, key=key)
    return (await call_rpc(_secrets(catalog).DeleteSecret, request)).version


async def secret_rows(catalog: Catalog, job: str) -> Rows:
    """List secrets, without values."""
    request = secret_pb2.ListSecretsRequest(bucket_id=catalog.bucket_id, job=job)
    return [to_dict(secret) async for secret in list_items(_secrets(catalog).ListSecrets, request, "secrets")]


async def reveal_secret(catalog: Catalog, namespace: str, key: str, *, version: int) -> secret_pb2.RevealSecretResponse:
    """Read one secret's value; the catalog writes down who did."""
    request = secret_pb2.RevealSecretRequest(bucket_id=catalog.bucket_id, namespace=namespace, key=key, version=version)
    return await call_rpc(_secrets(catalog).RevealSecret, request)


@dataclass(frozen=True, kw_only=True)
class Rotation:
    """How far a rotation came: values re-encrypted, still to go, and those among these that cannot be opened."""

    done: int = 0
    remaining: int = 0
    unreadable: tuple[secret_pb2.UnreadableValue, ...] = ()


async def rotate_secrets(catalog: Catalog) -> AsyncIterator[Rotation]:
    """Re-encrypt with the newest key, page by page; give how far it came after each."""
    rotation, token = Rotation(), ""
    while True:
        request = secret_pb2.RotateSecretsRequest(bucket_id=catalog.bucket_id, page_token=token)
        response = await call_rpc(_secrets(catalog).RotateSecrets, request)
        rotation = Rotation(
            done=rotation.done + response.rotated,
            remaining=response.remaining,
            unreadable=(*rotation.unreadable, *response.unreadable),
        )
        yield rotation
        token = response.next_page_token
        if not token:
            return


async def semaphore_rows(catalog: Catalog) -> Rows:
    """List semaphores somebody is in."""
    request = semaphore_pb2.ListSemaphoresRequest(bucket_id=catalog.bucket_id)
    return [to_dict(semaphore) async for semaphore in list_items(_semaphores(catalog).ListSemaphores, request, "semaphores")]


async def force_release(catalog: Catalog, request: semaphore_pb2.ForceReleaseRequest) -> Rows:
    """Take a slot away; return the claims taken."""
    request.bucket_id = catalog.bucket_id
    return [to_dict(claim) for claim in (await call_rpc(_semaphores(catalog).ForceRelease, request, repeat=False)).released]


def _kv(catalog: Catalog) -> kv_pb2_grpc.KvServiceStub:
    return kv_pb2_grpc.KvServiceStub(catalog.channel)


def _secrets(catalog: Catalog) -> secret_pb2_grpc.SecretServiceStub:
    return secret_pb2_grpc.SecretServiceStub(catalog.channel)


def _semaphores(catalog: Catalog) -> semaphore_pb2_grpc.SemaphoreServiceStub:
    return semaphore_pb2_grpc.SemaphoreServiceStub(catalog.channel)
