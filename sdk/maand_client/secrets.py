"""Secrets: written and deleted like variables, read by operators (which is audited) and by hooks. Printing one prints `***`."""

import uuid
from dataclasses import dataclass, field
from datetime import timedelta

from maand_client.calls import Calls
from maand_client.kv import make_write_condition
from maand_client.specs import whole_seconds
from maand_contracts.catalog.v1 import kv_pb2, secret_pb2
from maand_contracts.catalog.v1.kv_pb2_grpc import KvServiceStub
from maand_contracts.catalog.v1.secret_pb2_grpc import SecretServiceStub


@dataclass(frozen=True, kw_only=True)
class Secret:
    """One secret in clear. Hand `value` to whom it is meant for and let go of it."""

    value: str = field(repr=False)
    version: int

    def __repr__(self) -> str:
        return f"Secret(value='***', version={self.version})"


class Secrets:
    """The secrets of one bucket's jobs, in namespaces `secrets/job/<job>`."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._secrets = SecretServiceStub(calls.channel)
        self._kv = KvServiceStub(calls.channel)

    async def put(
        self,
        job: str,
        key: str,
        value: str,
        *,
        if_version: int | None = None,
        if_absent: bool = False,
        ttl: timedelta = timedelta(),
    ) -> int:
        """Write one secret, as `Kv.put` does; return its version. For operators, and for the job's own hooks."""
        request = secret_pb2.PutSecretRequest(
            bucket_id=self._calls.bucket_id,
            namespace=secrets_namespace(job),
            key=key,
            value=value,
            ttl_seconds=whole_seconds(ttl),
            precondition=make_write_condition(if_version=if_version, if_absent=if_absent),
            request_id=str(uuid.uuid4()),
        )
        return (await self._calls.repeated(self._secrets.PutSecret, request)).version

    async def delete(self, job: str, key: str, *, if_version: int | None = None) -> int:
        """Delete one secret; return the tombstone's version. NotFound, LostRace."""
        request = secret_pb2.DeleteSecretRequest(
            bucket_id=self._calls.bucket_id,
            namespace=secrets_namespace(job),
            key=key,
            precondition=make_write_condition(if_version=if_version),
            request_id=str(uuid.uuid4()),
        )
        return (await self._calls.repeated(self._secrets.DeleteSecret, request)).version

    async def infos(self, job: str = "") -> list[secret_pb2.SecretInfo]:
        """Describe the secrets of a job (empty = of all) without their values. For viewers."""
        request = secret_pb2.ListSecretsRequest(bucket_id=self._calls.bucket_id, job=job)
        return await self._calls.listed(self._secrets.ListSecrets, request, "secrets")

    async def reveal(self, job: str, key: str, *, version: int = 0) -> Secret:
        """Return a secret to an operator; the catalog writes down who read it. NotFound. Not repeated by itself."""
        request = secret_pb2.RevealSecretRequest(
            bucket_id=self._calls.bucket_id, namespace=secrets_namespace(job), key=key, version=version
        )
        response = await self._calls.once(self._secrets.RevealSecret, request)
        return Secret(value=response.value, version=response.version)

    async def read(self, job: str, key: str, *, version: int = 0) -> Secret:
        """Return a secret to a hook of the job, or of a job that demands it. NotFound; PermissionDenied for everyone else."""
        request = kv_pb2.GetRequest(bucket_id=self._calls.bucket_id, namespace=secrets_namespace(job), key=key, version=version)
        response = await self._calls.repeated(self._kv.Get, request)
        return Secret(value=response.secret_value, version=response.entry.version)


def secrets_namespace(job: str) -> str:
    """Return where a job's secrets are."""
    return f"secrets/job/{job}"
