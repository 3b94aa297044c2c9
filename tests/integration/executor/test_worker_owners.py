"""Copies, renumbered machines and other buckets on real workers: refused before anything changes, adopted when asked."""

import json
import shutil
from pathlib import Path

import pytest

from maand_contracts.catalog.v1 import run_event_pb2 as pb
from maand_contracts.catalog.v1 import run_spec_pb2 as spec
from tests.integration.executor.deploy_bed import DeployBed, Ended, deploy_bed
from tests.testbed.sshd import SshTestBed


async def adopt(bed: DeployBed, *workers: str, adopt: bool = True, force: bool = False) -> Ended:
    asked = spec.WorkerProbeSpec(probe=spec.WORKER_PROBE_OWNER, workers=workers, adopt=adopt, adopt_other_bucket=force)
    return await bed.run(spec.RunSpec(worker_probe=asked))


def mark_of(ended: Ended) -> pb.WorkerMark:
    return ended.of_kind("worker_report")[0].worker_report.mark


def everything_on(bed: DeployBed) -> dict[str, tuple[bytes, int]]:
    found = (file for worker in bed.workers for file in worker.path("/opt").rglob("*"))
    files = [file for file in found if file.is_file() and file.name != "fence.gate"]
    return {str(file): (file.read_bytes(), file.stat().st_mtime_ns) for file in files}


async def test_a_copy_of_a_bucket_is_refused_until_it_adopts_the_fleet(tmp_path: Path, test_bed: SshTestBed) -> None:
    async with deploy_bed(tmp_path, test_bed, workers=2) as bed:
        bed.write_job("api", {"version": "2.0.0"})
        await bed.build()
        assert (await bed.deploy()).state == "succeeded"
        original = json.loads(bed.on(bed.workers[0], "worker.json").read_text())["owner_id"]
        before = everything_on(bed)

        await bed.serve_copy()
        bed.write_job("api", {"version": "9.0.0"})
        await bed.build()
        refused = await bed.deploy()
        assert refused.state == "failed"
        assert {failure.kind for failure in refused.result.failures} == {pb.FAILURE_KIND_PREREQUISITE}
        assert {failure.worker for failure in refused.result.failures} == set(bed.hosts)
        assert f"another database acts on it for this bucket (owner {original})" in refused.result.failures[0].message
        assert "maand worker adopt" in refused.result.failures[0].help
        assert "maand-catalog new-epoch" in refused.result.failures[0].help
        restart = spec.JobControlSpec(job="api", action=spec.JOB_ACTION_RESTART)
        assert (await bed.run(spec.RunSpec(job_control=restart))).state == "failed"
        status = spec.JobControlSpec(job="api", action=spec.JOB_ACTION_STATUS)
        assert (await bed.run(spec.RunSpec(job_control=status))).state == "succeeded", "looking is allowed"
        logs = {name: content for name, content in before.items() if name.endswith("/log")}
        assert {**everything_on(bed), **logs} == before

        looked = await adopt(bed, bed.hosts[0], adopt=False)
        assert mark_of(looked).owner_id == original
        assert list(mark_of(looked).jobs) == ["api"]
        assert not mark_of(looked).is_ours
        assert mark_of(await adopt(bed)).is_ours
        assert (await bed.deploy()).state == "succeeded"
        assert await bed.states("api") == dict.fromkeys(bed.hosts, "promoted")


async def test_a_renumbered_machine_is_adopted_and_updated_in_place(tmp_path: Path, test_bed: SshTestBed) -> None:
    async with deploy_bed(tmp_path, test_bed, workers=2) as bed:
        old, new = bed.workers
        bed.write_workers([old.host])
        bed.write_job("api", {"version": "1.0.0"})
        await bed.build()
        assert (await bed.deploy()).state == "succeeded"
        bed.on(old, "jobs/api/data").mkdir()
        bed.on(old, "jobs/api/data/kept").write_text("precious")
        new.path("/opt/worker").parent.mkdir(exist_ok=True)
        shutil.copytree(old.path("/opt/worker"), new.path("/opt/worker"), dirs_exist_ok=True)
        bed.write_workers([new.host])
        await bed.build()

        refused = await bed.deploy()
        assert refused.state == "failed"
        assert [failure.worker for failure in refused.result.failures] == [new.host]
        assert f"maand worker adopt -w {new.host}" in refused.result.failures[0].help
        before = bed.log_of(old)

        adopted = await adopt(bed, new.host)
        assert adopted.state == "succeeded", adopted.result
        assert any(old.host in notice for notice in adopted.result.notices)
        deployed = await bed.deploy()
        assert deployed.state == "succeeded", deployed.result
        assert deployed.actions("api")[new.host] == "start"
        assert bed.on(new, "jobs/api/data/kept").read_text() == "precious"
        assert bed.log_of(old) == before, "make stop was not run at the old address"
        assert await bed.states("api") == {new.host: "promoted", old.host: "removed"}


async def test_an_old_address_that_still_reaches_the_machine_is_refused_by_its_worker_json(
    tmp_path: Path, test_bed: SshTestBed
) -> None:
    async with deploy_bed(tmp_path, test_bed, workers=1) as bed:
        worker = bed.workers[0]
        bed.write_job("api", {})
        await bed.build()
        await bed.deploy()
        about = bed.on(worker, "worker.json")
        about.write_text(about.read_text().replace('"worker_id": "', '"worker_id": "f'))
        bed.write_workers([])
        await bed.build()
        before = bed.log_of(worker)
        assert (await bed.deploy()).state == "failed"
        assert bed.log_of(worker) == before


@pytest.mark.parametrize("force", [False, True])
async def test_another_bucket_s_worker_is_adopted_by_force_only(tmp_path: Path, test_bed: SshTestBed, force: bool) -> None:
    async with deploy_bed(tmp_path, test_bed, workers=1) as bed:
        bed.write_job("api", {})
        await bed.build()
        await bed.deploy()
        about = bed.on(bed.workers[0], "worker.json")
        theirs = "00000000-0000-4000-8000-000000000000"
        about.write_text(about.read_text().replace(bed.bucket_id, theirs))
        ended = await adopt(bed, force=force)
        if force:
            assert ended.state == "succeeded"
            assert json.loads(about.read_text())["bucket_id"] == bed.bucket_id
        else:
            assert ended.state == "failed"
            assert f"it belongs to another bucket, {theirs}; --force adopts it" in ended.result.failures[0].message
            assert json.loads(about.read_text())["bucket_id"] == theirs


async def test_a_worker_without_marks_and_our_own_have_nothing_to_adopt(tmp_path: Path, test_bed: SshTestBed) -> None:
    async with deploy_bed(tmp_path, test_bed, workers=1) as bed:
        bed.write_job("api", {})
        await bed.build()
        fresh = await adopt(bed)
        assert fresh.state == "succeeded"
        assert not fresh.of_kind("worker_report")[0].worker_report.HasField("mark")
        await bed.deploy()
        before = everything_on(bed)
        assert mark_of(await adopt(bed)).is_ours
        assert everything_on(bed) == before
