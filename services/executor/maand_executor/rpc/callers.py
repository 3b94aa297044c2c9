"""Who calls.

A hook that runs on this executor, known by its bearer token; what its headers claim must agree with the token. Or a person who
looks at the executor: whoever opens its unix socket; over TCP, whoever the catalog lets read. The catalog decides, here too: the
caller's own API token is shown to it with a call that every viewer may make.
"""

import dataclasses
from collections.abc import Iterable
from typing import Any

import grpc

from maand_contracts.catalog.v1 import bucket_pb2, bucket_pb2_grpc
from maand_executor.hooks.live_invocations import LiveInvocation, LiveInvocations
from maand_executor.rpc.errors import CatalogAway, IdentityMismatch, NotAViewer, Unauthenticated
from maand_wire.channels import open_channel
from maand_wire.endpoints import Endpoint
from maand_wire.errors import RemoteError, remote_errors

BEARER = "Bearer "

CLAIMS = {
    "maand-claimed-allocation": "allocation_id",
    "maand-claimed-hook": "hook",
    "maand-claimed-event": "event",
}
"""Metadata that the gateway makes of the headers X-ALLOCATION-ID, HOOK and EVENT, and what it must equal."""


def identify_hook(live: LiveInvocations, metadata: Iterable[tuple[str, str | bytes]] | None) -> LiveInvocation:
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


TIMEOUT_SECONDS = 5.0


class Viewers:
    """Lets callers in."""

    def __init__(self, catalog: Endpoint) -> None:
        self._catalog = dataclasses.replace(catalog, token_file=None)  # the caller's token is shown, never this executor's

    async def admit(self, context: Any) -> None:
        """Return when the caller may look. Raises `NotAViewer`, `CatalogAway`."""
        if str(context.peer()).startswith("unix:"):
            return
        sent = {key: value for key, value in metadata_of(context) or () if isinstance(value, str)}
        authorization = sent.get("authorization", "")
        if not authorization.startswith(BEARER):
            raise NotAViewer("the call carries no API token")
        try:
            await self._ask(authorization)
        except RemoteError as error:
            if error.status in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED):
                raise NotAViewer(f"the catalog does not let this caller read: {error.message}") from error
            raise CatalogAway(f"the catalog cannot say who calls: {error.message}") from error

    async def _ask(self, authorization: str) -> None:
        request = bucket_pb2.ListBucketsRequest(page_size=1)
        async with open_channel(self._catalog) as channel:
            with remote_errors():
                await bucket_pb2_grpc.BucketServiceStub(channel).ListBuckets(
                    request, timeout=TIMEOUT_SECONDS, metadata=(("authorization", authorization),)
                )
