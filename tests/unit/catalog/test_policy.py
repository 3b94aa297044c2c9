"""Every cell of the specification's table "Who may do what", and of the table of roles."""

import pytest

from maand_catalog.rules.identity import HookCaller, Role, RoleCaller
from maand_catalog.rules.policy import (
    HOOK_TABLE,
    ROLE_TABLE,
    Act,
    EntryKind,
    PolicyContext,
    TableRow,
    decide_access,
    readable_namespaces,
)

EVENTS = (
    "post_build",
    "pre_deploy",
    "post_deploy",
    "job_control",
    "health_check",
    "after_allocation_started",
    "after_allocation_stopped",
    "cli",
)
DEMANDS = PolicyContext(demanded_jobs=frozenset({"vault"}))

READABLE = (
    "maand/bucket",
    "vars/bucket",
    "maand/worker",
    "maand/worker/10.0.0.1",
    "maand/worker/10.0.0.1/tags",
    "maand/job/api",
    "vars/bucket/job/api",
    "maand/job/api/worker/10.0.0.1",
    "maand/job/api/worker/10.0.0.2",
    "vars/job/api",
    "secrets/job/api",
    "maand/job/vault",
    "vars/job/vault",
    "secrets/job/vault",
)
FOREIGN = (
    "maand/worker/10.0.0.2",
    "maand/worker/10.0.0.2/tags",
    "maand/job/web",
    "maand/job/web/worker/10.0.0.1",
    "maand/job/vault/worker/10.0.0.1",
    "vars/bucket/job/vault",
    "vars/bucket/job/web",
    "vars/job/web",
    "secrets/job/web",
    "maand/job/api/worker/10.0.0.2/more",
    "maand",
    "vars",
    "secrets",
    "secrets/job",
    "anything",
    "VARS/job/api",
    "vars/job/api/",
    "vars/job/",
)
WRITABLE = {"vars/job/api"}


def a_hook(event: str = "pre_deploy") -> HookCaller:
    return HookCaller(
        bucket_id="b",
        run_id="r",
        invocation_id="i",
        job="api",
        allocation_id="a",
        worker="10.0.0.1",
        hook="hook_x",
        event=event,
    )


def a_caller(*roles: Role) -> RoleCaller:
    return RoleCaller.with_role("ada", *roles)


def may(caller: HookCaller | RoleCaller, act: Act, namespace: str, key: str = "k") -> bool:
    return decide_access(caller, act, namespace, key, DEMANDS) is None


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("namespace", READABLE)
def test_a_hook_reads_its_job_its_worker_and_the_jobs_it_demands(namespace: str, event: str) -> None:
    assert may(a_hook(event), Act.READ, namespace)
    assert may(a_hook(event), Act.LIST, namespace)


@pytest.mark.parametrize("act", [Act.READ, Act.LIST, Act.WRITE, Act.DELETE, Act.WRITE_SECRET, Act.REVEAL])
@pytest.mark.parametrize("namespace", FOREIGN)
def test_a_hook_does_nothing_anywhere_else(namespace: str, act: Act) -> None:
    assert not may(a_hook(), act, namespace)


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("act", [Act.WRITE, Act.DELETE])
@pytest.mark.parametrize("namespace", READABLE)
def test_a_hook_writes_its_jobs_variables_but_not_in_health_check(namespace: str, act: Act, event: str) -> None:
    assert may(a_hook(event), act, namespace) == (namespace in WRITABLE and event != "health_check")


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("namespace", READABLE)
def test_a_hook_writes_its_jobs_secrets_through_the_secret_call_but_not_in_health_check(namespace: str, event: str) -> None:
    assert may(a_hook(event), Act.WRITE_SECRET, namespace) == (namespace == "secrets/job/api" and event != "health_check")


@pytest.mark.parametrize("event", EVENTS)
def test_a_hook_writes_the_rollout_order_in_pre_deploy_and_cli_only(event: str) -> None:
    assert may(a_hook(event), Act.WRITE, "maand/job/api", "rollout_order") == (event in ("pre_deploy", "cli"))


@pytest.mark.parametrize("namespace", [*READABLE, *FOREIGN])
def test_a_rollout_order_is_written_for_the_own_job_only(namespace: str) -> None:
    assert may(a_hook(), Act.WRITE, namespace, "rollout_order") == (namespace in ("maand/job/api", "vars/job/api"))


def test_nobody_deletes_a_rollout_order() -> None:
    assert not may(a_hook(), Act.DELETE, "maand/job/api", "rollout_order")


@pytest.mark.parametrize("key", ["version", "worker_0", "rollout_order2", "certs/web.key"])
def test_a_hook_writes_nothing_else_of_what_build_owns(key: str) -> None:
    assert not may(a_hook(), Act.WRITE, "maand/job/api", key)


def test_a_hook_reads_the_private_key_of_its_own_allocation_only() -> None:
    assert may(a_hook(), Act.READ, "maand/job/api/worker/10.0.0.1", "certs/web.key")
    assert not may(a_hook(), Act.READ, "maand/job/api/worker/10.0.0.2", "certs/web.key")
    assert may(a_hook(), Act.READ, "maand/job/api/worker/10.0.0.2", "certs/web.crt")


