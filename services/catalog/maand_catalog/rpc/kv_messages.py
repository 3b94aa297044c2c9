"""KV entries and secrets as the contract says them."""

from maand_catalog.store.kv.entries import Entry
from maand_contracts.catalog.v1 import kv_pb2 as pb
from maand_contracts.catalog.v1 import secret_pb2
from maand_wire.conversions import message_writer

entry_message = message_writer(pb.Entry, Entry, value=lambda entry: entry.value or "", deleted=lambda entry: entry.is_tombstone)
"""An entry; the value of a secret is left out."""


secret_message = message_writer(secret_pb2.SecretInfo, Entry, key_id=lambda entry: entry.sealed.key_id if entry.sealed else "")
"""A secret without its value."""
