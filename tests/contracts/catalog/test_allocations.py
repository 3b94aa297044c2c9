"""Allocations: listing, the table of moves, what is deployed, and forgetting what is gone."""

from datetime import timedelta
from typing import Any

import pytest

from maand_catalog.rpc.allocations import STATES
from maand_catalog.rules.build.allocations import ALLOWED_MOVES, AllocationState
from maand_catalog.rules.identity import Role
from maand_contracts.catalog.v1 import allocation_pb2 as pb
from maand_contracts.catalog.v1 import job_pb2, run_pb2, worker_pb2
from maand_contracts.catalog.v1.allocation_pb2_grpc import AllocationServiceStub
from maand_wire.errors import RemoteError, remote_errors
from tests.contracts.catalog import run_verbs
from tests.contracts.catalog.bucket_verbs import TLS, BucketClient, a_move, a_new_bucket, promotion
from tests.contracts.catalog.conftest import ShiftedClock
from tests.contracts.catalog.serving import ServedCatalog

ONE_WORKER = {"workers.json": '[{"host": "10.0.0.1", "labels": ["api"]}]'}
OFF = {"disabled.json": '{"workers": ["10.0.0.1"]}'}
DB = {
    "jobs/db/manifest.json": '{"selectors": ["api"], "hooks": {"hook_s": {"executed_on": ["cli"]}}, "version": "1"}',
    "jobs/db/Makefile": "",
    "jobs/db/_hooks/hook_s.py": "",
}


@pytest.fixture
async def bucket(catalog: ServedCatalog) -> BucketClient:
    made = await a_new_bucket(catalog)
    await made.build()
    return made


async def test_a_promotion_records_version_digest_files_and_run(bucket: BucketClient) -> None:
    run = await bucket.begin()
    each = await bucket.allocation("10.0.0.1")

    await bucket.move(run, promotion(each, version="1.0.0"), step_names=["api/10.0.0.1/promoted"])

    after = await bucket.allocation("10.0.0.1")
    assert (after.state, after.current_version, after.run_id) == (pb.ALLOCATION_STATE_PROMOTED, "1.0.0", run.run_id)
    assert after.deployed_sha256 == promotion(each).deployed_sha256
    assert await run_verbs.steps(bucket.catalog, run) == ["api/10.0.0.1/promoted"]
    with remote_errors():
        request = pb.GetDeployedFilesRequest(bucket_id=bucket.bucket_id, allocation_ids=[each.allocation_id])
        [listed] = (await bucket.placements.GetDeployedFiles(request)).allocations
    assert [(file.path, file.mode) for file in listed.files] == [("Makefile", 0o644)]


async def test_a_repeated_move_changes_nothing(bucket: BucketClient) -> None:
    run = await bucket.begin()
    each = await bucket.allocation("10.0.0.1")
    await bucket.move(run, promotion(each, version="1.0.0"))
    before = await bucket.everything()

    await bucket.move(run, promotion(each, version="1.0.0"))

    assert await bucket.everything() == before


async def test_moves_are_all_or_none(bucket: BucketClient) -> None:
    run = await bucket.begin()
    first, second = await bucket.allocations()

    with pytest.raises(RemoteError) as caught:
        await bucket.move(
            run, promotion(first), a_move(second, pb.ALLOCATION_STATE_STOPPED), step_names=["api/10.0.0.1/promoted"]
        )

    assert (caught.value.status.name, caught.value.code) == ("FAILED_PRECONDITION", "move_not_allowed")
    assert [each.state for each in await bucket.allocations()] == [pb.ALLOCATION_STATE_PLANNED] * 2
    assert await run_verbs.steps(bucket.catalog, run) == []


