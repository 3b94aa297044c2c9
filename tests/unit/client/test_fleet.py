"""Reads of what was built, over as many pages as there are."""

from maand_contracts.catalog.v1 import allocation_pb2
from maand_contracts.catalog.v1.allocation_pb2_grpc import AllocationServiceStub
from tests.contracts.catalog.hook_callers import a_worker
from tests.contracts.catalog.run_builders import an_allocation
from tests.unit.client.conftest import Bed


async def test_workers_jobs_and_allocations_are_listed(bed: Bed) -> None:
    for worker in ("10.0.0.1", "10.0.0.2"):
        await a_worker(bed.database, bed.bucket_id, worker)
        await an_allocation(bed.database, bed.bucket_id, worker=worker)
    async with await bed.remote() as maand:
        assert [worker.name for worker in await maand.fleet.workers()] == ["10.0.0.1", "10.0.0.2"]
        assert [worker.name for worker in await maand.fleet.workers(names=["10.0.0.2"])] == ["10.0.0.2"]
        assert await maand.fleet.jobs() == [], "nothing was built; tests/integration/client builds"
        (found,) = await maand.fleet.allocations(jobs=["api"], workers=["10.0.0.1"])
        assert (found.worker, found.state) == ("10.0.0.1", allocation_pb2.ALLOCATION_STATE_PLANNED)


async def test_an_rpc_that_no_noun_speaks_of_is_called_through_the_same_manners(bed: Bed) -> None:
    async with await bed.remote() as maand:
        stub = AllocationServiceStub(maand.calls.channel)
        request = allocation_pb2.ListCertificatesRequest(bucket_id=bed.bucket_id)
        assert list((await maand.calls.repeated(stub.ListCertificates, request)).certificates) == []
