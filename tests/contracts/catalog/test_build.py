"""What a build makes of a workspace: on SQLite and on PostgreSQL, through real gRPC."""

import asyncio
import json
import uuid
from datetime import timedelta

import pytest

from maand_catalog.building import builder as building
from maand_catalog.rules.runs import StaleFence
from maand_contracts.catalog.v1 import allocation_pb2 as pb
from maand_contracts.catalog.v1 import job_pb2, worker_pb2, workspace_pb2
from maand_wire.errors import RemoteError, remote_errors
from tests.contracts.catalog import run_verbs
from tests.contracts.catalog.bucket_verbs import TLS, WORKSPACE, BucketClient, a_new_bucket
from tests.contracts.catalog.conftest import ShiftedClock
from tests.contracts.catalog.serving import ServedCatalog

ONE_WORKER = '[{"host": "10.0.0.1", "labels": ["api"]}]'
PORT = '{"resources": {"ports": {"http": {}}}}'


@pytest.fixture
async def bucket(catalog: ServedCatalog) -> BucketClient:
    return await a_new_bucket(catalog)


async def test_a_first_build_places_every_job_on_its_workers(bucket: BucketClient) -> None:
    response = await bucket.build()

    assert (response.changed, response.jobs, response.workers, response.active_allocations) == (True, 1, 2, 2)
    assert (response.added_allocations, response.removed_allocations) == (2, 0)
    found = await bucket.allocations()
    assert [(each.job, each.worker, each.index, each.state) for each in found] == [
        ("api", "10.0.0.1", 0, pb.ALLOCATION_STATE_PLANNED),
        ("api", "10.0.0.2", 1, pb.ALLOCATION_STATE_PLANNED),
    ]
    assert found[0].allocation_id == str(uuid.uuid5(uuid.UUID(bucket.bucket_id), "api|10.0.0.1"))
    assert (found[0].current_version, found[0].new_version) == ("0.0.0", "0.0.0")
    built = await bucket.get()
    assert (built.workers, built.jobs, built.active_allocations) == (2, 1, 2)


async def test_an_unchanged_build_rewrites_nothing(bucket: BucketClient) -> None:
    await bucket.build({"jobs/api/manifest.json": TLS, "jobs/api/vars.toml": "a = 1\n"})
    before = await bucket.everything()

    response = await bucket.build({"jobs/api/manifest.json": TLS, "jobs/api/vars.toml": "a = 1\n"})

    assert not response.changed
    assert (response.jobs, response.workers, response.active_allocations) == (1, 2, 2)
    assert await bucket.everything() == before


async def test_other_settings_are_a_change(bucket: BucketClient) -> None:
    await bucket.build()
    await bucket.apply("certs_ttl = 30\n")

    assert (await bucket.build()).changed


async def test_a_worker_that_left_leaves_its_allocation_removed(bucket: BucketClient) -> None:
    await bucket.build()
    await bucket.promote("10.0.0.2")

    response = await bucket.build({"workers.json": ONE_WORKER})

    assert (response.removed_allocations, response.active_allocations) == (1, 1)
    gone = await bucket.allocation("10.0.0.2")
    assert (gone.removed, gone.state) == (True, pb.ALLOCATION_STATE_PROMOTED)
    assert "next deploy" in gone.message
    with remote_errors():
        request = worker_pb2.ListWorkersRequest(bucket_id=bucket.bucket_id, include_removed=True)
        listed = (await bucket.workers.ListWorkers(request)).workers
    assert [(worker.name, worker.removed) for worker in listed] == [("10.0.0.1", False), ("10.0.0.2", True)]


async def test_what_was_never_deployed_needs_no_stop_when_it_leaves(bucket: BucketClient) -> None:
    await bucket.build()

    await bucket.build({"workers.json": ONE_WORKER})

    gone = await bucket.allocation("10.0.0.2")
    assert (gone.removed, gone.state) == (True, pb.ALLOCATION_STATE_REMOVED)