async def test_a_stale_fence_moves_nothing(bucket: BucketClient, clock: ShiftedClock) -> None:
    run = await bucket.begin()
    each = await bucket.allocation("10.0.0.1")
    stale = run_pb2.Run(run_id=run.run_id, fence=run.fence + 1)

    with pytest.raises(RemoteError) as caught:
        await bucket.move(stale, promotion(each))
    assert caught.value.code == "stale_fence"

    clock.advance(timedelta(minutes=1))
    with pytest.raises(RemoteError) as caught:
        await bucket.move(run, promotion(each))
    assert caught.value.code == "stale_fence"
    assert (await bucket.allocation("10.0.0.1")).state == pb.ALLOCATION_STATE_PLANNED


async def test_an_unknown_allocation_is_not_found(bucket: BucketClient) -> None:
    run = await bucket.begin()

    with pytest.raises(RemoteError) as caught:
        await bucket.move(run, pb.AllocationMove(allocation_id="nobody", to_state=pb.ALLOCATION_STATE_FAILED))
    assert caught.value.status.name == "NOT_FOUND"


async def test_a_move_without_a_state_is_refused(bucket: BucketClient) -> None:
    run = await bucket.begin()

    with pytest.raises(RemoteError) as caught:
        await bucket.move(run, a_move(await bucket.allocation("10.0.0.1"), pb.ALLOCATION_STATE_UNSPECIFIED))
    assert caught.value.status.name == "INVALID_ARGUMENT"


async def test_only_what_is_disabled_is_stopped_and_only_what_left_is_removed(bucket: BucketClient) -> None:
    for state in (pb.ALLOCATION_STATE_STOPPED, pb.ALLOCATION_STATE_REMOVED):
        with pytest.raises(RemoteError) as caught:
            await bucket.settle("10.0.0.1", state)
        assert caught.value.code == "move_not_allowed"

    await bucket.build(OFF)
    await bucket.settle("10.0.0.1", pb.ALLOCATION_STATE_STOPPED)

    assert (await bucket.allocation("10.0.0.1")).state == pb.ALLOCATION_STATE_STOPPED


async def test_a_start_is_owed_from_the_stop_until_a_start_succeeded(bucket: BucketClient) -> None:
    async def move(state: pb.AllocationState.ValueType) -> bool:
        await bucket.settle("10.0.0.1", state)
        return (await bucket.allocation("10.0.0.1")).start_owed

    await bucket.promote("10.0.0.1")
    assert not (await bucket.allocation("10.0.0.1")).start_owed
    assert not await move(pb.ALLOCATION_STATE_DEPLOYING)
    assert not await move(pb.ALLOCATION_STATE_FAILED)

    await bucket.build(OFF)
    assert await move(pb.ALLOCATION_STATE_DEPLOYING)
    assert await move(pb.ALLOCATION_STATE_STOPPED)
    await bucket.build()
    for state in (pb.ALLOCATION_STATE_DEPLOYING, pb.ALLOCATION_STATE_FAILED, pb.ALLOCATION_STATE_DEPLOYING):
        assert await move(state)
    assert (await bucket.allocation("10.0.0.1")).deployed_sha256

    await bucket.promote("10.0.0.1")
    assert not (await bucket.allocation("10.0.0.1")).start_owed
    assert not (await bucket.allocation("10.0.0.2")).start_owed


async def test_the_version_that_ran_before_is_kept_until_another_runs(bucket: BucketClient) -> None:
    async def versions() -> tuple[str, str]:
        one = await bucket.allocation("10.0.0.1")
        return one.previous_version, one.current_version

    assert await versions() == ("0.0.0", "0.0.0")
    await bucket.promote("10.0.0.1", version="1.0.0")
    assert await versions() == ("0.0.0", "1.0.0")
    for _ in range(2):
        await bucket.promote("10.0.0.1", version="2.0.0")
    assert await versions() == ("1.0.0", "2.0.0")


async def test_post_deploy_is_owed_until_it_is_done(bucket: BucketClient) -> None:
    run = await bucket.begin()
    each = await bucket.allocation("10.0.0.1")

    await bucket.move(run, promotion(each), post_deploy_owed_jobs=["api"])
    assert [each.post_deploy_owed for each in await bucket.allocations()] == [True, True]
    await bucket.build_for(run, await bucket.snapshot({"workers.json": "[]"}))
    assert [each.post_deploy_owed for each in await bucket.allocations()] == [True, True]

    await bucket.move(run, post_deploy_done_jobs=["api"])
    assert [each.post_deploy_owed for each in await bucket.allocations()] == [False, False]


