"""The rules of one KV write: preconditions, equal values, tombstones, lifetimes. Pure; `store/kv/writes.py` carries them out.

absent ──put──▶ version 1 ──put another value──▶ version 2 ──delete──▶ version 3 (tombstone) ──put──▶ version 4 …
                    └─ put the same value: still version 1; with another TTL: still version 1, another expiry
                    └─ its expiry passes: absent, and the next put is version 2
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from maand_catalog.errors import InvalidArgument, NotFound, PreconditionLost

UNREADABLE = "\0"
"""Stands for the value of a head that cannot be decrypted: nobody can write it, so whatever is written differs."""

LONGEST_TTL = timedelta(days=3650)


class KvPreconditionLost(PreconditionLost):
    """Somebody else wrote the key first. Read it again and decide again; `current_version` is its newest version, 0 if none."""

    code = "kv_precondition_lost"
    help = "read the key again and decide again"

    def __init__(self, namespace: str, key: str, current_version: int) -> None:
        now = f"is at version {current_version} now" if current_version else "was never written"
        super().__init__(f"{namespace} {key} {now}", facts={"current_version": current_version})


class KeyNotFound(NotFound):
    """The key is absent: never written, deleted, expired, or that version was trimmed. List the keys of its namespace."""

    def __init__(self, namespace: str, key: str, version: int = 0) -> None:
        wanted = f"version {version} of {key}" if version else f"key {key}"
        super().__init__(f"there is no {wanted} in {namespace}", help=f"list what there is: maand kv list {namespace}")


@dataclass(frozen=True, kw_only=True)
class Precondition:
    """What must hold for a write to happen: the newest version is `version`, or (None) the key is absent."""

    version: int | None


@dataclass(frozen=True, kw_only=True)
class Write:
    """One write as asked for: a value, or (None) a tombstone. `request_id` makes a repeat return the first outcome."""

    bucket_id: str
    namespace: str
    key: str
    value: str | None = field(repr=False)
    secret: bool = False
    ttl: timedelta | None = None
    condition: Precondition | None = None
    writer: str
    request_id: str = ""


@dataclass(frozen=True, kw_only=True)
class Head:
    """The newest version of a key. `value` is decrypted; None = tombstone."""

    version: int
    revision: int
    value: str | None = field(repr=False)
    expires_at: datetime | None = None

    def is_present(self, now: datetime) -> bool:
        """Whether a read at this moment finds it."""
        return self.value is not None and not has_expired(self.expires_at, now)


@dataclass(frozen=True, kw_only=True)
class NewVersion:
    """The write makes this version."""

    version: int
    expires_at: datetime | None


@dataclass(frozen=True, kw_only=True)
class NewExpiry:
    """The value is already there; only its expiry moves, under a new revision."""

    expires_at: datetime | None


@dataclass(frozen=True, kw_only=True)
class Unchanged:
    """The value is already there, for as long as asked."""


Decision = NewVersion | NewExpiry | Unchanged


def decide_write(head: Head | None, write: Write, now: datetime) -> Decision:
    """Say what a write does to a key, or raise `KvPreconditionLost` or `KeyNotFound`."""
    present = head is not None and head.is_present(now)
    newest = head.version if head else 0
    if write.value is None and not present:
        raise KeyNotFound(write.namespace, write.key)
    if write.condition and not is_met(write.condition, newest, present=present):
        raise KvPreconditionLost(write.namespace, write.key, newest)
    expires_at = now + write.ttl if write.ttl else None
    if head is None or not present or head.value != write.value:
        return NewVersion(version=newest + 1, expires_at=expires_at)
    if expires_at == head.expires_at:
        return Unchanged()
    return NewExpiry(expires_at=expires_at)


def is_met(condition: Precondition, newest: int, *, present: bool) -> bool:
    """Whether a precondition holds. A version counts whether or not it is a tombstone or expired: nobody wrote since."""
    return not present if condition.version is None else condition.version == newest


def has_expired(expires_at: datetime | None, now: datetime) -> bool:
    """Whether an expiry has passed: at the very moment it is over."""
    return expires_at is not None and expires_at <= now


def checked_ttl(ttl_seconds: int) -> timedelta | None:
    """Turn the wire's TTL into a duration; 0 = stays."""
    if ttl_seconds > LONGEST_TTL.total_seconds():
        raise InvalidArgument(f"a TTL is at most {LONGEST_TTL.days} days", help="leave it out for a value that stays")
    return timedelta(seconds=ttl_seconds) if ttl_seconds else None