@pytest.mark.parametrize("namespace", [*READABLE, *FOREIGN])
def test_a_hook_reveals_nothing(namespace: str) -> None:
    assert not may(a_hook(), Act.REVEAL, namespace)


def test_a_job_that_is_demanded_no_more_is_foreign() -> None:
    assert decide_access(a_hook(), Act.READ, "vars/job/vault", "k", PolicyContext()) is not None


def test_a_put_into_secrets_is_told_of_the_secret_call() -> None:
    denied = decide_access(a_hook(), Act.WRITE, "secrets/job/api", "k", DEMANDS)

    assert denied is not None
    assert "secret call" in denied.help


ROLES = [(Role.VIEWER,), (Role.OPERATOR,), (Role.EXECUTOR,), (Role.GATEWAY,), ()]
PLACES = {
    "vars/job/api": EntryKind.VARIABLE,
    "vars/bucket": EntryKind.SETTING,
    "vars/bucket/job/api": EntryKind.SETTING,
    "vars/bucketeer": EntryKind.VARIABLE,
    "vars/anything/else": EntryKind.VARIABLE,
    "maand/bucket": EntryKind.BUILT,
    "maand/job/api": EntryKind.BUILT,
    "other": EntryKind.BUILT,
    "secrets/job/api": EntryKind.SECRET,
    "secrets": EntryKind.SECRET,
}
EXPECTED = {
    (EntryKind.VARIABLE, Act.READ): {Role.VIEWER, Role.OPERATOR, Role.EXECUTOR},
    (EntryKind.VARIABLE, Act.LIST): {Role.VIEWER, Role.OPERATOR, Role.EXECUTOR},
    (EntryKind.VARIABLE, Act.WRITE): {Role.OPERATOR},
    (EntryKind.VARIABLE, Act.DELETE): {Role.OPERATOR},
    (EntryKind.SETTING, Act.READ): {Role.VIEWER, Role.OPERATOR, Role.EXECUTOR},
    (EntryKind.SETTING, Act.LIST): {Role.VIEWER, Role.OPERATOR, Role.EXECUTOR},
    (EntryKind.BUILT, Act.READ): {Role.VIEWER, Role.OPERATOR, Role.EXECUTOR},
    (EntryKind.BUILT, Act.LIST): {Role.VIEWER, Role.OPERATOR, Role.EXECUTOR},
    (EntryKind.SECRET, Act.LIST): {Role.VIEWER, Role.OPERATOR, Role.EXECUTOR},
    (EntryKind.SECRET, Act.WRITE_SECRET): {Role.OPERATOR},
    (EntryKind.SECRET, Act.REVEAL): {Role.OPERATOR},
}


@pytest.mark.parametrize("roles", ROLES)
@pytest.mark.parametrize("act", list(Act))
@pytest.mark.parametrize("namespace", PLACES)
def test_people_and_services_go_by_their_role(namespace: str, act: Act, roles: tuple[Role, ...]) -> None:
    expected = EXPECTED.get((PLACES[namespace], act), set())

    assert may(a_caller(*roles), act, namespace) == bool(expected.intersection(roles))


@pytest.mark.parametrize("act", [Act.READ, Act.WRITE, Act.DELETE, Act.WRITE_SECRET, Act.REVEAL])
def test_nobody_gets_a_private_key_by_role(act: Act) -> None:
    everything = a_caller(*Role)

    assert not may(everything, act, "maand/job/api/worker/10.0.0.1", "certs/web.key")


@pytest.mark.parametrize("act", [Act.WRITE, Act.DELETE])
@pytest.mark.parametrize(
    ("namespace", "place"),
    [
        ("vars/bucket", "workspace/bucket.conf"),
        ("vars/bucket/job/api", "[api] of workspace/bucket.jobs*.conf"),
    ],
)
def test_what_the_next_build_would_undo_is_refused_with_the_file_to_edit(namespace: str, place: str, act: Act) -> None:
    denied = decide_access(a_caller(Role.OPERATOR), act, namespace, "k", DEMANDS)

    assert denied is not None
    assert denied.reason == f"{namespace} is made from {place}: the next build would undo it"
    assert denied.help.startswith(f"edit {place} and build")


def test_a_refusal_names_the_role_it_takes() -> None:
    denied = decide_access(a_caller(Role.VIEWER), Act.WRITE, "vars/job/api", "k", DEMANDS)

    assert denied is not None
    assert "operator" in denied.help


def test_the_tables_have_a_row_for_every_place_and_content() -> None:
    assert all(isinstance(row, TableRow) for row in HOOK_TABLE.values())
    assert set(ROLE_TABLE) == set(EntryKind)


def test_what_templates_see_is_what_the_table_lets_hooks_read() -> None:
    names = readable_namespaces("api", "10.0.0.1", demanded_jobs=["vault"], peers=["10.0.0.1", "10.0.0.2"])

    assert sorted(names) == sorted(READABLE)
    assert all(may(a_hook(), Act.READ, name) for name in names)
