"""Two catalogs, two executors, PostgreSQL and three workers in containers: the whole path, and what happens when a part ends."""

import json
import subprocess
import time

import pytest

from tests.cluster.cluster import Cluster
from tests.cluster.conftest import write_job
from tests.e2e.maand import Bucket
from tests.testbed.authority import DAY, TestAuthority

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1200), pytest.mark.xdist_group("cluster")]

WORKERS = ["worker1", "worker2", "worker3"]


def versions(bucket: Bucket) -> list[str]:
    """Return what really runs on each worker."""
    said = bucket.must("run_command", "cat /tmp/api.version", "-o", "json").json()
    return sorted(line for line in json.dumps(said).split('"') if line.startswith("0."))


def promoted(bucket: Bucket) -> set[str]:
    rows = bucket.must("cat", "allocations", "-o", "json").json()
    assert sorted(row["worker"] for row in rows) == WORKERS
    return {row["state"] for row in rows}


def owners_of(cluster: Cluster, run_id: str) -> list[str]:
    """Return the executors that claimed a run so far."""
    return [
        service
        for service in ("executor1", "executor2")
        if any("run claimed" in line and run_id in line for line in cluster.log(service).splitlines())
    ]


def begin_deploy(bucket: Bucket, version: str, *, pause: float) -> tuple[subprocess.Popen[str], str]:
    """Start a deploy that takes a while on each worker; return it and its run once it works on a worker."""
    write_job(bucket, version, pause=pause)
    bucket.must("build")
    deploy = bucket.start("deploy", "-o", "jsonl")
    run_id = ""
    assert deploy.stdout is not None
    for line in deploy.stdout:
        run_id = run_id or str(json.loads(line).get("run_id", ""))
        if "batch" in line:
            break
    return deploy, run_id


def ended(deploy: subprocess.Popen[str]) -> int:
    out, err = deploy.communicate(timeout=300)
    print(out[-2000:], err)
    return deploy.returncode


def test_build_deploy_a_hook_and_a_command(bucket: Bucket) -> None:
    assert "3 promoted" in bucket.must("deploy").stderr
    assert promoted(bucket) == {"promoted"}
    hook = bucket.must("hooks", "hook_seen", "api")
    assert hook.exit_code == 0
    assert bucket.must("kv", "get", "vars/job/api", "seen").stdout.strip() == "3"
    assert versions(bucket) == ["0.1.0"] * 3


def test_a_killed_executors_deploy_is_finished_by_the_other(cluster: Cluster, bucket: Bucket) -> None:
    deploy, run_id = begin_deploy(bucket, "0.2.0", pause=5)
    (first,) = owners_of(cluster, run_id)
    cluster.kill(first)
    try:
        assert ended(deploy) == 0
        assert owners_of(cluster, run_id) == ["executor1", "executor2"], "the other one took it over"
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
        assert ended(deploy) == 0
        assert versions(bucket) == [version] * 3
    finally:
        cluster.start(service)


def test_while_the_database_is_away_runs_wait_and_then_go_on(cluster: Cluster, bucket: Bucket) -> None:
    deploy, _ = begin_deploy(bucket, "0.4.0", pause=4)
    cluster.stop("postgres")
    time.sleep(10)
    cluster.start("postgres")
    assert ended(deploy) == 0
    assert promoted(bucket) == {"promoted"}
    assert versions(bucket) == ["0.4.0"] * 3


def context(cluster: Cluster, bucket: Bucket, name: str, *options: object) -> None:
    addresses = "127.0.0.1:17600,127.0.0.1:17610"
    bucket.must("context", "add", name, "--catalog", addresses, *map(str, options))


def test_without_a_token_nothing_is_answered(cluster: Cluster, bucket: Bucket) -> None:
    context(cluster, bucket, "nobody", "--ca", cluster.people / "ca.crt")
    refused = bucket.must("--context", "nobody", "info", exit_code=5)
    assert "this call carries no API token" in refused.stderr


def test_a_viewer_reads_and_does_not_deploy(cluster: Cluster, bucket: Bucket) -> None:
    context(cluster, bucket, "viewer", "--ca", cluster.people / "ca.crt", "--token-file", cluster.people / "viewer.token")
    assert len(bucket.must("--context", "viewer", "cat", "allocations", "-o", "json").json()) == 3
    refused = bucket.must("--context", "viewer", "deploy", exit_code=5)
    assert "cluster viewer may not do this; it needs the role operator" in refused.stderr


def test_an_executors_token_is_worth_nothing_where_people_call(cluster: Cluster, bucket: Bucket) -> None:
    token = cluster.people / "stolen"
    cluster.copy("init", "/cluster/executor/token", token)
    context(cluster, bucket, "thief", "--ca", cluster.people / "ca.crt", "--token-file", token)
    refused = bucket.must("--context", "thief", "info", exit_code=5)
    assert "those show a certificate here" in refused.stderr


def test_an_expired_certificate_is_told_with_its_date(cluster: Cluster, bucket: Bucket) -> None:
    tls = TestAuthority(cluster.config / "late").files("me", lives=(-2 * DAY, -DAY))
    files = ("--ca", cluster.people / "ca.crt", "--certificate", tls.certificate, "--key", tls.key)
    context(cluster, bucket, "late", *files, "--token-file", cluster.people / "operator.token")
    refused = bucket.must("--context", "late", "info", exit_code=5)
    assert "me.crt expired on" in refused.stderr


def test_servers_of_another_ca_are_not_believed(cluster: Cluster, bucket: Bucket) -> None:
    stranger = TestAuthority(cluster.config / "stranger")
    context(cluster, bucket, "stranger", "--ca", stranger.ca, "--token-file", cluster.people / "operator.token")
    refused = bucket.must("--context", "stranger", "info", exit_code=7)
    assert "the server's certificate is not signed by the CA" in refused.stderr
