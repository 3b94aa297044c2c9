"""SecretService: values that are stored only encrypted. Plaintext leaves only in the reply to an authorized read."""

from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from typing import Any

import structlog

from maand_catalog.database.transaction import Transaction
from maand_catalog.errors import InvalidArgument
from maand_catalog.rpc.callers import caller_of, require_role
from maand_catalog.rpc.kv_access import Admission, asked_write, check_names
from maand_catalog.rpc.requests import asked_page, checked_id, page_token, read_page_token
from maand_catalog.rules.identity import Caller, Role
from maand_catalog.rules.kv_writes import Write
from maand_catalog.rules.namespaces import SECRETS, holds_secrets, secret_namespace
from maand_catalog.rules.policy import Act
from maand_catalog.store.kv.batched_store import KvStore
from maand_catalog.store.kv.entries import Entry, get_entry, list_entries
from maand_catalog.store.kv.secrets import MaskPage, read_marks, read_mask_page, rotate_page
from maand_catalog.store.tokens import record_audit
from maand_contracts.catalog.v1 import secret_pb2 as pb
from maand_contracts.catalog.v1.secret_pb2_grpc import SecretServiceServicer
from maand_wire.conversions import message_writer

log = structlog.get_logger("maand.catalog.secrets")

CHUNK_CHARACTERS = 1024 * 1024
"""Of values in one chunk of a stream of masks, or one value that is larger: 4 MiB at most, far below the largest message."""

MOST_NAMED = 50
"""Values that cannot be opened which one line of the log names."""


class SecretServicer(SecretServiceServicer):
    """Writes, reveals, lists and re-encrypts secrets."""

    def __init__(self, kv: KvStore) -> None:
        self._unreadable = UnreadableLog()
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
        require_role(context, Role.VIEWER)
        bucket_id = checked_id(request.bucket_id, "bucket_id")
        prefix = secret_namespace(request.job) if request.job else SECRETS
        page = asked_page(request, str, str, usual=1_000)
        entries, more = await self._database.read(
            lambda tx: list_entries(tx, bucket_id, prefix, limit=page.limit, after=page.after, secrets=True)
        )
        token = page_token((entries[-1].namespace, entries[-1].key)) if more else ""
        return pb.ListSecretsResponse(secrets=map(secret_message, entries), next_page_token=token)

    async def RevealSecret(self, request: pb.RevealSecretRequest, context: Any) -> pb.RevealSecretResponse:
        """Return one value to an operator; the audit row is durable before the value leaves."""
        caller = require_role(context, Role.OPERATOR)
        bucket_id = checked_id(request.bucket_id, "bucket_id")
        check_names(request.namespace, request.key)
        await self._admission.admit(caller, Act.REVEAL, bucket_id, request.namespace, request.key)
        check_holds_secrets(request.namespace)
        entry = await self._database.write(lambda tx: reveal_audited(tx, bucket_id, request, actor=caller.name))
        return pb.RevealSecretResponse(value=entry.text(self._kv.keyring), version=entry.version)

    async def RotateSecrets(self, request: pb.RotateSecretsRequest, context: Any) -> pb.RotateSecretsResponse:
        """Re-encrypt one page with the newest key; the first page reads the key file again."""
        caller = require_role(context, Role.OPERATOR)
        bucket_id, (after,) = checked_id(request.bucket_id, "bucket_id"), read_page_token(request.page_token, (int,)) or (0,)
        keyring = self._kv.keyring
        if not after:
            keyring.reload()
        rotated = await self._database.write(
            lambda tx: rotate_page(tx, keyring, bucket_id, after_revision=after, actor=caller.name), alone=True
        )
        self._unreadable.tell(rotated.unreadable)
        return pb.RotateSecretsResponse(
            rotated=rotated.rotated,
            remaining=rotated.remaining,
            next_page_token=page_token((rotated.next_revision,)) if rotated.next_revision else "",
            unreadable=map(to_unreadable, rotated.unreadable),
        )

    async def StreamMaskValues(
        self, request: pb.StreamMaskValuesRequest, context: Any
    ) -> AsyncIterator[pb.StreamMaskValuesResponse]:
        """Stream the values to be masked that were written after a revision."""
        require_role(context, Role.EXECUTOR)
        told = request.after_revision
        async for page in self._mask_pages(checked_id(request.bucket_id, "bucket_id"), told):
            *parts, last = chunks_of(page.values)
            for part in parts:  # values are in no order: only with the last of them the page is complete
                yield pb.StreamMaskValuesResponse(revision=min(told, page.revision), values=part)
            yield pb.StreamMaskValuesResponse(revision=page.revision, values=last)
            told = page.revision

    async def ReadMaskValues(self, request: pb.ReadMaskValuesRequest, context: Any) -> pb.ReadMaskValuesResponse:
        """Return all values to be masked at once, when any changed: what `StreamMaskValues` replaces."""
        require_role(context, Role.EXECUTOR)
        bucket_id = checked_id(request.bucket_id, "bucket_id")
        revision, secret_revision = await self._database.read(lambda tx: read_marks(tx, bucket_id))
        if secret_revision <= request.known_revision <= revision:
            return pb.ReadMaskValuesResponse(revision=request.known_revision, changed=False)
        values: set[str] = set()
        async for page in self._mask_pages(bucket_id, 0):
            values |= page.values
            revision = page.revision
        return pb.ReadMaskValuesResponse(revision=revision, changed=True, values=sorted(values))

    async def _mask_pages(self, bucket_id: str, after_revision: int) -> AsyncIterator[MaskPage]:
        """Read page by page, each in a transaction of its own; what cannot be opened is named in the log."""
        keyring, after, whole, more = self._kv.keyring, after_revision, not after_revision, True
        while more:
            page = await self._database.read(
                lambda tx, after=after: read_mask_page(tx, keyring, bucket_id, after, whole=whole)  # type: ignore[misc]
            )
            self._unreadable.tell(page.unreadable)
            yield page
            after, more = page.revision, page.more