async def test_allocations_are_listed_by_filter_and_page(bucket: BucketClient) -> None:
    await bucket.build(DB)

    async def listed(**fields: object) -> list[tuple[str, str]]:
        with remote_errors():
            request = pb.ListAllocationsRequest(bucket_id=bucket.bucket_id, **fields)  # type: ignore[arg-type]
            found = await bucket.placements.ListAllocations(request)
        rest = await listed(**{**fields, "page_token": found.next_page_token}) if found.next_page_token else []
        return [(each.job, each.worker) for each in found.allocations] + rest

    everything = [("api", "10.0.0.1"), ("api", "10.0.0.2"), ("db", "10.0.0.1"), ("db", "10.0.0.2")]
    assert await listed() == everything
    assert await listed(page_size=1) == everything
    assert await listed(jobs=["db"]) == everything[2:]
    assert await listed(workers=["10.0.0.2"]) == [everything[1], everything[3]]
    assert await listed(jobs=["db"], workers=["10.0.0.2"]) == [everything[3]]
    await bucket.build(ONE_WORKER)
    assert await listed() == [everything[0]]
    assert await listed(include_removed=True) == everything


@pytest.mark.parametrize("token", ["x", "[]", "7", '["a"]'])
async def test_a_page_token_of_somebody_else_is_refused(bucket: BucketClient, token: str) -> None:
    with pytest.raises(RemoteError) as caught, remote_errors():
        await bucket.placements.ListAllocations(pb.ListAllocationsRequest(bucket_id=bucket.bucket_id, page_token=token))
    assert caught.value.status.name == "INVALID_ARGUMENT"


async def purge(bucket: BucketClient, *allocations: pb.Allocation, retain_days: int | None = None) -> pb.PurgeAllocationsResponse:
    run = await bucket.begin()
    try:
        with remote_errors():
            return await bucket.placements.PurgeAllocations(
                pb.PurgeAllocationsRequest(
                    bucket_id=bucket.bucket_id,
                    run_id=run.run_id,
                    fence=run.fence,
                    allocation_ids=[each.allocation_id for each in allocations],
                    retain_days=retain_days,
                )
            )
    finally:
        await run_verbs.finish(bucket.catalog, run)


async def test_gc_forgets_what_left_and_was_stopped_with_its_entries(bucket: BucketClient) -> None:
    await bucket.build({"jobs/api/manifest.json": TLS})
    await bucket.promote("10.0.0.2")
    await bucket.build({"jobs/api/manifest.json": TLS, **ONE_WORKER})
    await bucket.settle("10.0.0.2", pb.ALLOCATION_STATE_REMOVED)

    response = await purge(bucket, await bucket.allocation("10.0.0.2"))

    assert response.allocations == 1
    assert response.kv_entries >= 5
    assert [each.worker for each in await bucket.allocations()] == ["10.0.0.1"]
    assert [place[2] for place in await bucket.certificates()] == ["10.0.0.1"]
    entries = await bucket.entries()
    assert not [namespace for namespace in entries if namespace.endswith("10.0.0.2")]
    with remote_errors():
        request = worker_pb2.ListWorkersRequest(bucket_id=bucket.bucket_id, include_removed=True)
        assert len((await bucket.workers.ListWorkers(request)).workers) == 1


async def test_gc_forgets_a_job_with_its_last_allocation(bucket: BucketClient) -> None:
    await bucket.build(DB)
    await bucket.build()
    gone = [each for each in await bucket.allocations() if each.job == "db"]

    await purge(bucket, *gone)

    with remote_errors():
        request = job_pb2.ListJobsRequest(bucket_id=bucket.bucket_id, include_removed=True)
        assert [job.name for job in (await bucket.jobs.ListJobs(request)).jobs] == ["api"]
    assert not [namespace for namespace in await bucket.entries() if "db" in namespace]


