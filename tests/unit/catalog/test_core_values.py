"""Small values that everything else relies on: ids, digests, callers, requests, kinds of runs."""

import base64
import json
import uuid
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maand_catalog.errors import InvalidArgument, LimitExceeded, PermissionDenied, Unauthenticated
from maand_catalog.ids import new_api_token, new_hook_token, new_id
from maand_catalog.rpc.callers import acting_as, caller_of, require_hook, require_role
from maand_catalog.rpc.hook_env import HookEnvSealer
from maand_catalog.rpc.requests import asked_page, checked_id, checked_text
from maand_catalog.rpc.run_messages import CANCEL_LEVELS, STATES, kind_of, spec_holds_bucket
from maand_catalog.rules.identity import IMPLIED_ROLES, LOCAL, HookCaller, Role, RoleCaller, token_digest
from maand_catalog.rules.runs import ACTIVE, ALLOWED_MOVES, ENDED, CancelLevel, RunKind, RunState, next_cancel_level
from maand_catalog.sealing.keyring import CannotDecrypt, Keyring
from maand_contracts.catalog.v1 import run_pb2
from maand_contracts.catalog.v1 import run_spec_pb2 as specs
from maand_contracts.catalog.v1.run_pb2 import ListRunsRequest

A_HOOK = HookCaller(
    bucket_id="b", run_id="r", invocation_id="i", job="api", allocation_id="a", worker="10.0.0.1", hook="hook_a", event="cli"
)


def test_ids_are_version_7_and_rise_even_within_a_millisecond() -> None:
    ids = [new_id() for _ in range(5_000)]
    assert ids == sorted(set(ids))
    assert {uuid.UUID(each).version for each in ids} == {7}
    assert {uuid.UUID(each).variant for each in ids} == {uuid.RFC_4122}


def test_tokens_say_their_kind_and_never_repeat() -> None:
    hooks, apis = {new_hook_token() for _ in range(100)}, {new_api_token() for _ in range(100)}
    assert len(hooks) == len(apis) == 100
    assert all(token.startswith("mh_") and len(token) == 46 for token in hooks)
    assert all(token.startswith("ma_") and len(token) == 46 for token in apis)


@given(st.text(), st.text())
def test_only_equal_tokens_have_equal_digests(one: str, other: str) -> None:
    assert (token_digest(one) == token_digest(other)) == (one == other)
    assert len(token_digest(one)) == 32


def test_operators_and_executors_see_what_viewers_see_and_a_gateway_sees_nothing() -> None:
    assert {role for role, implied in IMPLIED_ROLES.items() if Role.VIEWER in implied} == set(Role) - {Role.GATEWAY}
    assert Role.EXECUTOR not in IMPLIED_ROLES[Role.OPERATOR]
    assert Role.OPERATOR not in IMPLIED_ROLES[Role.EXECUTOR]
    assert set(LOCAL.roles) == {Role.OPERATOR, Role.EXECUTOR, Role.VIEWER}


def test_a_call_that_nobody_was_let_in_for_has_no_caller() -> None:
    with pytest.raises(Unauthenticated):
        caller_of(None)


def test_a_role_is_needed_and_a_hook_has_none() -> None:
    viewer = RoleCaller.with_role("eve", Role.VIEWER)
    with acting_as(viewer):
        assert require_role(None, Role.VIEWER) == viewer
        assert require_role(None, Role.OPERATOR, Role.VIEWER) == viewer
        with pytest.raises(PermissionDenied, match="eve may not do this; it needs the role operator or executor"):
            require_role(None, Role.OPERATOR, Role.EXECUTOR)
        with pytest.raises(PermissionDenied, match="only a running hook"):
            require_hook(None)
    with acting_as(A_HOOK):
        assert require_hook(None) == A_HOOK
        with pytest.raises(PermissionDenied, match="a hook may not do this"):
            require_role(None, *Role)
    with pytest.raises(Unauthenticated):
        caller_of(None)


def test_a_hook_is_named_for_people() -> None:
    assert A_HOOK.name == "hook api/hook_a on 10.0.0.1 (run r)"


@given(st.uuids())
def test_every_uuid_is_an_id_in_its_canonical_form_only(value: uuid.UUID) -> None:
    assert checked_id(str(value), "x") == str(value)
    for other in (str(value).upper().replace("-", ""), value.hex, f" {value}", f"{value}\n", ""):
        with pytest.raises(InvalidArgument):
            checked_id(other, "x")


def test_texts_are_bounded_and_free_of_control_characters() -> None:
    assert checked_text("ünïcode\tand\nlines", "x", longest=20) == "ünïcode\tand\nlines"
    with pytest.raises(LimitExceeded, match="longer than 3 characters"):
        checked_text("four", "x", longest=3)
    with pytest.raises(InvalidArgument, match="x is missing"):
        checked_text("", "x", longest=3, required=True)
    for bad in ("\x00", "\x1b[31m", "\x7f"):
        with pytest.raises(InvalidArgument, match="control characters"):
            checked_text(bad, "x", longest=100)


def token_of(key: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(key).encode()).decode()


def test_pages_have_a_usual_size_and_a_largest_one() -> None:
    asked = [ListRunsRequest(page_size=size) for size in (0, 5, 100, 2**31)]
    assert [asked_page(request, int, usual=20, most=100).limit for request in asked] == [20, 5, 100, 100]