class UnreadableLog:
    """Names values that cannot be opened in the catalog's log, each once."""

    def __init__(self) -> None:
        self._told: set[tuple[str, int]] = set()

    def tell(self, entries: Iterable[Entry]) -> None:
        """Name those not named yet."""
        new = [entry for entry in entries if (entry.bucket_id, entry.revision) not in self._told]
        if not new:
            return
        self._told |= {(entry.bucket_id, entry.revision) for entry in new}
        log.warning(
            "values cannot be opened: their key is not in kv.key; put it back, or write or delete them anew",
            bucket=new[0].bucket_id,
            count=len(new),
            keys=sorted({entry.sealed.key_id for entry in new if entry.sealed is not None}),
            values=[f"{entry.namespace} {entry.key} version {entry.version}" for entry in new[:MOST_NAMED]],
        )


def chunks_of(values: Iterable[str]) -> Iterator[Sequence[str]]:
    """Cut values into chunks for one message each; no values are one empty chunk."""
    chunk: list[str] = []
    size = 0
    for value in values:
        if chunk and size + len(value) > CHUNK_CHARACTERS:
            yield chunk
            chunk, size = [], 0
        chunk.append(value)
        size += len(value)
    yield chunk


def to_unreadable(entry: Entry) -> pb.UnreadableValue:
    """Name a value that cannot be opened."""
    key_id = entry.sealed.key_id if entry.sealed is not None else ""
    return pb.UnreadableValue(namespace=entry.namespace, key=entry.key, version=entry.version, key_id=key_id)


def reveal_audited(tx: Transaction, bucket_id: str, request: pb.RevealSecretRequest, *, actor: str) -> Entry:
    """Find the secret and note who is about to see it."""
    entry = get_entry(tx, bucket_id, request.namespace, request.key, request.version)
    subject = f"{entry.namespace} {entry.key} version {entry.version}"
    record_audit(tx, actor=actor, action="secret.reveal", subject=subject, bucket_id=bucket_id)
    return entry


def check_holds_secrets(namespace: str) -> None:
    """Refuse a namespace that is not `secrets/job/<job>`."""
    if not holds_secrets(namespace):
        raise InvalidArgument(f"{namespace} holds no secrets", help="secrets live in secrets/job/<job>")


secret_message = message_writer(pb.SecretInfo, Entry, key_id=lambda entry: entry.sealed.key_id if entry.sealed else "")
"""A secret without its value."""
