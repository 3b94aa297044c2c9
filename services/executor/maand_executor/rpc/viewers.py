"""Who may look at an executor: whoever opens its unix socket; over TCP, whoever the catalog lets read.

The catalog decides, here too: the caller's own API token is shown to it with a call that every viewer may make.
"""

import dataclasses
from typing import Any

import grpc

from maand_contracts.catalog.v1 import bucket_pb2, bucket_pb2_grpc
from maand_executor.rpc.callers import BEARER, metadata_of
from maand_executor.rpc.errors import CatalogAway, NotAViewer
from maand_wire.channels import open_channel
from maand_wire.endpoints import Endpoint
from maand_wire.errors import RemoteError, remote_errors

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