@pytest.mark.parametrize(
    "token",
    [
        "x",
        "-1",
        "1.5",
        "9" * 40,
        "١٢",
        token_of([True]),
        token_of(["1"]),
        token_of([1, 2]),
        token_of([2**70]),
        token_of(7),
        "W" * 4000,
    ],
)
def test_a_foreign_page_token_is_refused(token: str) -> None:
    with pytest.raises(InvalidArgument, match="not one of ours"):
        asked_page(ListRunsRequest(page_token=token), int, usual=20)


@pytest.mark.parametrize("text", ["a\0b", "\ud800"])
def test_a_page_token_holds_only_text_that_a_database_takes(text: str) -> None:
    with pytest.raises(InvalidArgument, match="not one of ours"):
        asked_page(ListRunsRequest(page_token=token_of([text])), str, usual=20)


def test_a_page_says_where_the_next_one_begins() -> None:
    first = asked_page(ListRunsRequest(), str, int, usual=2)
    shown, token = first.cut([("a", 1), ("a", 2), ("b", 1)], lambda last: last)
    assert (shown, first.after) == ([("a", 1), ("a", 2)], None)
    second = asked_page(ListRunsRequest(page_token=token), str, int, usual=2)
    assert (second.after, second.cut([("b", 1)], lambda last: last)) == (("a", 2), ([("b", 1)], ""))


SPECS = {
    "build": (specs.RunSpec(build=specs.BuildSpec(snapshot_id="s")), True),
    "deploy": (specs.RunSpec(deploy=specs.DeploySpec()), True),
    "dry run": (specs.RunSpec(deploy=specs.DeploySpec(dry_run=True)), False),
    "hooks": (specs.RunSpec(hooks=specs.HooksSpec(hook="hook_a")), False),
    "run_command": (specs.RunSpec(run_command=specs.RunCommandSpec(command="id")), False),
    "health_check": (specs.RunSpec(health_check=specs.HealthCheckSpec()), False),
    "job restart": (specs.RunSpec(job_control=specs.JobControlSpec(job="a", action=specs.JOB_ACTION_RESTART)), True),
    "job status": (specs.RunSpec(job_control=specs.JobControlSpec(job="a", action=specs.JOB_ACTION_STATUS)), False),
    "worker_probe": (specs.RunSpec(worker_probe=specs.WorkerProbeSpec(probe=specs.WORKER_PROBE_PING)), False),
    "gc": (specs.RunSpec(gc=specs.GcSpec()), True),
}


@pytest.mark.parametrize(("spec", "holds"), SPECS.values(), ids=SPECS.keys())
def test_what_changes_the_bucket_holds_it_and_what_looks_does_not(spec: specs.RunSpec, holds: bool) -> None:
    assert spec_holds_bucket(spec) is holds


def test_every_kind_of_the_contract_is_a_kind_of_run() -> None:
    assert {field.name for field in specs.RunSpec.DESCRIPTOR.oneofs_by_name["spec"].fields} == set(RunKind)
    assert {kind_of(spec) for spec, _ in SPECS.values()} == set(RunKind)


def test_states_and_levels_are_those_of_the_contract() -> None:
    assert set(STATES) == set(RunState)
    assert sorted(STATES.values()) == [number for number in run_pb2.RunState.values() if number]
    assert sorted(CANCEL_LEVELS.values()) == run_pb2.CancelLevel.values()


def test_a_run_that_ended_stays_as_it_is_and_every_other_can_end() -> None:
    assert set(ALLOWED_MOVES) == set(RunState) == ACTIVE | ENDED
    assert all(not ALLOWED_MOVES[state] for state in ENDED)
    assert all(ALLOWED_MOVES[state] & ENDED for state in ACTIVE)
    assert {state for state in RunState if RunState.RUNNING in ALLOWED_MOVES[state]} == {RunState.PENDING, RunState.INTERRUPTED}


def test_cancelling_becomes_more_urgent_and_stays_so() -> None:
    assert [next_cancel_level(level) for level in CancelLevel] == [CancelLevel.AFTER_BATCH, CancelLevel.NOW, CancelLevel.NOW]


@pytest.fixture
def sealer(tmp_path: Path) -> HookEnvSealer:
    path = tmp_path / "kv.key"
    path.write_text(f"k1:{base64.urlsafe_b64encode(bytes(32)).decode()}\n")
    path.chmod(0o600)
    return HookEnvSealer(Keyring(path))


def test_hook_env_opens_for_its_own_run_and_for_no_other(sealer: HookEnvSealer) -> None:
    sealed = sealer.seal({"TOKEN": "s3cret"}, bucket_id="b", run_id="r1")
    assert b"s3cret" not in sealed.data
    assert sealer.open(sealed, bucket_id="b", run_id="r1") == {"TOKEN": "s3cret"}
    with pytest.raises(CannotDecrypt):
        sealer.open(sealed, bucket_id="b", run_id="r2")


def test_no_hook_env_is_nothing_at_all(sealer: HookEnvSealer) -> None:
    sealed = sealer.seal({}, bucket_id="b", run_id="r")
    assert (sealed.data, sealer.open(sealed, bucket_id="b", run_id="r")) == (b"", {})


def test_too_many_values_of_hook_env_are_refused(sealer: HookEnvSealer) -> None:
    with pytest.raises(LimitExceeded):
        sealer.seal({f"V{n}": "" for n in range(65)}, bucket_id="b", run_id="r")
