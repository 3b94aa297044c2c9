"""KV entries as the contract says them, and page tokens."""

import base64
import binascii
import json

from maand_catalog.errors import InvalidArgument
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


def name_token(entries: list[Entry], *, more: bool) -> str:
    """Return the token of the page that follows these entries; empty when none does."""
    if not more:
        return ""
    return base64.urlsafe_b64encode(json.dumps([entries[-1].namespace, entries[-1].key]).encode()).decode()


def read_name_token(page_token: str) -> tuple[str, str] | None:
    """Return the names after which a page begins; None for the first page."""
    if not page_token:
        return None
    try:
        namespace, key = json.loads(base64.urlsafe_b64decode(page_token))
    except (binascii.Error, ValueError, TypeError) as error:
        raise unknown_token() from error
    if not isinstance(namespace, str) or not isinstance(key, str):
        raise unknown_token()
    return namespace, key


def unknown_token() -> InvalidArgument:
    """Return the error for a token that no page had."""
    return InvalidArgument("page_token is not one of ours", help="pass next_page_token of the page before, unchanged")
