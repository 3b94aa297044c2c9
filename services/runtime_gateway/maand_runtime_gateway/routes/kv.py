"""Key-value routes: `KvService` and `SecretService` in HTTP.

All may be repeated. What a repeat would find changed, a condition or a deletion, carries an id by which the catalog knows it.
"""

from maand_contracts.catalog.v1 import kv_pb2, secret_pb2
from maand_runtime_gateway.errors import InvalidFields
from maand_runtime_gateway.models import KvDelete, KvGet, KvKeys, KvKeysGet, KvPut, KvValue, KvVersion, SecretDelete, SecretPut
from maand_runtime_gateway.upstream import Caller, Upstream, with_help

SECRETS = "secrets/"
PUT_SECRETS_HELP = "write secrets with PUT /kv/secret"
DELETE_SECRETS_HELP = "delete secrets with DELETE /kv/secret"


async def get_value(upstream: Upstream, caller: Caller, fields: KvGet) -> KvValue:
    """Read one value."""
    request = kv_pb2.GetRequest(namespace=fields.namespace, key=fields.key, version=fields.version or 0)
    found = await upstream.call_catalog(upstream.kv.Get, request, caller)
    return KvValue(
        namespace=fields.namespace,
        key=fields.key,
        value=found.secret_value or found.entry.value,
        version=found.entry.version,
    )


async def put_value(upstream: Upstream, caller: Caller, fields: KvPut) -> KvVersion:
    """Write one value."""
    precondition = make_precondition(fields)
    request = kv_pb2.PutRequest(
        namespace=fields.namespace,
        key=fields.key,
        value=fields.value,
        ttl_seconds=fields.ttl,
        precondition=precondition,
        request_id=caller.repeat_id if precondition else caller.request_id,
    )
    with with_help(PUT_SECRETS_HELP, when=fields.namespace.startswith(SECRETS)):
        return KvVersion(version=(await upstream.call_catalog(upstream.kv.Put, request, caller)).version)


async def put_secret(upstream: Upstream, caller: Caller, fields: SecretPut) -> KvVersion:
    """Write one secret."""
    precondition = make_precondition(fields)
    request = secret_pb2.PutSecretRequest(
        namespace=fields.namespace,
        key=fields.key,
        value=fields.value,
        ttl_seconds=fields.ttl,
        precondition=precondition,
        request_id=caller.repeat_id if precondition else caller.request_id,
    )
    return KvVersion(version=(await upstream.call_catalog(upstream.secrets.PutSecret, request, caller)).version)


async def delete_value(upstream: Upstream, caller: Caller, fields: KvDelete) -> KvVersion:
    """Delete one value."""
    request = kv_pb2.DeleteRequest(namespace=fields.namespace, key=fields.key, request_id=caller.repeat_id)
    with with_help(DELETE_SECRETS_HELP, when=fields.namespace.startswith(SECRETS)):
        return KvVersion(version=(await upstream.call_catalog(upstream.kv.Delete, request, caller)).version)


async def delete_secret(upstream: Upstream, caller: Caller, fields: SecretDelete) -> KvVersion:
    """Delete one secret."""
    request = secret_pb2.DeleteSecretRequest(namespace=fields.namespace, key=fields.key, request_id=caller.repeat_id)
    return KvVersion(version=(await upstream.call_catalog(upstream.secrets.DeleteSecret, request, caller)).version)


async def list_keys(upstream: Upstream, caller: Caller, fields: KvKeysGet) -> KvKeys:
    """List keys."""
    keys: dict[str, list[str]] = {}
    request = kv_pb2.ListKeysRequest(namespace=fields.namespace)
    for found in await upstream.pages(upstream.kv.ListKeys, request, "namespaces", caller):
        keys.setdefault(found.namespace, []).extend(found.keys)
    return KvKeys(namespaces=keys)


def make_precondition(fields: KvPut) -> kv_pb2.Precondition | None:
    """Translate `if_version` and `if_absent`."""
    if fields.if_absent and fields.if_version is not None:
        raise InvalidFields("a key cannot be absent and have a version: send `if_version` or `if_absent`, not both")
    if fields.if_absent:
        return kv_pb2.Precondition(if_absent=True)
    if fields.if_version is not None:
        return kv_pb2.Precondition(if_version=fields.if_version)
    return None
