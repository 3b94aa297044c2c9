"""Every hook of the examples does what its README says, against the in-memory gateway."""

import json
from pathlib import Path
from typing import Any

import pytest

from maand_hook_sdk.hook_runner import HookTestReport, run_hook_test
from maand_hook_sdk.memory_state import MemoryState
from tests.testbed.javascript import ROOT, find_bun

EXAMPLES = ROOT / "examples"


def run(example: str, job: str, hook: str, event: str, *, state: dict[str, Any] | None = None, **how: Any) -> HookTestReport:
    """Run a hook of an example with its own state, changed where the test says so."""
    stored = json.loads((EXAMPLES / example / "state.json").read_text()) | (state or {})
    directory = EXAMPLES / example / "workspace" / "jobs" / job
    return run_hook_test(
        directory, hook, event=event, state=MemoryState.from_json(stored), runtime={"bun": str(find_bun())}, timeout=60, **how
    )


@pytest.mark.parametrize("example", sorted(path.parent.name for path in EXAMPLES.glob("*/workspace")))
def test_the_command_in_the_readme_succeeds(example: str) -> None:
    words = next(line for line in (EXAMPLES / example / "README.md").read_text().splitlines() if line.startswith("Try it"))
    _, _, job, hook, _, event, *_ = words.partition("`")[2].rstrip("`").split()[1:]

    report = run(example, Path(job).name, hook, event)

    assert report.ok, report.stderr


def test_secrets_are_made_once_and_kept() -> None:
    first = run("secret-bootstrap", "vault", "hook_bootstrap", "pre_deploy")
    made = first.state["secrets/job/vault"]
    second = run("secret-bootstrap", "vault", "hook_bootstrap", "pre_deploy", state={"kv": {"secrets/job/vault": dict(made)}})

    assert set(made) == {"admin_password", "cluster_key"}
    assert second.ok, second.stderr
    assert second.state["secrets/job/vault"] == made
    assert not any(value in first.stdout for value in made.values())


def test_a_rotation_replaces_the_password() -> None:
    report = run(
        "secret-bootstrap", "vault", "hook_rotate", "cli", state={"kv": {"secrets/job/vault": {"admin_password": "old"}}}
    )

    assert report.ok, report.stderr
    assert report.state["secrets/job/vault"]["admin_password"] != "old"


@pytest.mark.parametrize(
    ("current", "leader", "order"),
    [
        ("0.0.0", "10.0.0.2", "10.0.0.2,10.0.0.1,10.0.0.3"),
        ("1.0.0", "10.0.0.2", "10.0.0.1,10.0.0.3,10.0.0.2"),
        ("1.0.0", "10.0.0.9", "10.0.0.2,10.0.0.3,10.0.0.1"),
    ],
)
def test_the_leader_goes_first_at_the_start_and_last_in_upgrades(current: str, leader: str, order: str) -> None:
    state = {"current_version": current, "kv": {"vars/job/quorum": {"leader": leader}}}

    report = run("leader-order", "quorum", "hook_order", "pre_deploy", state=state)

    assert report.state["maand/job/quorum"]["rollout_order"] == order


def test_the_rollout_stops_at_an_allocation_that_does_not_settle() -> None:
    state = {
        "ssh": [{"command": "*status*", "stdout": "loading, 9 to go\n"}],
        "environment": {"SETTLE_SECONDS": "0.2", "SETTLE_PAUSE_SECONDS": "0.05"},
    }

    report = run("settle-gate", "cache", "hook_settle", "after_allocation_started", state=state)

    assert report.exit_code == 1
    assert "still 'loading, 9 to go'" in report.stderr


def test_a_job_waits_for_the_schema_that_it_demands() -> None:
    state = {"kv": {"vars/job/database": {"ready_schemas": "reports"}}, "environment": {"READY_SECONDS": "0"}}

    report = run("dependency-readiness", "web", "hook_wait_for_database", "pre_deploy", state=state)

    assert report.exit_code == 1
    assert "has not published the schema" in report.stderr


def test_the_database_publishes_a_schema_for_each_job_that_demands_one() -> None:
    state = {
        "demands": [
            {"job": "web", "hook": "hook_wait_for_database", "demand_config": {"schema": "web"}},
            {"job": "a", "hook": "h"},
        ],
        "ssh": [{"command": "*schema-*"}],
    }

    report = run("dependency-readiness", "database", "hook_publish", "post_deploy", state=state)

    assert report.state["vars/job/database"]["ready_schemas"] == "a,web"


def test_migrations_go_on_from_where_the_schema_is() -> None:
    report = run("single-writer-migration", "orders", "hook_migrate", "pre_deploy")

    assert report.ok, report.stderr
    assert report.state["vars/job/orders"]["schema_version"] == "3"
    assert [call.path for call in report.calls].count("/ssh") == 2
    assert report.calls[-1].path == "/semaphore/release"


def test_a_migration_that_fails_keeps_what_was_done_and_lets_the_slot_go() -> None:
    state = {"ssh": [{"command": "*echo 3 *", "exit_code": 1, "stderr": "no such table"}, {"command": "*echo 2 *"}]}

    report = run("single-writer-migration", "orders", "hook_migrate", "pre_deploy", state=state)

    assert report.exit_code == 1
    assert "no such table" in report.stderr
    assert report.state["vars/job/orders"]["schema_version"] == "2"
    assert report.calls[-1].path == "/semaphore/release"
