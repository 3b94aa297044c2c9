"""KV entries and secrets as the contract says them."""

from maand_catalog.rpc.run_messages import timestamp
from maand_catalog.store.kv.rows import Entry
from maand_contracts.catalog.v1 import kv_pb2 as pb
from maand_contracts.catalog.v1 import secret_pb2


def to_message(entry: Entry) -> pb.Entry:
    """Describe an entry; the value of a secret is left out."""
    return pb.Entry(
        namespace=entry.namespace,
        key=entry.key,
        value=entry.value or "",
        version=entry.version,
        created_at=timestamp(entry.created_at),
        expires_at=timestamp(entry.expires_at),
        writer=entry.writer,
        deleted=entry.is_tombstone,
        revision=entry.revision,
    )


def to_secret_info(entry: Entry) -> secret_pb2.SecretInfo:
    """Describe a secret without its value."""
    return secret_pb2.SecretInfo(
        namespace=entry.namespace,
        key=entry.key,
        version=entry.version,
        created_at=timestamp(entry.created_at),
        expires_at=timestamp(entry.expires_at),
        writer=entry.writer,
        key_id=entry.sealed.key_id if entry.sealed else "",
    )
