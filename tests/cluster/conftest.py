"""The cluster, up for the whole module of tests, and a bucket of two jobs that its three workers run."""

import json
from collections.abc import Iterator

import pytest

from tests.cluster.cluster import Cluster, engine_answers
from tests.e2e.maand import Bucket

MAKEFILE = """\
start restart:
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
def bucket(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Bucket:
    """Make the bucket, build it and trust its workers; nothing is deployed yet."""
    bucket = cluster.bucket(tmp_path_factory.mktemp("buckets") / "bucket")
    bucket.write("workspace/workers.json", json.dumps([{"host": f"worker{n}", "labels": ["api"]} for n in (1, 2, 3)]))
    write_job(bucket, "0.1.0")
    bucket.must("build")
    bucket.must("worker", "trust", "--yes")
    return bucket


def write_job(bucket: Bucket, version: str, *, pause: float = 0) -> None:
    """Write the job with a version, and how long it takes to start."""
    manifest = {
        "version": version,
        "selectors": ["api"],
        "max_concurrent_upgrades": 1,
        "hooks": {"hook_seen": {"executed_on": ["cli"]}},
    }
    bucket.write("workspace/jobs/api/manifest.json", json.dumps(manifest))
    bucket.write("workspace/jobs/api/Makefile", MAKEFILE)
    bucket.write("workspace/jobs/api/pause", f"{pause}\n")
    bucket.write("workspace/jobs/api/_hooks/hook_seen.py", HOOK)
