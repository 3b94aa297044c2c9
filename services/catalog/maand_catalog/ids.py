"""Ids and tokens made by the catalog. Made before a transaction begins and passed in, so that an intention may be repeated."""

import secrets
import threading
import time
import uuid

from maand_catalog.rules.identity import API_TOKEN_PREFIX, HOOK_TOKEN_PREFIX

_lock = threading.Lock()
_last = 0


def new_id() -> str:
    """Return a UUIDv7 (RFC 9562): time-ordered, and rising within this process even inside one millisecond.

    The 12 bits behind the milliseconds are a fraction of one (method 3 of section 6.2), pushed on when two ids meet.
    """
    global _last
    with _lock:
        _last = ticks = max(_last + 1, time.time_ns() * 4096 // 1_000_000)
    value = (ticks >> 12) << 80 | 0x7 << 76 | (ticks & 0xFFF) << 64 | 0b10 << 62 | secrets.randbits(62)
    return str(uuid.UUID(int=value))


def new_owner_id() -> str:
    """Return the id of a database towards workers: random alone, so that no two lives of one file meet."""
    return str(uuid.uuid4())


def new_hook_token() -> str:
    """Return the bearer token of one hook process: 256 random bits."""
    return HOOK_TOKEN_PREFIX + secrets.token_urlsafe(32)


def new_api_token() -> str:
    """Return the bearer token of a person or service: 256 random bits."""
    return API_TOKEN_PREFIX + secrets.token_urlsafe(32)
