"""The story that maand is made for, told once for every way of running it: local mode and the cluster differ in fixtures only.

A class that inherits `Story` runs where `bucket`, `workers` and `hooks_alive` are: test_story.py here, and in tests/cluster.
"""

import json
import re
import shutil
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from tests.command_line import read_until
from tests.e2e.maand import Bucket, Ended

JOBS = Path(__file__).parent / "story"

SYSTEMCTL = """#!/bin/sh
# Stands in for systemd: `is-active myapp` says what the worker's own file says.
cat /opt/myapp.state 2>/dev/null || echo active
grep -qv inactive /opt/myapp.state 2>/dev/null || test ! -f /opt/myapp.state
"""


class Worker(Protocol):
    """An SSH host, and a way to look at it that does not go through maand."""

    @property
    def host(self) -> str:
        """Its name in the bucket."""

    def run(self, script: str) -> str:
        """Run a shell script on it as root and return what it prints."""

    def stand_in(self, name: str, script: str) -> None:
        """Put a command first on the PATH of the worker's user and of sudo."""


Workers = Sequence[Worker]
HooksAlive = Callable[[], list[str]]
"""Names the processes of the bucket's hooks, in words of its own."""


def tell_the_workspace(bucket: Bucket, workers: Workers) -> None:
    """Give a bucket the story's two jobs, and workers for them."""
    listed = [{"host": worker.host, "labels": ["api", "database"] if not i else ["api"]} for i, worker in enumerate(workers)]
    bucket.write("workspace/workers.json", json.dumps(listed, indent=2))
    shutil.rmtree(bucket.path / "workspace" / "jobs", ignore_errors=True)
    shutil.copytree(JOBS, bucket.path / "workspace" / "jobs")
    for worker in workers:
        worker.stand_in("systemctl", SYSTEMCTL)


def on_worker(bucket: Bucket, job: str, name: str) -> str:
    """Return the path of a job's file on its workers."""
    found = re.search(r'^bucket_id = "(.+)"', (bucket.path / "maand.conf").read_text(), re.MULTILINE)
    assert found
    return f"/opt/worker/{found[1]}/jobs/{job}/{name}"


def lifecycle(workers: Workers, job: str) -> list[tuple[float, str, str]]:
    """What ran on the workers, in order of time: (when, target, worker)."""
    seen = []
    for worker in workers:
        for line in worker.run("cat /opt/worker/events.log 2>/dev/null || true").splitlines():
            target, of_job, _, when = line.split()
            if of_job == job:
                seen.append((float(when), target, worker.host))
    return sorted(seen)


