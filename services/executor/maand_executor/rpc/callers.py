"""Who calls: a hook that runs on this executor, known by its bearer token; what its headers claim must agree with the token."""

from collections.abc import Iterable
from typing import Any

from maand_executor.hooks.live import LiveInvocation, LiveInvocations
from maand_executor.rpc.errors import IdentityMismatch, Unauthenticated

BEARER = "Bearer "

CLAIMS = {
    "maand-claimed-allocation": "allocation_id",
    "maand-claimed-hook": "hook",
    "maand-claimed-event": "event",
}
"""Metadata that the gateway makes of the headers X-ALLOCATION-ID, HOOK and EVENT, and what it must equal."""


def calling_hook(live: LiveInvocations, metadata: Iterable[tuple[str, str | bytes]] | None) -> LiveInvocation:
    """Return the hook that makes a call. Raises `Unauthenticated`, `IdentityMismatch`."""
    sent = {key: value for key, value in metadata or () if isinstance(value, str)}
    authorization = sent.get("authorization", "")
    found = live.find(authorization.removeprefix(BEARER)) if authorization.startswith(BEARER) else None
    if found is None:
        raise Unauthenticated("no hook that runs on this executor has this token")
    for key, field in CLAIMS.items():
        claimed = sent.get(key, "")
        if claimed and claimed != getattr(found, field):
            raise IdentityMismatch(f'the call claims {field} "{claimed}", its token belongs to "{getattr(found, field)}"')
    return found


def metadata_of(context: Any) -> Iterable[tuple[str, str | bytes]] | None:
    """Return the metadata of a call."""
    metadata: Iterable[tuple[str, str | bytes]] | None = context.invocation_metadata()
    return metadata
