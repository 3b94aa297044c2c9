"""The services are killed at random moments of deploys, again and again: everything is promoted in the end, nothing twice.

Each round changes the content of all jobs, builds, deploys, and kills. On even rounds the services that the next command starts
take the deploy over; on odd rounds that is cancelled after the batch it was in, and a new deploy does what is left.
"""

import os
import random
import signal
import time

import pytest

from tests.fleet.fleet import Fleet, lifecycle_counts, promoted_steps, services_pid
from tests.fleet.watching import hooks_alive, is_gone, wait_for

pytestmark = [pytest.mark.fleet, pytest.mark.timeout(900)]

ROUNDS = int(os.environ.get("MAAND_TEST_KILLS", "12"))
SEED = int(os.environ.get("MAAND_TEST_SEED", "0")) or random.randrange(1, 1_000_000)
JOBS = ("api", "web", "database")
QUICK = {"max_concurrent_starts": 0, "max_concurrent_upgrades": 10}
"""Two batches of `api`: there is a middle to be killed in, and a dozen rounds take a minute."""


def begin_deploy_and_kill(fleet: Fleet, after: float) -> str:
    """Deploy, kill the services after that many seconds, wait until what they had started is gone; return the run's id."""
    pid = services_pid(fleet.bucket)
    begun = fleet.bucket.must("deploy", "--build", "--detach", "-o", "json").json()
    time.sleep(after)
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: is_gone(pid), "the services to be gone")
    wait_for(lambda: not hooks_alive(fleet.bucket), "hooks to be gone")
    return str(begun["run_id"])


def deploy_time(fleet: Fleet) -> float:
    """Return how long a deploy of changed content takes here."""
    fleet.write_content(fleet.new_content())
    began = time.monotonic()
    fleet.bucket.must("deploy", "--build")
    return time.monotonic() - began


def go_on(fleet: Fleet, run_id: str, *, by_takeover: bool) -> None:
    """Let what was interrupted come to its end."""
    if by_takeover:
        fleet.bucket.must("runs", "watch", run_id)
        return
    fleet.bucket.run("runs", "cancel", run_id)  # refused when the run had ended before it was killed
    fleet.bucket.must("deploy", "--build", "--lock-timeout", "60s")


def test_services_killed_at_random_moments_of_a_deploy_promote_everything_and_nothing_twice(deployed: Fleet) -> None:
    print(f"MAAND_TEST_SEED={SEED}")
    moments = random.Random(SEED)
    for job in ("api", "database", "web"):
        deployed.change_manifest(job, **QUICK)
    span = deploy_time(deployed)
    for number in range(ROUNDS):
        content = deployed.new_content()
        deployed.write_content(content)
        run_id = begin_deploy_and_kill(deployed, moments.random() * span)
        recorded = promoted_steps(deployed.bucket)
        go_on(deployed, run_id, by_takeover=number % 2 == 0)
        check_round(deployed, content, recorded)


def check_round(fleet: Fleet, content: str, recorded: set[tuple[str, str]]) -> None:
    """Insist on what every round must come to."""
    after = lifecycle_counts(fleet, content, *JOBS)
    expected = {(job, host) for job in JOBS for host in fleet.hosts_of(job)}
    assert {(row["job"], row["worker"]): row["state"] for row in fleet.allocations()} == dict.fromkeys(expected, "promoted")
    assert all(fleet.delivered(job) == {content} for job in JOBS)
    assert set(after) == expected
    assert {key: after[key] for key in recorded} == dict.fromkeys(recorded, 1), "what was promoted did not run again"
    assert {key: count for key, count in after.items() if count > 2} == {}, "what was in flight ran twice at most"
    assert hooks_alive(fleet.bucket) == []
    assert fleet.bucket.must("semaphore", "list", "-o", "json").json() == []
