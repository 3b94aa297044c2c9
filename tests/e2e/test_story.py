"""The whole path on real parts: from `maand init` to a hook changing a fleet of three OpenSSH workers."""

import re
import signal
from contextlib import suppress
from pathlib import Path

import pytest

from tests.e2e.maand import Bucket, Ended, read_until
from tests.testbed.worker import SshWorker

pytestmark = [pytest.mark.xdist_group("e2e"), pytest.mark.timeout(300)]


def bucket_id(bucket: Bucket) -> str:
    found = re.search(r'^bucket_id = "(.+)"', (bucket.path / "maand.conf").read_text(), re.MULTILINE)
    assert found
    return found[1]


def job_path(bucket: Bucket, worker: SshWorker, job: str) -> Path:
    return Path(worker.path(f"/opt/worker/{bucket_id(bucket)}/jobs/{job}"))


def lifecycle(workers: list[SshWorker], job: str) -> list[tuple[float, str, str]]:
    """What ran on the workers, in order of time: (when, target, worker)."""
    seen = []
    for worker in workers:
        log = Path(worker.path("/opt/worker/events.log"))
        for line in log.read_text().splitlines() if log.exists() else []:
            target, of_job, _, when = line.split()
            if of_job == job:
                seen.append((float(when), target, worker.host))
    return sorted(seen)


def token_of(bucket: Bucket) -> str:
    return bucket.must("secret", "reveal", "secrets/job/api", "token").stdout.strip()


def test_from_nothing_to_a_rolling_upgrade(bucket: Bucket, workers: list[SshWorker]) -> None:
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
    assert [(job_path(bucket, worker, "api") / "motd.txt").read_text() for worker in workers] == ["hello\n"] * 3

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
    status = bucket.must("services", "status", "-o", "json").json()
    assert status["running"] is True


def check_first_deploy(bucket: Bucket, workers: list[SshWorker], deployed: Ended) -> None:
    """Waves in order, files in place, secret and variable rendered, hooks ran, nothing leaked."""
    assert [host for _, _, host in lifecycle(workers, "database")] == [workers[0].host]
    starts = lifecycle(workers, "api")
    assert sorted(host for _, target, host in starts if target == "start") == sorted(worker.host for worker in workers)
    assert lifecycle(workers, "database")[0][0] < starts[0][0], "the demanded job starts first"

    token = token_of(bucket)
    assert len(token) >= 32
    assert token not in deployed.output
    assert "the token is ***" in deployed.output
    for worker in workers:
        conf = job_path(bucket, worker, "api") / "app.conf"
        assert conf.read_text() == f"worker={worker.host}\nmigrated_to=v7\nschema=v7\ntoken={token}\n"
        assert conf.stat().st_mode & 0o777 == 0o600
        assert not (job_path(bucket, worker, "api") / "_hooks").exists()
        assert not (job_path(bucket, worker, "api") / "manifest.json").exists()

    assert bucket.must("kv", "get", "vars/job/api", "migrations").stdout.strip() == "3"
    assert bucket.must("kv", "get", "vars/job/api", "reported_by").stdout.strip() == f"bun on {workers[0].host}"
    assert "demanded by api/hook_migrate:{'min_version': '2.0.0'}" in deployed.output
    states = [row["state"] for row in bucket.must("cat", "allocations", "-o", "json").json()]
    assert states == ["promoted"] * 4


def check_rolling_upgrade(workers: list[SshWorker], upgraded: Ended) -> None:
    """Three workers, two at once: the third restarts only after the first two; the database is left alone."""
    restarts = [(when, host) for when, target, host in lifecycle(workers, "api") if target == "restart"]
    assert {host for _, host in restarts[:2]} == {workers[0].host, workers[1].host}
    assert restarts[2][1] == workers[2].host
    assert len(restarts) == 3
    assert [target for _, target, _ in lifecycle(workers, "database")] == ["start"]
    assert "batch 1/2" in upgraded.output
    assert "batch 2/2" in upgraded.output


def test_a_hook_that_exits_3_fails_the_command_and_keeps_the_results_of_the_others(
    bucket: Bucket, workers: list[SshWorker]
) -> None:
    bucket.must("build")
    bucket.must("deploy")
    before = int(bucket.must("kv", "get", "vars/job/api", "migrations").stdout)
    failed = bucket.must("hooks", "hook_migrate", "api", "--", "--fail-on", workers[1].host, exit_code=1)
    assert f"api@{workers[1].host}" in failed.stderr
    assert "exit code 3" in failed.stderr
    assert int(bucket.must("kv", "get", "vars/job/api", "migrations").stdout) == before + 1, "its neighbour in the batch went on"
    runs = bucket.must("runs", "list", "-o", "json").json()
    assert "failed" in str(runs)


def test_a_failing_started_hook_keeps_the_batch_from_being_promoted_and_the_next_deploy_goes_on(
    bucket: Bucket, workers: list[SshWorker]
) -> None:
    bucket.must("build")
    bucket.must("deploy")
    bucket.write("workspace/jobs/api/motd.txt", "second\n")
    state = Path(workers[2].path("/opt/myapp.state"))
    state.write_text("inactive\n")
    bucket.must("build")
    failed = bucket.must("deploy", exit_code=1)
    assert f"api@{workers[2].host}" in failed.stderr
    allocations = {row["worker"]: row["state"] for row in bucket.must("cat", "allocations", "--jobs", "api", "-o", "json").json()}
    assert allocations == {workers[0].host: "promoted", workers[1].host: "promoted", workers[2].host: "failed"}

    state.write_text("active\n")
    bucket.must("deploy")
    restarts = [host for _, target, host in lifecycle(workers, "api") if target == "restart"]
    assert sorted(restarts) == sorted([workers[0].host, workers[1].host, workers[2].host, workers[2].host])


def test_ctrl_c_twice_ends_the_hooks_and_says_what_is_where(bucket: Bucket, workers: list[SshWorker]) -> None:
    bucket.write(
        "workspace/jobs/api/_hooks/hook_active.py",
        "import time\nfrom maand import allocation_ip\nprint('settling on', allocation_ip(), flush=True)\ntime.sleep(120)\n",
    )
    bucket.must("build")
    deploying = bucket.start("deploy")
    with deploying:
        seen = read_until(deploying, "settling on")
        deploying.send_signal(signal.SIGINT)
        seen += read_until(deploying, "after the current batch")
        deploying.send_signal(signal.SIGINT)
        _, rest = deploying.communicate(timeout=60)
    assert deploying.returncode == 130, seen + rest
    states = {row["state"] for row in bucket.must("cat", "allocations", "--jobs", "api", "-o", "json").json()}
    assert "promoted" not in states
    assert hooks_alive(bucket) == []


def hooks_alive(bucket: Bucket) -> list[str]:
    """Return the directories in which hooks of a bucket run."""
    places = []
    for entry in Path("/proc").glob("[0-9]*/cwd"):
        with suppress(OSError):
            places.append(str(entry.readlink()))
    return [place for place in places if place.startswith(f"{bucket.path}/tmp/")]