async def test_a_job_that_left_keeps_files_hooks_and_entries_until_gc(bucket: BucketClient) -> None:
    files = {
        "jobs/db/manifest.json": '{"selectors": ["api"], "hooks": {"hook_x": {"executed_on": ["after_allocation_stopped"]}}}',
        "jobs/db/Makefile": "",
        "jobs/db/_hooks/hook_x.py": "print()",
    }
    await bucket.build(files)

    await bucket.build()

    with remote_errors():
        shown = await bucket.jobs.ListJobs(job_pb2.ListJobsRequest(bucket_id=bucket.bucket_id))
        all_jobs = await bucket.jobs.ListJobs(job_pb2.ListJobsRequest(bucket_id=bucket.bucket_id, include_removed=True))
        kept = await bucket.jobs.ListJobFiles(job_pb2.ListJobFilesRequest(bucket_id=bucket.bucket_id, job="db"))
    assert [job.name for job in shown.jobs] == ["api"]
    assert [(job.name, job.removed, len(job.hooks)) for job in all_jobs.jobs] == [("api", False, 0), ("db", True, 1)]
    assert [file.path for file in kept.files] == ["Makefile", "_hooks/hook_x.py", "manifest.json"]
    assert "maand/job/db/worker/10.0.0.1" in await bucket.entries()
    assert (await bucket.entries())["maand/bucket"]["jobs"] == "api"


async def test_what_comes_back_before_it_was_stopped_goes_on_as_before(bucket: BucketClient) -> None:
    await bucket.build()
    await bucket.promote("10.0.0.2", version="1.0.0")
    await bucket.build({"workers.json": ONE_WORKER})

    response = await bucket.build()

    back = await bucket.allocation("10.0.0.2")
    assert (back.removed, back.state, back.current_version) == (False, pb.ALLOCATION_STATE_PROMOTED, "1.0.0")
    assert response.added_allocations == 0


async def test_what_comes_back_after_it_was_stopped_begins_anew(bucket: BucketClient) -> None:
    await bucket.build()
    await bucket.promote("10.0.0.2", version="1.0.0")
    await bucket.build({"workers.json": ONE_WORKER})
    await bucket.settle("10.0.0.2", pb.ALLOCATION_STATE_REMOVED)

    response = await bucket.build()

    back = await bucket.allocation("10.0.0.2")
    assert (back.removed, back.state, back.current_version) == (False, pb.ALLOCATION_STATE_PLANNED, "0.0.0")
    assert back.deployed_sha256 == b""
    assert response.added_allocations == 1


async def test_disabled_allocations_stay_placed_and_are_not_active(bucket: BucketClient) -> None:
    response = await bucket.build({"disabled.json": '{"workers": ["10.0.0.2"]}'})

    assert response.active_allocations == 1
    assert [each.disabled for each in await bucket.allocations()] == [False, True]
    entries = await bucket.entries("maand/job/api")
    assert entries["maand/job/api"]["workers"] == "10.0.0.1,10.0.0.2"
    assert entries["maand/job/api"]["rollout_order"] == "10.0.0.1"


async def test_an_allocation_enabled_again_says_that_it_will_be_started(bucket: BucketClient) -> None:
    off = {"disabled.json": '{"jobs": {"api": {"allocations": ["10.0.0.2"]}}}'}
    await bucket.build(off)
    await bucket.settle("10.0.0.2", pb.ALLOCATION_STATE_STOPPED)

    await bucket.build()

    back = await bucket.allocation("10.0.0.2")
    assert (back.disabled, back.state) == (False, pb.ALLOCATION_STATE_STOPPED)
    assert "starts it" in back.message


async def test_a_promoted_allocation_is_pending_while_something_newer_is_wanted(bucket: BucketClient) -> None:
    await bucket.build()
    await bucket.promote("10.0.0.1", "10.0.0.2")

    await bucket.build({"jobs/api/Makefile": "start:\n\tnew\n"})
    assert [each.state for each in await bucket.allocations()] == [pb.ALLOCATION_STATE_PENDING] * 2

    await bucket.build()
    assert [each.state for each in await bucket.allocations()] == [pb.ALLOCATION_STATE_PROMOTED] * 2


