"""Real workers that left the fleet while they are sick: what is said, and every way to go on."""

import asyncio
from pathlib import Path

import pytest

from maand_contracts.catalog.v1 import run_event_pb2 as pb
from maand_contracts.catalog.v1 import run_spec_pb2 as spec
from maand_contracts.catalog.v1 import worker_pb2, worker_pb2_grpc
from tests.integration.executor.deploy_bed import DeployBed, deploy_bed
from tests.testbed.sshd import SshTestBed
from tests.waiting import wait_until

GC = spec.RunSpec(gc=spec.GcSpec())


def sicken(bed: DeployBed, how: str) -> None:
    """Make the second worker such that nothing can be stopped there."""
    worker = bed.workers[1]
    match how:
        case "host key":
            worker.change_host_key()
            worker.stop()
            worker.start()
        case "make":
            worker.hide("make")
        case "disk":  # as a read-only one: no file can be opened for writing
            (bed.on(worker, "fence")).unlink()
            (bed.on(worker, "fence")).mkdir()
        case "stop":
            bed.on(worker, "jobs/api/fail-stop").touch()
        case "identity":
            about = bed.on(worker, "worker.json")
            about.write_text(about.read_text().replace(bed.hosts[1], "x").replace('"worker_id": "', '"worker_id": "f'))


async def leave(bed: DeployBed, how: str) -> str:
    """Deploy, let the second worker leave in that state, and change the job; return the worker."""
    bed.write_job("api", {"version": "1.0.0"})
    await bed.build()
    assert (await bed.deploy()).state == "succeeded"
    sicken(bed, how)
    bed.write_workers(bed.hosts[:1])
    bed.write_job("api", {"version": "2.0.0"})
    await bed.build()
    return bed.hosts[1]


@pytest.mark.parametrize("how", ["host key", "make", "disk", "stop", "identity"])
async def test_a_sick_worker_that_left_is_named_with_the_way_out_which_works(
    tmp_path: Path, test_bed: SshTestBed, how: str
) -> None:
    async with deploy_bed(tmp_path, test_bed, workers=2) as bed:
        gone = await leave(bed, how)

        refused = await bed.deploy()
        assert refused.state == "failed"
        assert [failure.worker for failure in refused.result.failures] == [gone]
        assert f"maand worker forget {gone} --lost" in refused.result.failures[0].help
        before = bed.log_of(bed.workers[1])

        request = worker_pb2.ForgetWorkersRequest(bucket_id=bed.bucket_id, workers=[gone])
        await worker_pb2_grpc.WorkerServiceStub(bed.channel).ForgetWorkers(request)
        assert (await bed.deploy()).state == "succeeded"
        assert await bed.states("api") == {bed.hosts[0]: "promoted", gone: "removed"}
        assert (await bed.run(GC)).state == "succeeded"
        assert await bed.states("api") == {bed.hosts[0]: "promoted"}
        assert bed.log_of(bed.workers[1]) == before, "nothing was done there"


@pytest.mark.parametrize("how", ["host key", "make", "disk", "stop", "identity"])
async def test_with_keep_going_everything_else_is_deployed(tmp_path: Path, test_bed: SshTestBed, how: str) -> None:
    async with deploy_bed(tmp_path, test_bed, workers=2) as bed:
        gone = await leave(bed, how)
        ended = await bed.deploy(keep_going=True)
        assert ended.state == "failed"
        assert [failure.worker for failure in ended.result.failures] == [gone]
        assert ended.result.counts["promoted"] == 1
        assert (await bed.states("api"))[bed.hosts[0]] == "promoted"
        assert bed.log_of(bed.workers[0])[-1].startswith("restart api 1.0.0 2.0.0")


async def test_gc_does_not_take_a_connection_that_breaks_for_a_dead_worker(tmp_path: Path, test_bed: SshTestBed) -> None:
    async with deploy_bed(tmp_path, test_bed, workers=2) as bed:
        gone = await leave(bed, "")
        assert (await bed.deploy()).state == "succeeded"
        bed.workers[1].stand_in("rm", "#!/bin/sh\ntouch /opt/deleting\nsleep 4321\n")
        run_id = await bed.begin(GC)
        await asyncio.to_thread(wait_until, bed.workers[1].path("/opt/deleting").exists, what="the deletion's beginning")
        await asyncio.to_thread(bed.workers[1].stop)
        ended = await bed.follow(run_id)
        assert ended.state == "failed", ended.result
        assert [failure.kind for failure in ended.result.failures] == [pb.FAILURE_KIND_CONNECTION]
        assert gone in await bed.states("api")
