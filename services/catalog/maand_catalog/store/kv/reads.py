"""Many gets at once: one statement finds the newest versions of all keys asked for."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from maand_catalog.database.transaction import Transaction
from maand_catalog.errors import CatalogError
from maand_catalog.rules.kv import KeyNotFound
from maand_catalog.store.kv.rows import Entry, find_newest, get_entry, is_absent


@dataclass(frozen=True, kw_only=True)
class Lookup:
    """One get; version 0 = the newest."""

    bucket_id: str
    namespace: str
    key: str
    version: int = 0


def get_entries(tx: Transaction, lookups: Sequence[Lookup]) -> list[Entry | Exception]:
    """Answer every lookup in the order asked: the entry, or `KeyNotFound`."""
    names = defaultdict(set)
    for lookup in lookups:
        if not lookup.version:
            names[lookup.bucket_id].add((lookup.namespace, lookup.key))
    newest = {bucket_id: find_newest(tx, bucket_id, wanted) for bucket_id, wanted in names.items()}
    return [
        old_version(tx, lookup)
        if lookup.version
        else newest_version(tx, lookup, newest[lookup.bucket_id].get((lookup.namespace, lookup.key)))
        for lookup in lookups
    ]


def newest_version(tx: Transaction, lookup: Lookup, entry: Entry | None) -> Entry | Exception:
    """Answer with the newest version unless a read at this moment does not find it."""
    if entry is None or is_absent(tx, entry):
        return KeyNotFound(lookup.namespace, lookup.key)
    return entry


def old_version(tx: Transaction, lookup: Lookup) -> Entry | Exception:
    """Answer with the version named."""
    try:
        return get_entry(tx, lookup.bucket_id, lookup.namespace, lookup.key, lookup.version)
    except CatalogError as error:
        return error
