"""The catalog as an executor sees it: async methods named after intentions, facts in and out.

The only package that calls the catalog's stubs. Every call has a deadline; errors are `maand_wire.errors.RemoteError` in the
catalog's own words.
"""

import grpc.aio

from maand_executor.catalog_client.allocations import AllocationCalls, Purged
from maand_executor.catalog_client.fleet import BlobPiece, BuildReport, FleetCalls
from maand_executor.catalog_client.runs import ClaimedRun, RenewedLease, RunCalls

__all__ = ["BlobPiece", "BuildReport", "CatalogClient", "ClaimedRun", "Purged", "RenewedLease"]


class CatalogClient(RunCalls, FleetCalls, AllocationCalls):
    """All calls of an executor over one channel; see the three bases for the nouns they speak of."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        RunCalls.__init__(self, channel)
        FleetCalls.__init__(self, channel)
        AllocationCalls.__init__(self, channel)
