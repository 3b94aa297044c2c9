"""The contracts write durations, choices, lists and workers one way: docs/decisions/0007."""

import re
from collections.abc import Iterator
from typing import Any

import pytest

from maand_catalog.building.documents.schema import MODEL_BY_KIND
from maand_catalog.rules.runs import SENTENCES, ClaimEnd, RunKind
from maand_catalog.rules.workspace.manifest import EVENTS, RUNTIME_BY_SUFFIX
from maand_contracts.catalog.v1 import (
    allocation_pb2,
    bucket_pb2,
    invocation_pb2,
    job_pb2,
    kv_pb2,
    run_event_pb2,
    run_pb2,
    run_spec_pb2,
    secret_pb2,
    semaphore_pb2,
    task_pb2,
    token_pb2,
    worker_pb2,
    workspace_pb2,
)
from maand_contracts.common.v1 import error_pb2
from maand_contracts.executor.v1 import executor_pb2, remote_pb2
from maand_wire.enums import enum_word

FILES: tuple[Any, ...] = (
    allocation_pb2, bucket_pb2, invocation_pb2, job_pb2, kv_pb2, run_event_pb2, run_pb2, run_spec_pb2, secret_pb2, semaphore_pb2,
    task_pb2, token_pb2, worker_pb2, workspace_pb2, error_pb2, executor_pb2, remote_pb2,
)  # fmt: skip

IN_DAYS = {"certs_ttl_days", "certs_renewal_buffer_days", "retain_days"}
OTHER_UNITS = re.compile(r"_(ms|millis|milliseconds|minutes|hours|days|duration)$|^(timeout|duration|ttl|interval|lease)$")
OPEN_WORDS = {
    ("BatchStarted", "phase"),  # an event, or what a batch of a deploy or of job control does
}


def fields() -> Iterator[tuple[str, Any]]:
    """Yield every field of every message with the message's name."""

    def of(message: Any) -> Iterator[tuple[str, Any]]:
        for field in message.fields:
            yield message.name, field
        for nested in message.nested_types:
            if not nested.GetOptions().map_entry:
                yield from of(nested)

    for file in FILES:
        for message in file.DESCRIPTOR.message_types_by_name.values():
            yield from of(message)


LISTS = [
    method
    for file in FILES
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
    if method.name.startswith("List")
]


@pytest.mark.parametrize("method", LISTS, ids=lambda method: str(method.name))
def test_a_list_has_pages(method: Any) -> None:
    assert {"page_size", "page_token"} <= set(method.input_type.fields_by_name)
    assert "next_page_token" in method.output_type.fields_by_name


def test_durations_are_seconds_and_say_so() -> None:
    odd = [f"{message}.{field.name}" for message, field in fields() if OTHER_UNITS.search(field.name)]
    assert {name.rpartition(".")[2] for name in odd} == IN_DAYS
    seconds = [field for _, field in fields() if field.name.endswith("_seconds")]
    assert len(seconds) > 20
    assert {field.type for field in seconds} == {field.TYPE_UINT32 for field in seconds} | {
        field.TYPE_DOUBLE for field in seconds
    }


def test_a_worker_is_called_a_worker() -> None:
    named = {f"{message}.{field.name}" for message, field in fields() if re.fullmatch(r"hosts?|\w+_hosts?", field.name)}
    assert named == {"LifecycleTask.check_host", "RunSshCommandRequest.check_host"}  # whether a host is the worker it should be


def test_what_has_an_enum_is_not_a_string() -> None:
    words = {
        "kind",
        "kinds",
        "state",
        "states",
        "event",
        "runtime",
        "scheme",
        "phase",
        "outcome",
        "role",
        "level",
        "scope",
        "log_format",
    }
    strings = {(message, field.name) for message, field in fields() if field.name in words and field.type == field.TYPE_STRING}
    assert strings == OPEN_WORDS


def test_the_catalogs_words_are_those_of_the_contract() -> None:
    def words(enum: Any) -> set[str]:
        return {enum_word(enum, number) for number in enum.values()} - {""}

    assert words(job_pb2.HookEvent) == set(EVENTS)
    assert words(job_pb2.HookRuntime) == set(RUNTIME_BY_SUFFIX.values())
    kinds = {field.name for field in run_spec_pb2.RunSpec.DESCRIPTOR.oneofs_by_name["spec"].fields}
    assert words(run_event_pb2.ClaimEnd) == set(ClaimEnd) == set(SENTENCES)
    assert words(run_spec_pb2.RunKind) == set(RunKind) == kinds
    assert {word.replace("_", ".") for word in words(bucket_pb2.UserFileKind)} == set(MODEL_BY_KIND)
