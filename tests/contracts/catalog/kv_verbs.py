"""KvService in short words, for its tests."""

from typing import Any

import grpc
import grpc.aio
import pytest

from maand_catalog.sealing.keyring import Keyring
from maand_catalog.store.kv.bulk import replace_owned_namespaces
from maand_contracts.catalog.v1 import kv_pb2 as pb
from maand_contracts.catalog.v1 import secret_pb2
from maand_contracts.catalog.v1.kv_pb2_grpc import KvServiceStub
from maand_contracts.catalog.v1.secret_pb2_grpc import SecretServiceStub
from maand_wire.errors import RemoteError, remote_errors
from tests.contracts.catalog.hook_callers import Metadata
from tests.contracts.catalog.kv_builders import SECRETS, VARS
from tests.contracts.catalog.serving import ServedCatalog

Status = grpc.StatusCode


class Kv:
    """The service in short words; errors arrive as RemoteError."""

    def __init__(self, catalog: ServedCatalog, bucket_id: str) -> None:
        self.catalog = catalog
        self.bucket_id = bucket_id
        self.stub = KvServiceStub(catalog.local.channel)
        self.secrets = SecretServiceStub(catalog.local.channel)

    async def call(self, method: str, request: Any, who: Metadata | None = None) -> Any:
        """Call as a hook, with a token, or as the local user."""
        with remote_errors():
            return await getattr(self.stub, method)(request, metadata=who or [])

    async def put(self, key: str = "k", value: str = "v", who: Metadata | None = None, **more: Any) -> pb.PutResponse:
        request = pb.PutRequest(**{"bucket_id": self.bucket_id, "namespace": VARS, "key": key, "value": value, **more})
        return await self.call("Put", request, who)  # type: ignore[no-any-return]

    async def get(self, key: str = "k", who: Metadata | None = None, **more: Any) -> pb.GetResponse:
        request = pb.GetRequest(**{"bucket_id": self.bucket_id, "namespace": VARS, "key": key, **more})
        return await self.call("Get", request, who)  # type: ignore[no-any-return]

    async def put_secret(self, key: str, value: str, who: Metadata | None = None, **more: Any) -> int:
        fields = {"bucket_id": self.bucket_id, "namespace": SECRETS, "key": key, "value": value, **more}
        with remote_errors():
            return (await self.secrets.PutSecret(secret_pb2.PutSecretRequest(**fields), metadata=who or [])).version

    async def build(self, wanted: dict[str, dict[str, Any]]) -> None:
        """Write what a build would."""
        keyring = Keyring(self.catalog.running.settings.kv_key_file)
        await self.catalog.database.write(
            lambda tx: replace_owned_namespaces(tx, keyring, bucket_id=self.bucket_id, wanted=wanted, writer="build")
        )


async def refused(attempt: Any) -> RemoteError:
    with pytest.raises(RemoteError) as caught:
        await attempt
    return caught.value