@pytest.mark.parametrize(
    ("files", "state"),
    [
        ({"jobs/api/manifest.json": '{"version": "2.0.0"}'}, pb.ALLOCATION_STATE_PENDING),
        ({"jobs/api/app.conf.j2": "x"}, pb.ALLOCATION_STATE_PENDING),
        ({"jobs/api/manifest.json": TLS}, pb.ALLOCATION_STATE_PENDING),
        ({"jobs/api/_hooks/helper.py": "x"}, pb.ALLOCATION_STATE_PROMOTED),
        ({"jobs/api/manifest.json": '{"max_concurrent_upgrades": 2}'}, pb.ALLOCATION_STATE_PROMOTED),
        ({"bucket.conf": "a = 1\n"}, pb.ALLOCATION_STATE_PROMOTED),
    ],
    ids=["version", "file", "certificate", "hook", "manifest", "settings that no template shows"],
)
async def test_only_what_reaches_the_worker_makes_an_allocation_pending(
    bucket: BucketClient, files: dict[str, str], state: pb.AllocationState.ValueType
) -> None:
    await bucket.build()
    await bucket.promote("10.0.0.1")

    await bucket.build(files)

    assert (await bucket.allocation("10.0.0.1")).state == state


async def test_settings_make_a_job_with_templates_pending(bucket: BucketClient) -> None:
    template = {"jobs/api/app.conf.j2": "x"}
    await bucket.build(template)
    await bucket.promote("10.0.0.1")

    await bucket.build({**template, "jobs/api/vars.toml": "a = 1\n"})

    assert (await bucket.allocation("10.0.0.1")).state == pb.ALLOCATION_STATE_PENDING


async def test_jobs_come_in_the_order_of_their_demands(bucket: BucketClient) -> None:
    demand = (
        '{"version": "1", "selectors": ["api"], "hooks": {"hook_x": '
        '{"executed_on": ["cli"], "demands": {"job": "%s", "hook": "hook_x"}}}}'
    )
    files = {
        "jobs/c/manifest.json": '{"version": "1", "selectors": ["api"], "hooks": {"hook_x": {"executed_on": ["cli"]}}}',
        "jobs/b/manifest.json": demand % "c",
        "jobs/a/manifest.json": demand % "b",
    }
    for job in "abc":
        files |= {f"jobs/{job}/Makefile": "", f"jobs/{job}/_hooks/hook_x.py": ""}

    await bucket.build(files)

    with remote_errors():
        listed = (await bucket.jobs.ListJobs(job_pb2.ListJobsRequest(bucket_id=bucket.bucket_id))).jobs
    assert {job.name: job.deployment_seq for job in listed} == {"a": 2, "b": 1, "c": 0, "api": 0}
    assert {job.name: list(job.demanded_jobs) for job in listed}["a"] == ["b"]


async def test_a_wrong_workspace_changes_nothing_and_says_everything(bucket: BucketClient) -> None:
    await bucket.build()
    before = await bucket.everything()

    with pytest.raises(RemoteError) as caught:
        await bucket.build({"jobs/api/manifest.json": '{"selectr": 1, "version": "x"}', "workers.json": "[{}]"})

    assert (caught.value.status.name, caught.value.code) == ("INVALID_ARGUMENT", "invalid_workspace")
    assert [problem.code for problem in caught.value.problems] == ["unknown_key", "bad_version", "missing_key"]
    assert await bucket.everything() == before


async def test_checking_finds_the_same_problems_and_changes_nothing(bucket: BucketClient) -> None:
    snapshot_id = await bucket.snapshot({**WORKSPACE, "jobs/api/manifest.json": '{"x": 1}'})
    before = await bucket.everything()

    with remote_errors():
        request = workspace_pb2.CheckSnapshotRequest(bucket_id=bucket.bucket_id, snapshot_id=snapshot_id)
        found = await bucket.workspaces.CheckSnapshot(request)

    assert [(problem.code, problem.line, problem.column) for problem in found.problems] == [("unknown_key", 1, 2)]
    assert await bucket.everything() == before


