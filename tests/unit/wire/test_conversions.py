"""Messages and values are converted by field names; enum values are words in one place."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maand_contracts.catalog.v1 import allocation_pb2, bucket_pb2, job_pb2, run_pb2, run_spec_pb2, token_pb2, worker_pb2
from maand_wire.conversions import message_of_words, message_reader, message_writer
from maand_wire.enums import enum_number, enum_word


class Scope(StrEnum):
    ALLOCATION = "allocation"
    ROLLOUT = "rollout"


@dataclass(frozen=True, kw_only=True)
class Hook:
    name: str
    executed_on: tuple[str, ...] = ()
    runtime: str = ""
    scope: Scope = Scope.ALLOCATION
    timeout: timedelta | None = None


@dataclass(frozen=True, kw_only=True)
class Health:
    timeout: timedelta
    wait_interval: timedelta = timedelta(seconds=1)


@dataclass(frozen=True, kw_only=True)
class Job:
    name: str
    version: str = ""
    hooks: tuple[Hook, ...] = ()
    health_check: Health | None = None


@dataclass(frozen=True, kw_only=True)
class Token:
    token_id: str
    created_at: datetime
    expires_at: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Worker:
    name: str
    tags: dict[str, str] = field(default_factory=dict)
    labels: tuple[str, ...] = ()
    hostname: str = ""


to_job, from_job = message_reader(Job, job_pb2.Job), message_writer(job_pb2.Job, Job)
to_token, from_token = message_reader(Token, token_pb2.Token), message_writer(token_pb2.Token, Token)
to_worker = message_reader(Worker, worker_pb2.Worker, hostname=lambda worker: worker.hostname or worker.name)

seconds = st.integers(0, 2**31).map(lambda number: timedelta(seconds=number))
hooks = st.builds(
    Hook,
    name=st.text(max_size=5),
    executed_on=st.lists(st.sampled_from(["cli", "pre_deploy"])).map(tuple),
    runtime=st.sampled_from(["", "python", "bun"]),
    scope=st.sampled_from(Scope),
    timeout=st.none() | seconds.filter(bool),
)
health = st.builds(Health, timeout=seconds, wait_interval=st.floats(0, 1e6).map(lambda number: timedelta(seconds=number)))


@given(st.builds(Job, name=st.text(max_size=5), hooks=st.lists(hooks, max_size=3).map(tuple), health_check=st.none() | health))
def test_a_value_comes_back_as_it_went(job: Job) -> None:
    assert to_job(from_job(job)) == job


@given(st.datetimes(datetime(1970, 1, 1), datetime(9999, 1, 1), timezones=st.just(UTC)), st.booleans())  # noqa: DTZ001 - Hypothesis adds UTC
def test_times_are_aware_and_unset_is_none(moment: datetime, ends: bool) -> None:
    token = Token(token_id="t", created_at=moment, expires_at=moment if ends else None)
    assert to_token(from_token(token)) == token


def test_lists_maps_and_what_differs_are_taken_over() -> None:
    worker = to_worker(worker_pb2.Worker(name="10.0.0.1", tags={"rack": "r1"}, labels=["api"]))
    assert worker == Worker(name="10.0.0.1", tags={"rack": "r1"}, labels=("api",), hostname="10.0.0.1")


def test_an_enum_value_that_is_unset_or_unknown_is_the_default() -> None:
    assert to_job(job_pb2.Job(hooks=[job_pb2.Hook()])).hooks[0].scope is Scope.ALLOCATION
    newer = job_pb2.Hook.FromString(b"\x38\x63")  # field 7, scope, with the value 99 of a newer catalog
    assert to_job(job_pb2.Job(hooks=[newer])).hooks[0].scope is Scope.ALLOCATION


def test_a_field_without_a_source_is_an_error_at_once() -> None:
    @dataclass(frozen=True)
    class Grown:
        name: str
        brand_new: int

    with pytest.raises(TypeError, match=r"Job has nothing for Grown\.brand_new"):
        message_reader(Grown, job_pb2.Job)
    with pytest.raises(TypeError, match=r"Worker has no field hostnam$"):
        message_reader(Worker, worker_pb2.Worker, hostnam=lambda worker: worker.name)
    with pytest.raises(TypeError, match="Job has no field brand_new"):
        message_writer(job_pb2.Job, Grown, brand_new=lambda value: value.brand_new)


def test_a_message_is_made_of_what_a_table_keeps_as_json() -> None:
    words = {"name": "api", "restart_policy": "reload", "health_check": {"probes": [{"tcp": {"port": 80}}], "timeout_seconds": 5}}
    made = message_of_words(job_pb2.Job, {**words, "restart_globs": ["*.conf"]})
    assert (made.restart_policy, list(made.restart_globs)) == (job_pb2.RESTART_POLICY_RELOAD, ["*.conf"])
    assert (made.health_check.probes[0].tcp.port, made.health_check.timeout_seconds) == (80, 5)
    assert not message_of_words(job_pb2.Job, {"health_check": None}).HasField("health_check")
    with pytest.raises(ValueError, match="brand_new"):
        message_of_words(job_pb2.Job, {"brand_new": 1})
    with pytest.raises(ValueError, match='RestartPolicy has no value "sometimes"'):
        message_of_words(job_pb2.Job, {"restart_policy": "sometimes"})


def test_a_hyphen_in_a_word_is_an_underscore_in_the_contract() -> None:
    @dataclass(frozen=True)
    class Config:
        host_keys: str

    assert (
        message_writer(bucket_pb2.BucketConfig, Config)(Config("accept-new")).host_keys == bucket_pb2.HOST_KEY_POLICY_ACCEPT_NEW
    )


@pytest.mark.parametrize("enum", [run_spec_pb2.RunKind, run_pb2.RunState, allocation_pb2.AllocationState, job_pb2.HookEvent])
def test_every_enum_value_is_a_word_and_back(enum: Any) -> None:
    words = [enum_word(enum, number) for number in enum.values()]
    assert words[0] == ""
    assert [enum_number(enum, word) for word in words] == enum.values()
    assert all(word == word.lower() and "unspecified" not in word for word in words)


def test_unknown_words_and_numbers() -> None:
    assert enum_word(run_spec_pb2.RunKind, 5) == "health_check"
    assert enum_word(run_spec_pb2.RunKind, 99) == "99"
    with pytest.raises(ValueError, match="RUN_KIND_NONSENSE"):
        enum_number(run_spec_pb2.RunKind, "nonsense")
