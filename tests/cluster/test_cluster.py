"""Two catalogs, two executors, PostgreSQL and three workers in containers: the whole path, and what happens when a part ends."""

import json
import time

import pytest

from tests.cluster.cluster import WORKERS, Cluster
from tests.cluster.conftest import begin_deploy, exit_code_of, write_job
from tests.e2e.maand import Bucket

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1200), pytest.mark.xdist_group("cluster")]


def versions(bucket: Bucket) -> list[str]:
    """Return what really runs on each worker."""
    said = bucket.must("run_command", "cat /tmp/api.version", "-o", "json").json()
    return sorted(line for line in json.dumps(said).split('"') if line.startswith("0."))


def promoted(bucket: Bucket) -> set[str]:
    rows = bucket.must("cat", "allocations", "-o", "json").json()
    assert tuple(sorted(row["worker"] for row in rows)) == WORKERS
    return {row["state"] for row in rows}


def test_build_deploy_a_hook_and_a_command(bucket: Bucket) -> None:
    write_job(bucket, "0.1.1")
    bucket.must("build")
    assert "3 promoted" in bucket.must("deploy").stderr
    assert promoted(bucket) == {"promoted"}
    hook = bucket.must("hooks", "hook_seen", "api")
    assert hook.exit_code == 0
    assert bucket.must("kv", "get", "vars/job/api", "seen").stdout.strip() == "3", "each of three, one at a time"
    assert versions(bucket) == ["0.1.1"] * 3


def test_a_killed_executors_deploy_is_finished_by_the_other(cluster: Cluster, bucket: Bucket) -> None:
    deploy, run_id = begin_deploy(bucket, "0.2.0", pause=5)
    (first,) = cluster.owners_of(run_id)
    cluster.kill(first)
    try:
        assert exit_code_of(deploy) == 0
        assert cluster.owners_of(run_id) == ["executor1", "executor2"], "the other one took it over"
        assert promoted(bucket) == {"promoted"}
        assert versions(bucket) == ["0.2.0"] * 3
    finally:
        cluster.start(first)


@pytest.mark.parametrize("service", ["catalog1", "catalog2"])
def test_when_a_catalog_is_killed_nothing_fails(cluster: Cluster, bucket: Bucket, service: str) -> None:
    version = {"catalog1": "0.3.1", "catalog2": "0.3.2"}[service]
    deploy, _ = begin_deploy(bucket, version, pause=2)
    cluster.kill(service)
    try:
        for _ in range(3):
            bucket.must("info")
        assert exit_code_of(deploy) == 0
        assert versions(bucket) == [version] * 3
    finally:
        cluster.start(service)


def test_while_the_database_is_away_runs_wait_and_then_go_on(cluster: Cluster, bucket: Bucket) -> None:
    deploy, _ = begin_deploy(bucket, "0.4.0", pause=4)
    cluster.stop("postgres")
    time.sleep(10)
    cluster.start("postgres")
    assert exit_code_of(deploy) == 0
    assert promoted(bucket) == {"promoted"}
    assert versions(bucket) == ["0.4.0"] * 3