async def test_a_stale_fence_builds_nothing(bucket: BucketClient) -> None:
    snapshot_id = await bucket.snapshot(WORKSPACE)
    run = await bucket.begin()
    before = await bucket.everything()

    with pytest.raises(RemoteError) as caught:
        await bucket.build_for(run, snapshot_id, fence=run.fence + 1)

    assert (caught.value.status.name, caught.value.code) == ("FAILED_PRECONDITION", "stale_fence")
    assert await bucket.everything() == before


async def test_a_claim_lost_at_the_last_moment_undoes_everything(bucket: BucketClient, monkeypatch: pytest.MonkeyPatch) -> None:
    await bucket.build()
    snapshot_id = await bucket.snapshot({**WORKSPACE, "jobs/api/manifest.json": TLS, "workers.json": ONE_WORKER})
    run = await bucket.begin()
    before = await bucket.everything()

    def lost(*_: object) -> None:
        raise StaleFence("taken over", facts={})

    monkeypatch.setattr(building, "get_held_run", lost)
    with pytest.raises(RemoteError) as caught:
        await bucket.build_for(run, snapshot_id)

    assert caught.value.code == "stale_fence"
    assert await bucket.everything() == before


async def test_a_run_that_ended_builds_nothing(bucket: BucketClient) -> None:
    snapshot_id = await bucket.snapshot(WORKSPACE)
    run = await bucket.begin()
    await run_verbs.finish(bucket.catalog, run)

    with pytest.raises(RemoteError) as caught:
        await bucket.build_for(run, snapshot_id)

    assert caught.value.status.name == "FAILED_PRECONDITION"
    assert await bucket.allocations() == []


async def test_a_lease_that_lapsed_builds_nothing(bucket: BucketClient, clock: ShiftedClock) -> None:
    snapshot_id = await bucket.snapshot(WORKSPACE)
    run = await bucket.begin()
    clock.advance(timedelta(seconds=30))

    with pytest.raises(RemoteError) as caught:
        await bucket.build_for(run, snapshot_id)

    assert caught.value.code == "stale_fence"


async def test_an_unknown_snapshot_is_not_found(bucket: BucketClient) -> None:
    run = await bucket.begin()

    with pytest.raises(RemoteError) as caught:
        await bucket.build_for(run, "0" * 64)

    assert caught.value.status.name == "NOT_FOUND"


async def test_a_build_may_be_repeated_by_the_same_claim(bucket: BucketClient) -> None:
    snapshot_id = await bucket.snapshot(WORKSPACE)
    run = await bucket.begin()

    assert (await bucket.build_for(run, snapshot_id)).changed
    assert not (await bucket.build_for(run, snapshot_id)).changed


async def test_more_problems_than_a_call_can_carry_are_counted_and_all_told_by_a_check(bucket: BucketClient) -> None:
    workers = json.dumps([{"host": f"h{number}", "bad": 1} for number in range(9000)], indent=1)

    with pytest.raises(RemoteError) as caught:
        await bucket.build({"workers.json": workers})

    assert "9000 problems, the first" in caught.value.message
    assert caught.value.facts["problems"] == "9000"
    assert len(caught.value.problems) > 3000
    with remote_errors():
        snapshot_id = await bucket.snapshot({**WORKSPACE, "workers.json": workers})
        request = workspace_pb2.CheckSnapshotRequest(bucket_id=bucket.bucket_id, snapshot_id=snapshot_id)
        assert len((await bucket.workspaces.CheckSnapshot(request)).problems) == 9000


async def test_two_calls_of_one_claim_at_once_build_once(bucket: BucketClient) -> None:
    snapshot_id = await bucket.snapshot(WORKSPACE)
    run = await bucket.begin()

    responses = await asyncio.gather(*(bucket.build_for(run, snapshot_id) for _ in range(4)))

    assert {response.active_allocations for response in responses} == {2}
    assert len(await bucket.allocations()) == 2
