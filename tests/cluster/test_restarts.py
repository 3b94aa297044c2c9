"""What there are two of restarts, one after the other, under loops of deploys and of writes: nothing is lost, no run fails."""

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

import pytest

from tests.cluster.cluster import Cluster
from tests.cluster.conftest import write_job
from tests.e2e.maand import Bucket, Ended

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1200), pytest.mark.xdist_group("cluster")]

RESTARTS = (["catalog1"], ["catalog2"], ["executor1", "gateway1"], ["executor2", "gateway2"])
"""One after the other; a gateway while its executor is down, so that no hook calls it just then. There is one PostgreSQL:
a command that begins while it is away is refused after two seconds, and what had begun before waits (test_cluster.py)."""


class Loop:
    """Does something again and again, with a growing number, until told to stop."""

    def __init__(self, act: Callable[[int], list[Ended]]) -> None:
        self._act = act
        self.ended: list[Ended] = []
        self.rounds = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join()

    def wait_for_another_round(self) -> None:
        """Return when a round that began after this call is over."""
        wanted = self.rounds + 2
        while self.rounds < wanted and self._thread.is_alive():
            self._stop.wait(0.1)

    def _run(self) -> None:
        while not self._stop.is_set():
            self.ended += self._act(self.rounds)
            self.rounds += 1


def test_a_rolling_restart_under_load_fails_no_run_and_loses_no_write(cluster: Cluster, bucket: Bucket) -> None:
    def deploy(number: int) -> list[Ended]:
        write_job(bucket, f"1.0.{number}", pause=1)
        return [bucket.run("build"), bucket.run("deploy", timeout=180)]

    def write(number: int) -> list[Ended]:
        return [bucket.run("kv", "set", "vars/job/api", f"n{number}", str(number))]

    with Loop(deploy) as deploys, Loop(write) as writes:
        for services in RESTARTS:
            for service in services:
                cluster.stop(service)
            for service in reversed(services):
                cluster.start(service)
                cluster.wait_until_healthy(service)
        deploys.wait_for_another_round()
        writes.wait_for_another_round()

    assert [ended.output for ended in deploys.ended + writes.ended if ended.exit_code] == []
    assert deploys.rounds > 2, "deploys went on all the while"
    assert writes.rounds > len(RESTARTS), "and writes"
    kept = {row["key"] for row in bucket.must("kv", "list", "vars/job/api", "-o", "json").json()}
    assert {f"n{number}" for number in range(writes.rounds)} - kept == set()
    states = {run["state"] for run in bucket.must("runs", "list", "-o", "json").json()}
    assert states == {"succeeded"}
