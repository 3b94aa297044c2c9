"""The cluster, up for the whole module of tests, and a bucket with one job that its three workers run."""

import json
import subprocess
from collections.abc import Iterator

import pytest

from tests.cluster.cluster import WORKERS, Cluster, engine_answers
from tests.e2e.maand import Bucket

MAKEFILE = """\
start restart:
\techo "$@ $$NEW_VERSION $$(cat ../../fence)" >>/tmp/$(JOB).steps
\tsleep $$(cat pause)
\techo "$$NEW_VERSION" >/tmp/$(JOB).version
stop:
\trm -f /tmp/$(JOB).version
"""

HOOK = """\
from maand import allocation_ip, get_kv_value, job_name, put_job_variable, run_ssh, semaphore

with semaphore("count"):
    before = int(get_kv_value(f"vars/job/{job_name()}", "seen", default="0"))
    put_job_variable("seen", str(before + 1)).raise_for_status()
version = run_ssh(allocation_ip(), "cat /tmp/api.version")
version.raise_for_status()
print("seen", version.stdout)
"""


SETTLE = """\
import time
from maand import allocation_ip, get_kv_value, job_name

if get_kv_value(f"vars/job/{job_name()}", "settle", default="") == allocation_ip():
    print("settling on", allocation_ip(), flush=True)
    time.sleep(600)
"""


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Bring a cluster up, and take it away."""
    if not engine_answers():
        pytest.fail("no container engine answers: start one, or set DOCKER_HOST; `make test` needs none")
    cluster = Cluster(config=tmp_path_factory.mktemp("config"))
    try:
        cluster.script("up")
        yield cluster
    finally:
        cluster.script("down")


@pytest.fixture(scope="session")
def trusted_workers(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Bucket:
    """Pin the workers' host keys for all buckets (executors share what they know of them); return the bucket that did."""
    bucket = cluster.bucket(tmp_path_factory.mktemp("buckets") / "bucket")
    bucket.write("workspace/workers.json", json.dumps([{"host": worker, "labels": ["api"]} for worker in WORKERS]))
    write_job(bucket, "0.1.0")
    bucket.must("build")
    bucket.must("worker", "trust", "--yes")
    return bucket


@pytest.fixture
def bucket(trusted_workers: Bucket) -> Bucket:
    """Give one bucket to all tests that make none of their own, with its job deployed to three workers."""
    trusted_workers.must("deploy")
    return trusted_workers


def write_job(bucket: Bucket, version: str, *, pause: float = 0) -> None:
    """Write the job with a version, and how long it takes to start."""
    manifest = {
        "version": version,
        "selectors": ["api"],
        "max_concurrent_upgrades": 1,
        "hooks": {"hook_seen": {"executed_on": ["cli"]}, "hook_settle": {"executed_on": ["after_allocation_started"]}},
    }
    bucket.write("workspace/jobs/api/manifest.json", json.dumps(manifest))
    bucket.write("workspace/jobs/api/Makefile", MAKEFILE)
    bucket.write("workspace/jobs/api/pause", f"{pause}\n")
    bucket.write("workspace/jobs/api/_hooks/hook_seen.py", HOOK)
    bucket.write("workspace/jobs/api/_hooks/hook_settle.py", SETTLE)


def begin_deploy(bucket: Bucket, version: str, *, pause: float = 0, until: str = "batch") -> tuple[subprocess.Popen[str], str]:
    """Start a deploy of a new version; return it and its run once it told of that word."""
    write_job(bucket, version, pause=pause)
    bucket.must("build")
    deploy = bucket.start("deploy", "-o", "jsonl")
    run_id = ""
    assert deploy.stdout is not None
    for line in deploy.stdout:
        run_id = run_id or str(json.loads(line).get("run_id", ""))
        if until in line:
            return deploy, run_id
    raise AssertionError(f"the deploy ended before {until}: {deploy.communicate()}")


def exit_code_of(deploy: subprocess.Popen[str]) -> int:
    """Wait for the end of a deploy; show its last words when the test fails."""
    out, err = deploy.communicate(timeout=300)
    print(out[-2000:], err)
    return deploy.returncode
