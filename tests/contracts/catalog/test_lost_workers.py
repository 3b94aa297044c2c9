"""Giving up workers that left the workspace."""

import json

import pytest

from maand_catalog.errors import PermissionDenied
from maand_catalog.rpc.callers import acting_as
from maand_catalog.rpc.workers import WorkerServicer
from maand_catalog.rules.identity import Role, RoleCaller
from maand_contracts.catalog.v1 import allocation_pb2 as allocations_pb
from maand_contracts.catalog.v1 import worker_pb2 as pb
from maand_wire.errors import RemoteError, remote_errors
from tests.contracts.catalog.bucket_verbs import BucketClient, a_new_bucket
from tests.contracts.catalog.serving import ServedCatalog

PAIR = ("10.0.0.1", "10.0.0.2")


def files(*hosts: str) -> dict[str, str]:
    return {
        "workers.json": json.dumps([{"host": host, "labels": ["api"]} for host in hosts]),
        "jobs/api/manifest.json": "{}",
        "jobs/api/Makefile": "",
    }


@pytest.fixture
async def bucket(catalog: ServedCatalog) -> BucketClient:
    """Make a bucket in which one of two workers left after it was deployed to."""
    made = await a_new_bucket(catalog)
    await made.build(files(*PAIR))
    await made.promote(*PAIR)
    await made.build(files("10.0.0.1"))
    return made


async def forget(bucket: BucketClient, *names: str) -> None:
    with remote_errors():
        await bucket.workers.ForgetWorkers(pb.ForgetWorkersRequest(bucket_id=bucket.bucket_id, workers=names))


async def lost(bucket: BucketClient) -> list[str]:
    request = pb.ListWorkersRequest(bucket_id=bucket.bucket_id, include_removed=True)
    return [worker.name for worker in (await bucket.workers.ListWorkers(request)).workers if worker.lost]


async def test_a_worker_that_left_is_given_up_and_stays_so_through_builds(bucket: BucketClient) -> None:
    assert await lost(bucket) == []
    for _ in range(2):
        await forget(bucket, "10.0.0.2")
        assert await lost(bucket) == ["10.0.0.2"]
    await bucket.build({**files("10.0.0.1"), "jobs/api/new": "1"})
    assert await lost(bucket) == ["10.0.0.2"]
    assert (await bucket.allocation("10.0.0.2")).state == allocations_pb.ALLOCATION_STATE_PROMOTED, "a run moves it, not this"


async def test_a_worker_that_comes_back_is_not_lost(bucket: BucketClient) -> None:
    await forget(bucket, "10.0.0.2")
    await bucket.build(files(*PAIR))
    assert await lost(bucket) == []
    await bucket.build(files("10.0.0.1"))
    assert await lost(bucket) == [], "it left once more: that is another story"


@pytest.mark.parametrize(
    ("names", "code", "words"),
    [
        (("10.0.0.2", "10.0.0.1"), "worker_not_removed", "10.0.0.1 is still in workspace/workers.json"),
        (("10.0.0.2", "10.0.0.9"), "not_found", 'no worker is called "10.0.0.9"'),
        ((), "invalid_argument", "no worker is named"),
    ],
)
async def test_what_did_not_leave_is_refused_and_then_nothing_changed(
    bucket: BucketClient, names: tuple[str, ...], code: str, words: str
) -> None:
    with pytest.raises(RemoteError, match=words) as refused:
        await forget(bucket, *names)
    assert refused.value.code == code
    assert await lost(bucket) == []


async def test_viewers_give_up_nothing(bucket: BucketClient) -> None:
    request = pb.ForgetWorkersRequest(bucket_id=bucket.bucket_id, workers=["10.0.0.2"])
    with acting_as(RoleCaller(name="somebody", roles=frozenset({Role.VIEWER}))), pytest.raises(PermissionDenied):
        await WorkerServicer(bucket.catalog.database).ForgetWorkers(request, None)
    assert await lost(bucket) == []
