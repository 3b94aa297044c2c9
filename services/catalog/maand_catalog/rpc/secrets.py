"""SecretService: values that are stored only encrypted. Plaintext leaves only in the reply to an authorized read."""

from typing import Any

from maand_catalog.errors import InvalidArgument
from maand_catalog.identity import Caller, Role
from maand_catalog.kv import Write
from maand_catalog.namespaces import SECRETS, holds_secrets, secret_namespace
from maand_catalog.policy import Act
from maand_catalog.rpc.callers import caller_of, require
from maand_catalog.rpc.kv_access import Admission, asked_write, check_names
from maand_catalog.rpc.kv_messages import name_token, read_name_token, to_secret_info
from maand_catalog.rpc.requests import checked_id, number_token, page_limit
from maand_catalog.store.kv import Entry, get_entry, list_entries
from maand_catalog.store.kv_store import KvStore
from maand_catalog.store.secrets import read_mask_values, rotate_page
from maand_catalog.store.tokens import record_audit
from maand_catalog.store.transaction import Transaction
from maand_contracts.catalog.v1 import secret_pb2 as pb
from maand_contracts.catalog.v1.secret_pb2_grpc import SecretServiceServicer


class SecretServicer(SecretServiceServicer):
    """Writes, reveals, lists and re-encrypts secrets."""

    def __init__(self, kv: KvStore) -> None:
        self._kv = kv
        self._database = kv.database
        self._admission = Admission(kv.database)

    async def PutSecret(self, request: pb.PutSecretRequest, context: Any) -> pb.PutSecretResponse:
        """Write one secret."""
        caller = caller_of(context)
        write = asked_write(caller, request, "put_secret", value=request.value, secret=True)
        return pb.PutSecretResponse(version=await self._write(caller, write))

    async def DeleteSecret(self, request: pb.DeleteSecretRequest, context: Any) -> pb.DeleteSecretResponse:
        """Write a tombstone."""
        caller = caller_of(context)
        write = asked_write(caller, request, "delete_secret", value=None, secret=True)
        return pb.DeleteSecretResponse(version=await self._write(caller, write))

    async def _write(self, caller: Caller, write: Write) -> int:
        await self._admission.admit(caller, Act.WRITE_SECRET, write.bucket_id, write.namespace, write.key)
        check_holds_secrets(write.namespace)
        return (await self._kv.write(write)).version

    async def ListSecrets(self, request: pb.ListSecretsRequest, context: Any) -> pb.ListSecretsResponse:
        """List secrets without values."""
        require(context, Role.VIEWER)
        bucket_id = checked_id(request.bucket_id, "bucket_id")
        prefix = secret_namespace(request.job) if request.job else SECRETS
        limit, after = page_limit(request.page_size, usual=1000), read_name_token(request.page_token)
        entries, more = await self._database.read(
            lambda tx: list_entries(tx, bucket_id, prefix, limit=limit, after=after, secrets=True)
        )
        return pb.ListSecretsResponse(secrets=map(to_secret_info, entries), next_page_token=name_token(entries, more=more))

    async def RevealSecret(self, request: pb.RevealSecretRequest, context: Any) -> pb.RevealSecretResponse:
        """Return one value to an operator; the audit row is durable before the value leaves."""
        caller = require(context, Role.OPERATOR)
        bucket_id = checked_id(request.bucket_id, "bucket_id")
        check_names(request.namespace, request.key)
        await self._admission.admit(caller, Act.REVEAL, bucket_id, request.namespace, request.key)
        check_holds_secrets(request.namespace)
        entry = await self._database.write(lambda tx: reveal(tx, bucket_id, request, actor=caller.name))
        return pb.RevealSecretResponse(value=entry.text(self._kv.keyring), version=entry.version)

    async def RotateSecrets(self, request: pb.RotateSecretsRequest, context: Any) -> pb.RotateSecretsResponse:
        """Re-encrypt one page with the newest key; the first page reads the key file again."""
        caller = require(context, Role.OPERATOR)
        bucket_id, after = checked_id(request.bucket_id, "bucket_id"), number_token(request.page_token) or 0
        keyring = self._kv.keyring
        if not after:
            keyring.reload()
        rotated = await self._database.write(
            lambda tx: rotate_page(tx, keyring, bucket_id, after_revision=after, actor=caller.name), alone=True
        )
        return pb.RotateSecretsResponse(
            rotated=rotated.rotated, remaining=rotated.remaining, next_page_token=str(rotated.next_revision or "")
        )

    async def ReadMaskValues(self, request: pb.ReadMaskValuesRequest, context: Any) -> pb.ReadMaskValuesResponse:
        """Return the values to be masked in output, when any changed."""
        require(context, Role.EXECUTOR)
        bucket_id, keyring = checked_id(request.bucket_id, "bucket_id"), self._kv.keyring
        revision, values = await self._database.read(lambda tx: read_mask_values(tx, keyring, bucket_id, request.known_revision))
        return pb.ReadMaskValuesResponse(revision=revision, changed=values is not None, values=values or ())


def reveal(tx: Transaction, bucket_id: str, request: pb.RevealSecretRequest, *, actor: str) -> Entry:
    """Find the secret and note who is about to see it."""
    entry = get_entry(tx, bucket_id, request.namespace, request.key, request.version)
    subject = f"{entry.namespace} {entry.key} version {entry.version}"
    record_audit(tx, actor=actor, action="secret.reveal", subject=subject, bucket_id=bucket_id)
    return entry


def check_holds_secrets(namespace: str) -> None:
    """Refuse a namespace that is not `secrets/job/<job>`."""
    if not holds_secrets(namespace):
        raise InvalidArgument(f"{namespace} holds no secrets", help="secrets live in secrets/job/<job>")
