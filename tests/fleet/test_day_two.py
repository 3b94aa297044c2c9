"""What happens to a fleet after its first deploy: allocations disabled and enabled, jobs removed, hosts gone."""

import json
import shutil

import pytest

from tests.fleet.fleet import Fleet, write_workers
from tests.testbed.worker import SshWorker

pytestmark = [pytest.mark.fleet, pytest.mark.timeout(240)]

KEPT = "data/precious"


def targets_on(fleet: Fleet, worker: SshWorker, job: str) -> list[str]:
    """Return the targets that ran for a job on a worker, with the content that is there now."""
    return [act.target for act in fleet.acts(job, current(fleet, job)) if act.worker == worker.host]


def current(fleet: Fleet, job: str) -> str:
    """Return the content that the workspace has."""
    return (fleet.bucket.path / f"workspace/jobs/{job}/content").read_text().strip()


def keep_something(fleet: Fleet, worker: SshWorker, job: str) -> None:
    """Let a job have written something that must not be lost."""
    file = fleet.job_path(worker, job, KEPT)
    file.parent.mkdir(exist_ok=True)
    file.write_text("precious\n")


def test_a_disabled_allocation_is_stopped_once_keeps_its_data_and_comes_back(deployed: Fleet) -> None:
    worker = deployed.workers[5]
    deployed.change(deployed.new_content(), "api")
    deployed.bucket.must("deploy")
    keep_something(deployed, worker, "api")
    deployed.bucket.write("workspace/disabled.json", json.dumps({"jobs": {"api": {"allocations": [worker.host]}}}))
    deployed.bucket.must("deploy", "--build")
    deployed.bucket.must("deploy")

    assert targets_on(deployed, worker, "api") == ["restart", "stop"]
    assert worker.path("/opt/stopped").read_text() == "disabled\n"
    assert deployed.states("api")[worker.host] == "stopped"
    assert list(deployed.states("api").values()).count("promoted") == 19
    assert deployed.job_path(worker, "api", KEPT).exists()

    (deployed.bucket.path / "workspace/disabled.json").unlink()
    deployed.bucket.must("deploy", "--build")
    assert targets_on(deployed, worker, "api") == ["restart", "stop", "start"]
    assert set(deployed.states("api").values()) == {"promoted"}
    assert deployed.job_path(worker, "api", KEPT).read_text() == "precious\n"


def test_a_removed_job_is_stopped_loses_its_files_and_loses_its_data_with_gc(deployed: Fleet) -> None:
    worker = deployed.workers[15]
    keep_something(deployed, worker, "web")
    web = deployed.bucket.path / "workspace/jobs/web"
    content = current(deployed, "web")
    shutil.rmtree(web)
    deployed.bucket.must("build")
    refused = deployed.bucket.must("gc")
    assert "deploy first" in refused.output
    deployed.bucket.must("deploy")

    stops = [act.worker for act in deployed.acts("web", content) if act.target == "stop"]
    assert sorted(stops) == sorted(deployed.hosts_of("web"))
    assert not deployed.job_path(worker, "web", "Makefile").exists()
    assert deployed.job_path(worker, "web", KEPT).exists()
    deployed.bucket.must("deploy")
    assert len([act for act in deployed.acts("web", content) if act.target == "stop"]) == 8, "stopped once"

    deployed.bucket.must("gc")
    assert all(not deployed.job_path(deployed.worker(host), "web").exists() for host in deployed.hosts_of("web"))
    listed = deployed.bucket.must("cat", "allocations", "--removed", "-o", "json").json()
    assert {row["job"] for row in listed} == {"api", "database"}


def test_a_worker_that_left_the_fleet_and_is_dead_is_assumed_dead_with_a_warning(deployed: Fleet) -> None:
    dead, rest = deployed.workers[-1], deployed.hosts[:-1]
    before = deployed.acts("api", current(deployed, "api"))
    dead.stop()
    try:
        write_workers(deployed, rest)
        deployed.bucket.must("build")
        done = deployed.bucket.must("deploy")
        assert f"{dead.host} left the fleet and cannot be reached: assumed dead" in done.output
        assert sorted(deployed.states("api")) == sorted(rest)
        assert f"hook_fleet_stopped failed on {dead.host}, which is assumed dead" in done.output
        assert deployed.acts("api", current(deployed, "api")) == before, "the others were left alone"
        deployed.bucket.must("gc")
        listed = deployed.bucket.must("cat", "allocations", "--removed", "-o", "json").json()
        assert dead.host not in {row["worker"] for row in listed}
    finally:
        dead.start()
