"""Batches and the environment of an invocation: the tables of the specification."""

from dataclasses import replace

import pytest

from maand_executor.rules.facts import Allocation, RolloutOrder
from maand_executor.rules.hook_environment import InvocationFacts, invocation_environment, lifecycle_variables
from maand_executor.rules.waves import Batch, BatchPosition, lifecycle_batch, plan_batches, single_batch

A, B, C, D = (Allocation(allocation_id=f"id-{n}", job="api", worker=f"10.0.0.{n}", index=n - 1) for n in range(1, 5))


def hosts(batches: tuple[Batch, ...]) -> list[tuple[int, int, tuple[str, ...]]]:
    return [(batch.index, batch.count, batch.workers) for batch in batches]


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (1, [(0, 3, (A.worker,)), (1, 3, (B.worker,)), (2, 3, (C.worker,))]),
        (2, [(0, 2, (A.worker, B.worker)), (1, 2, (C.worker,))]),
        (3, [(0, 1, (A.worker, B.worker, C.worker))]),
        (0, [(0, 1, (A.worker, B.worker, C.worker))]),
    ],
)
def test_batches_hold_so_many_and_the_last_one_the_rest(size: int, expected: list[tuple[int, int, tuple[str, ...]]]) -> None:
    assert hosts(plan_batches([A, B, C], size)) == expected


def test_no_allocations_are_no_batches() -> None:
    assert plan_batches([], 2) == ()
    assert lifecycle_batch([], BatchPosition(index=0, count=1)) == ()


def test_a_lifecycle_batch_keeps_its_place_among_those_of_its_phase() -> None:
    assert hosts(lifecycle_batch([B, C], BatchPosition(index=1, count=4))) == [(1, 4, (B.worker, C.worker))]


def test_a_hook_that_runs_once_is_the_first_of_the_first_batch() -> None:
    assert hosts(single_batch(B)) == [(0, 1, (B.worker,))]


FACTS = InvocationFacts(
    allocation=replace(B, current_version="1.0.0", new_version="1.1.0"),
    batch=Batch(index=1, count=3, allocations=(C, B)),
    order=RolloutOrder(workers=(A.worker, C.worker, B.worker), set_by_hook=True),
    event="pre_deploy",
    hook="hook_migrate",
    phase="",
    run_id="0197c0de-1111-7000-8000-000000000001",
    bucket_id="0197c0de-2222-7000-8000-000000000002",
    invocation_id="0197c0de-3333-7000-8000-000000000003",
    job_path="/opt/worker/0197c0de-2222-7000-8000-000000000002/jobs/api",
    token="mh_secret",
    hook_api="127.0.0.1:8081",
    hook_env={"CLOUD_REGION": "eu-1"},
)
HOST = {"PATH": "/bin", "HOME": "/root", "LANG": "de_DE.UTF-8", "TZ": "UTC", "TMPDIR": "/var/tmp", "SECRET_OF_HOST": "x"}

EXACT = {
    "PATH": "/bin",
    "HOME": "/root",
    "LANG": "de_DE.UTF-8",
    "TZ": "UTC",
    "TMPDIR": "/var/tmp",
    "CLOUD_REGION": "eu-1",
    "ALLOCATION_ID": "id-2",
    "ALLOCATION_IP": "10.0.0.2",
    "ALLOCATION_INDEX": "1",
    "JOB": "api",
    "EVENT": "pre_deploy",
    "HOOK": "hook_migrate",
    "DISABLED": "0",
    "CURRENT_VERSION": "1.0.0",
    "NEW_VERSION": "1.1.0",
    "BATCH_INDEX": "1",
    "BATCH_COUNT": "3",
    "BATCH_ALLOCATIONS": "10.0.0.3,10.0.0.2",
    "ROLLOUT_ORDER": "10.0.0.1,10.0.0.3,10.0.0.2",
    "ROLLOUT_ORDER_SOURCE": "hook",
    "DEPLOY_PHASE": "pre_deploy",
    "JOB_PATH": "/opt/worker/0197c0de-2222-7000-8000-000000000002/jobs/api",
    "HOOK_API_HOST": "127.0.0.1",
    "HOOK_API_PORT": "8081",
    "HOOK_API_TOKEN": "mh_secret",
    "RUN_ID": "0197c0de-1111-7000-8000-000000000001",
    "BUCKET_ID": "0197c0de-2222-7000-8000-000000000002",
    "TRACEPARENT": "00-0197c0de111170008000000000000001-8000000000000003-00",
}


def test_the_environment_is_exactly_the_table_of_the_specification() -> None:
    assert invocation_environment(FACTS, HOST) == EXACT


def test_the_hook_api_on_ipv6_is_named_as_an_address() -> None:
    told = invocation_environment(replace(FACTS, hook_api="[::1]:8081"), HOST)
    assert (told["HOOK_API_HOST"], told["HOOK_API_PORT"]) == ("::1", "8081")


def test_a_disabled_allocation_says_so() -> None:
    facts = replace(FACTS, allocation=replace(B, disabled=True))
    assert invocation_environment(facts, HOST)["DISABLED"] == "1"


def test_a_default_order_is_called_default() -> None:
    facts = replace(FACTS, order=RolloutOrder(workers=(A.worker,)))
    assert invocation_environment(facts, HOST)["ROLLOUT_ORDER_SOURCE"] == "default"


def test_a_lifecycle_batch_tells_its_phase_and_what_is_wanted() -> None:
    lifecycle = lifecycle_variables(new=["10.0.0.1"], updated=["10.0.0.2", "10.0.0.3"])
    environment = invocation_environment(replace(FACTS, event="job_control", phase="update", lifecycle=lifecycle), HOST)
    assert environment["DEPLOY_PHASE"] == "update"
    assert environment["NEW_ALLOCATIONS"] == "10.0.0.1"
    assert environment["UPDATED_ALLOCATIONS"] == "10.0.0.2,10.0.0.3"
    assert "TARGET" not in environment


def test_job_control_by_hand_tells_the_target_only() -> None:
    assert lifecycle_variables(target="restart") == {"TARGET": "restart"}


def test_neither_the_host_nor_hook_env_can_change_who_a_hook_is() -> None:
    forged = {name: "forged" for name in EXACT if name not in HOST and name != "CLOUD_REGION"}
    environment = invocation_environment(replace(FACTS, hook_env=forged), HOST | forged)
    assert [name for name, value in environment.items() if value == "forged"] == []


def test_hook_env_may_change_what_the_host_says() -> None:
    assert invocation_environment(replace(FACTS, hook_env={"TZ": "Asia/Tokyo"}), HOST)["TZ"] == "Asia/Tokyo"


def test_a_bare_host_still_gives_a_path_a_language_and_a_place_for_temporary_files() -> None:
    environment = invocation_environment(FACTS, {})
    assert environment["PATH"]
    assert environment["LANG"] == "C.UTF-8"
    assert environment["TMPDIR"] == "/tmp"
    assert "HOME" not in environment


def test_a_trace_that_exists_is_continued() -> None:
    facts = replace(FACTS, traceparent="00-aaaa-bbbb-01")
    assert invocation_environment(facts, HOST)["TRACEPARENT"] == "00-aaaa-bbbb-01"


def test_printing_the_facts_shows_no_token() -> None:
    assert "mh_secret" not in repr(FACTS)
