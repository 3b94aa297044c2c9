"""Every service restarts, one after the other, under a loop of deploys and writes: nothing is lost, no run fails."""

import threading

import pytest

from tests.cluster.cluster import Cluster
from tests.cluster.conftest import write_job
from tests.e2e.maand import Bucket, Ended

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1200), pytest.mark.xdist_group("cluster")]

SERVICES = ["catalog1", "catalog2", "gateway1", "executor1", "gateway2", "executor2"]


class Load:
    """Deploys and writes until told to stop."""

    def __init__(self, bucket: Bucket) -> None:
        self.bucket = bucket
        self.ended: list[Ended] = []
        self.written = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "Load":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            write_job(self.bucket, f"1.0.{len(self.ended)}", pause=1)
            self.ended += [self.bucket.run("kv", "set", "vars/job/api", "n", str(self.written + 1))]
            self.written += 1
            self.ended += [self.bucket.run("build"), self.bucket.run("deploy", timeout=180)]


def test_a_rolling_restart_under_load_fails_no_run_and_loses_no_write(cluster: Cluster, bucket: Bucket) -> None:
    with Load(bucket) as load:
        for service in SERVICES:
            cluster.stop(service)
            cluster.start(service)
            cluster.wait_until_healthy(service)
    assert [ended.output for ended in load.ended if ended.exit_code] == []
    assert len(load.ended) > len(SERVICES), "the load went on all the while"
    assert bucket.must("kv", "get", "vars/job/api", "n").stdout.strip() == str(load.written)
    states = {run["state"] for run in bucket.must("runs", "list", "-o", "json").json()}
    assert states == {"succeeded"}
