"""A deploy from nothing to promoted, and again: on a real catalog and real OpenSSH workers."""

import json
from pathlib import Path

from tests.integration.executor.deploy_bed import deploy_bed
from tests.testbed.sshd import SshTestBed


async def test_a_first_deploy_copies_starts_and_promotes_and_a_second_one_does_nothing(
    tmp_path: Path, test_bed: SshTestBed
) -> None:
    async with deploy_bed(tmp_path, test_bed, workers=2) as bed:
        bed.write_job(
            "api", {"version": "1.0.0"}, {"app.conf": "v1\n", "conf/x.j2": "on {{ worker_ip }}\n", "vars.toml": "a = 1\n"}
        )
        await bed.build()

        first = await bed.deploy()
        assert first.state == "succeeded", first.result
        assert set(first.actions("api").values()) == {"start"}
        assert await bed.states("api") == dict.fromkeys(bed.hosts, "promoted")
        for index, worker in enumerate(bed.workers):
            assert bed.on(worker, "jobs/api/app.conf").read_text() == "v1\n"
            assert bed.on(worker, "jobs/api/conf/x").read_text() == f"on {worker.host}\n"
            assert not bed.on(worker, "jobs/api/manifest.json").exists()
            assert not bed.on(worker, "jobs/api/vars.toml").exists()
            assert bed.log_of(worker) == [f"start api 0.0.0 1.0.0 {index} {worker.host}"]
            assert json.loads(bed.on(worker, "worker.json").read_text())["host"] == worker.host
            assert [job["job"] for job in json.loads(bed.on(worker, "jobs.json").read_text())] == ["api"]

        logins = sum(worker.log.read_text().count("Accepted publickey") for worker in bed.workers)
        second = await bed.deploy()
        assert second.state == "succeeded"
        assert second.result.message == "nothing to do, every allocation is as it should be"
        assert set(second.actions("api").values()) == {"skip"}
        assert second.of_kind("step_started") == []
        assert logins == sum(worker.log.read_text().count("Accepted publickey") for worker in bed.workers)
