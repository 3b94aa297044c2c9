"""The catalog as an executor sees it: async methods named after intentions, facts in and out.

The only package that calls the catalog's stubs. Every call has a deadline; errors are `maand_wire.errors.RemoteError` in the
catalog's own words.
"""

import grpc.aio

from maand_executor.catalog_client.allocations import AllocationCalls, Purged
from maand_executor.catalog_client.conversions import from_allocation, from_hook, to_allocation, to_hook
from maand_executor.catalog_client.fleet import BlobPiece, BuildReport, FleetCalls
from maand_executor.catalog_client.runs import ClaimedRun, RenewedLease, RunCalls
from maand_executor.catalog_client.tasks import ClaimedTask, TaskCalls

__all__ = [
    "BlobPiece",
    "BuildReport",
    "CatalogClient",
    "ClaimedRun",
    "ClaimedTask",
    "Purged",
    "RenewedLease",
    "from_allocation",
    "from_hook",
    "to_allocation",
    "to_hook",
]


class CatalogClient(RunCalls, TaskCalls, FleetCalls, AllocationCalls):
    """All calls of an executor over one channel; see the bases for the nouns they speak of."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        RunCalls.__init__(self, channel)
        TaskCalls.__init__(self, channel)
        FleetCalls.__init__(self, channel)
        AllocationCalls.__init__(self, channel)