async def test_gc_refuses_what_was_never_stopped(bucket: BucketClient) -> None:
    await bucket.promote("10.0.0.2")
    await bucket.build(ONE_WORKER)
    before = await bucket.everything()

    for worker in ("10.0.0.1", "10.0.0.2"):
        with pytest.raises(RemoteError) as caught:
            await purge(bucket, await bucket.allocation(worker))
        assert (caught.value.status.name, caught.value.code) == ("FAILED_PRECONDITION", "not_stopped")
    assert await bucket.everything() == before


async def test_gc_trims_old_versions_and_moves_only_when_asked(bucket: BucketClient, clock: ShiftedClock) -> None:
    for number in range(12):
        await bucket.build({"bucket.conf": f"a = {number}\n"})
    clock.advance(timedelta(days=8))

    assert (await purge(bucket)).kv_versions == 0
    assert (await purge(bucket, retain_days=30)).kv_versions == 0
    assert (await purge(bucket, retain_days=7)).kv_versions == 5
    assert (await bucket.entries("vars"))["vars/bucket"] == {"a": "11"}


async def test_gc_forgets_content_that_nothing_names_any_more(bucket: BucketClient, clock: ShiftedClock) -> None:
    await bucket.upload(b"abandoned")
    await bucket.build({"jobs/api/Makefile": "old:\n"})
    await bucket.build({"jobs/api/Makefile": "new:\n"})
    await purge(bucket)
    assert await bucket.missing(b"abandoned", b"old:\n", b"new:\n") == []

    clock.advance(timedelta(days=2))
    await purge(bucket)

    assert len(await bucket.missing(b"abandoned", b"old:\n")) == 2
    assert await bucket.missing(b"new:\n") == []


async def test_private_keys_and_moves_are_for_executors(bucket: BucketClient) -> None:
    stub = AllocationServiceStub(bucket.catalog.anonymous().channel)
    operator = await bucket.catalog.token_for(Role.OPERATOR)
    refused: list[tuple[Any, Any]] = [
        (stub.GetAllocationCertificates, pb.GetAllocationCertificatesRequest(bucket_id=bucket.bucket_id)),
        (stub.MoveAllocations, pb.MoveAllocationsRequest(bucket_id=bucket.bucket_id)),
        (stub.PurgeAllocations, pb.PurgeAllocationsRequest(bucket_id=bucket.bucket_id)),
        (stub.GetDeployedFiles, pb.GetDeployedFilesRequest(bucket_id=bucket.bucket_id)),
    ]
    for call, request in refused:
        with pytest.raises(RemoteError) as caught, remote_errors():
            await call(request, metadata=operator)
        assert caught.value.status.name == "PERMISSION_DENIED"
    await stub.ListAllocations(pb.ListAllocationsRequest(bucket_id=bucket.bucket_id), metadata=operator)


def test_every_state_is_on_the_wire_and_in_the_table_of_moves() -> None:
    assert set(STATES) == set(AllocationState) == set(ALLOWED_MOVES)
    assert {*STATES.values(), pb.ALLOCATION_STATE_UNSPECIFIED} == set(pb.AllocationState.values())


async def test_whatever_a_move_gives_as_reason_is_kept_readable_and_ends_no_run(bucket: BucketClient) -> None:
    run = await bucket.begin()
    each = await bucket.allocation("10.0.0.1")
    await bucket.move(run, a_move(each, pb.ALLOCATION_STATE_DEPLOYING))

    said = "copy failed: \x1b]0;pwn\x07\x1b[2Jevil \x9b31m\x00" + "x" * 10_000
    await bucket.move(run, a_move(each, pb.ALLOCATION_STATE_FAILED, message=said))

    after = await bucket.allocation("10.0.0.1")
    assert after.state == pb.ALLOCATION_STATE_FAILED
    assert after.message.startswith(r"copy failed: \x1b]0;pwn\x07\x1b[2Jevil \x9b31m\x00xxx")
    assert len(after.message) == 4_000
