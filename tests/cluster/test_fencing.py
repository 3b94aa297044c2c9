"""An executor that cannot renew its lease lets go before anybody takes over, and begins nothing when it can again.

Each deploy stands still in a hook of its second batch when the trouble begins. What is believed is the workers' own log: a line
for every step, with the fence under which it ran.
"""

import time
from datetime import UTC, datetime

import pytest

from tests.cluster.cluster import EXECUTORS, WORKERS, Cluster
from tests.cluster.conftest import begin_deploy, exit_code_of
from tests.e2e.maand import Bucket

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600), pytest.mark.xdist_group("cluster")]

LEASE_SECONDS = 15
FIRST = 1
"""Fence of a run's first owner; whoever takes it over has a greater one."""


def settle_on(bucket: Bucket, worker: str) -> None:
    """Let `hook_settle` stand still on that worker from its next start on; "" on none."""
    bucket.must("kv", "set", "vars/job/api", "settle", worker)


def steps_on(cluster: Cluster, worker: str, version: str) -> list[tuple[str, int]]:
    """Return the targets that ran on a worker for a version, each with its fence, in order."""
    lines = (line.split() for line in cluster.worker(worker).run("cat /tmp/api.steps").splitlines())
    return [(target, int(fence)) for target, of_version, _, fence, *_ in lines if of_version == version]


def check_steps(cluster: Cluster, version: str) -> None:
    """What was recorded ran once, what was being done once under each fence, the rest once under the new one."""
    recorded, in_progress, to_come = (steps_on(cluster, worker, version) for worker in WORKERS)
    assert recorded == [("restart", FIRST)]
    ((_, second),) = to_come
    assert second > FIRST
    assert to_come == [("restart", second)]
    assert in_progress == [("restart", FIRST), ("restart", second)]


def hooks_of(cluster: Cluster, executor: str) -> list[str]:
    return [line for line in cluster.processes(executor) if "hook_settle" in line]


def wait_until_hooks_are_gone(cluster: Cluster, executor: str) -> None:
    ends = time.monotonic() + 60
    while hooks_of(cluster, executor):
        assert time.monotonic() < ends, "its hooks are still there"
        time.sleep(0.2)


def wait_until_it_works_again(cluster: Cluster, bucket: Bucket, executor: str) -> None:
    """Start commands until one is carried out by that executor; one that its dead connection was given is told as interrupted."""
    ends = time.monotonic() + 180
    while time.monotonic() < ends:
        ended = bucket.run("run_command", "true", "-o", "json")
        if ended.exit_code == 0 and executor in cluster.owners_of(ended.json()["run"]["run_id"]):
            return
    raise AssertionError(f"{executor} claims nothing any more")


def the_other(executor: str) -> str:
    (other,) = {*EXECUTORS} - {executor}
    return other


def test_an_executor_that_is_cut_off_from_the_catalogs_ends_its_hooks_before_the_other_takes_over(
    cluster: Cluster, bucket: Bucket
) -> None:
    settle_on(bucket, "worker2")
    deploy, run_id = begin_deploy(bucket, "0.5.0", until="settling on")
    (first,) = cluster.owners_of(run_id)
    assert hooks_of(cluster, first)
    settle_on(bucket, "")

    cut_at = datetime.now(UTC)
    with cluster.cut_off(first):
        wait_until_hooks_are_gone(cluster, first)
        assert exit_code_of(deploy) == 0
        fenced_at, taken_over_at = (
            cluster.logged(first, "lease lost", run_id),
            cluster.logged(the_other(first), "run claimed", run_id),
        )
        assert fenced_at is not None
        assert taken_over_at is not None
        assert (fenced_at - cut_at).total_seconds() < LEASE_SECONDS
        assert fenced_at < taken_over_at, "it stopped by itself, not because somebody else had begun"
        check_steps(cluster, "0.5.0")

    wait_until_it_works_again(cluster, bucket, first)
    check_steps(cluster, "0.5.0")


def test_a_frozen_executor_that_wakes_after_a_takeover_starts_nothing_more(cluster: Cluster, bucket: Bucket) -> None:
    settle_on(bucket, "worker2")
    deploy, run_id = begin_deploy(bucket, "0.6.0", until="settling on")
    (first,) = cluster.owners_of(run_id)
    settle_on(bucket, "")

    with cluster.frozen(first):
        assert exit_code_of(deploy) == 0
        assert sorted(cluster.owners_of(run_id)) == sorted(EXECUTORS)

    wait_until_hooks_are_gone(cluster, first)
    wait_until_it_works_again(cluster, bucket, first)
    check_steps(cluster, "0.6.0")