class Story:
    """From a built bucket to hooks that change a fleet of three workers."""

    def test_from_nothing_to_a_rolling_upgrade(self, bucket: Bucket, workers: Workers) -> None:
        hosts = [worker.host for worker in workers]

        built = bucket.must("build")
        assert "2 jobs" in built.output
        assert bucket.must("kv", "get", "vars/job/api", "built").stdout.strip() == "yes"

        deployed = bucket.must("deploy")
        check_first_deploy(bucket, workers, deployed)

        again = bucket.must("deploy")
        assert "nothing to do" in again.output.lower()
        assert len(lifecycle(workers, "api")) == 3, "the second deploy started nothing"

        bucket.write("workspace/jobs/api/motd.txt", "hello\n")
        bucket.must("build")
        upgraded = bucket.must("deploy")
        check_rolling_upgrade(workers, upgraded)
        assert [worker.run(f"cat {on_worker(bucket, 'api', 'motd.txt')}") for worker in workers] == ["hello\n"] * 3

        by_hand = bucket.must("hooks", "hook_migrate", "api", "--verbose", "--", "--dry-run", "x")
        for host in hosts:
            assert re.search(
                rf"api@{re.escape(host)} \| migrating api on {re.escape(host)} event cli batch \d --dry-run x", by_hand.output
            )
        assert re.search(rf"batch 0.*{re.escape(hosts[0])}", by_hand.output, re.DOTALL)

        everywhere = bucket.must("run_command", "echo ran as $(id -un) on $WORKER_IP", "-c", "2")
        for host in hosts:
            assert f"ran as root on {host}" in everywhere.output

        healthy = bucket.must("health_check")
        assert "database" in healthy.output

    def test_a_hook_that_exits_3_fails_the_command_and_keeps_the_results_of_the_others(
        self, bucket: Bucket, workers: Workers
    ) -> None:
        bucket.must("build")
        bucket.must("deploy")
        before = int(bucket.must("kv", "get", "vars/job/api", "migrations").stdout)
        failed = bucket.must("hooks", "hook_migrate", "api", "--", "--fail-on", workers[1].host, exit_code=1)
        assert f"api@{workers[1].host}" in failed.stderr
        assert "exit code 3" in failed.stderr
        after = int(bucket.must("kv", "get", "vars/job/api", "migrations").stdout)
        assert after == before + 1, "its neighbour in the batch went on"
        runs = bucket.must("runs", "list", "-o", "json").json()
        assert "failed" in str(runs)

    def test_a_failing_started_hook_keeps_the_batch_from_being_promoted_and_the_next_deploy_goes_on(
        self, bucket: Bucket, workers: Workers
    ) -> None:
        bucket.must("build")
        bucket.must("deploy")
        bucket.write("workspace/jobs/api/motd.txt", "second\n")
        workers[2].run("echo inactive >/opt/myapp.state")
        bucket.must("build")
        failed = bucket.must("deploy", exit_code=1)
        assert f"api@{workers[2].host}" in failed.stderr
        rows = bucket.must("cat", "allocations", "--jobs", "api", "-o", "json").json()
        allocations = {row["worker"]: row["state"] for row in rows}
        assert allocations == {workers[0].host: "promoted", workers[1].host: "promoted", workers[2].host: "failed"}

        workers[2].run("echo active >/opt/myapp.state")
        bucket.must("deploy")
        restarts = [host for _, target, host in lifecycle(workers, "api") if target == "restart"]
        assert sorted(restarts) == sorted([workers[0].host, workers[1].host, workers[2].host, workers[2].host])

    def test_ctrl_c_twice_ends_the_hooks_and_says_what_is_where(self, bucket: Bucket, hooks_alive: HooksAlive) -> None:
        bucket.write(
            "workspace/jobs/api/_hooks/hook_active.py",
            "import time\nfrom maand import allocation_ip\nprint('settling on', allocation_ip(), flush=True)\ntime.sleep(120)\n",
        )
        bucket.must("build")
        deploying = bucket.start("deploy")
        with deploying:
            seen = read_until(deploying, "settling on")
            assert hooks_alive()
            deploying.send_signal(signal.SIGINT)
            seen += read_until(deploying, "after the current batch")
            deploying.send_signal(signal.SIGINT)
            _, rest = deploying.communicate(timeout=60)
        assert deploying.returncode == 130, seen + rest
        states = {row["state"] for row in bucket.must("cat", "allocations", "--jobs", "api", "-o", "json").json()}
        assert "promoted" not in states
        assert hooks_alive() == []


def check_first_deploy(bucket: Bucket, workers: Workers, deployed: Ended) -> None:
    """Waves in order, files in place, secret and variable rendered, hooks ran, nothing leaked."""
    assert [host for _, _, host in lifecycle(workers, "database")] == [workers[0].host]
    starts = lifecycle(workers, "api")
    assert sorted(host for _, target, host in starts if target == "start") == sorted(worker.host for worker in workers)
    assert lifecycle(workers, "database")[0][0] < starts[0][0], "the demanded job starts first"

    token = bucket.must("secret", "reveal", "secrets/job/api", "token").stdout.strip()
    assert len(token) >= 32
    assert token not in deployed.output
    assert "the token is ***" in deployed.output
    conf, hooks, manifest = (on_worker(bucket, "api", name) for name in ("app.conf", "_hooks", "manifest.json"))
    for worker in workers:
        assert worker.run(f"cat {conf}") == f"worker={worker.host}\nmigrated_to=v7\nschema=v7\ntoken={token}\n"
        assert worker.run(f"stat -c %a {conf}") == "600\n"
        worker.run(f"test ! -e {hooks} -a ! -e {manifest}")

    assert bucket.must("kv", "get", "vars/job/api", "migrations").stdout.strip() == "3"
    assert bucket.must("kv", "get", "vars/job/api", "reported_by").stdout.strip() == f"bun on {workers[0].host}"
    assert "demanded by api/hook_migrate:{'min_version': '2.0.0'}" in deployed.output
    states = [row["state"] for row in bucket.must("cat", "allocations", "-o", "json").json()]
    assert states == ["promoted"] * 4


def check_rolling_upgrade(workers: Workers, upgraded: Ended) -> None:
    """Three workers, two at once: the third restarts only after the first two; the database is left alone."""
    restarts = [(when, host) for when, target, host in lifecycle(workers, "api") if target == "restart"]
    assert {host for _, host in restarts[:2]} == {workers[0].host, workers[1].host}
    assert restarts[2][1] == workers[2].host
    assert len(restarts) == 3
    assert [target for _, target, _ in lifecycle(workers, "database")] == ["start"]
    assert "batch 1/2" in upgraded.output
    assert "batch 2/2" in upgraded.output
