"""The story of local mode again, told to a cluster: another context, workers in containers, and nothing else is different."""

from pathlib import Path

import pytest

from tests.cluster.cluster import EXECUTORS, WORKERS, Cluster, ContainerWorker
from tests.e2e.maand import Bucket
from tests.e2e.the_story import HooksAlive, Story, tell_the_workspace

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300), pytest.mark.xdist_group("cluster")]


@pytest.fixture
def workers(cluster: Cluster) -> list[ContainerWorker]:
    """Give the cluster's workers, emptied: buckets before this one used the same ports."""
    workers = [cluster.worker(name) for name in WORKERS]
    for worker in workers:
        worker.run("pkill -f '[l]isten.py'; rm -rf /opt/worker /opt/myapp.state")
    return workers


@pytest.fixture
def bucket(cluster: Cluster, trusted_workers: Bucket, workers: list[ContainerWorker], tmp_path: Path) -> Bucket:
    """Make a bucket that nothing was built in yet."""
    bucket = cluster.bucket(tmp_path / "bucket")
    tell_the_workspace(bucket, workers)
    return bucket


@pytest.fixture
def hooks_alive(cluster: Cluster) -> HooksAlive:
    """Look at the processes of both executors."""
    return lambda: [line for executor in EXECUTORS for line in cluster.processes(executor) if "hook_" in line]


class TestStoryInACluster(Story):
    """Two catalogs, two executors, PostgreSQL; `MAAND_CONTEXT` names them."""
