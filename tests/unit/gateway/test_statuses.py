"""Every failure of a service has its HTTP status and its words."""

import grpc
import pytest

from maand_runtime_gateway.openapi import MEANINGS
from maand_runtime_gateway.routes.table import COMMON_ERRORS, ROUTES
from maand_runtime_gateway.statuses import STATUS_BY_CODE, STATUS_BY_GRPC, ErrorAnswer, answer_for


def answer(
    status: str,
    *,
    code: str = "some_code",
    message: str = "it failed",
    help: str = "",  # noqa: A002
    spoken: bool = True,
    **facts: str,
) -> ErrorAnswer:
    return answer_for(grpc_status=status, code=code, message=message, help=help, facts=facts, spoken=spoken)


def test_every_grpc_status_but_ok_has_an_http_status() -> None:
    assert set(STATUS_BY_GRPC) == {code.name for code in grpc.StatusCode} - {"OK"}


def test_every_http_status_is_explained_in_the_document() -> None:
    told = {*STATUS_BY_GRPC.values(), *STATUS_BY_CODE.values(), *COMMON_ERRORS, *(s for route in ROUTES for s in route.errors)}

    assert told <= set(MEANINGS)


@pytest.mark.parametrize(
    ("status", "code", "http"),
    [
        ("INVALID_ARGUMENT", "limit_exceeded", 400),
        ("UNAUTHENTICATED", "unauthenticated", 401),
        ("PERMISSION_DENIED", "identity_mismatch", 403),
        ("NOT_FOUND", "not_found", 404),
        ("DEADLINE_EXCEEDED", "semaphore_timeout", 408),
        ("ABORTED", "kv_precondition_lost", 409),
        ("FAILED_PRECONDITION", "semaphore_not_held", 409),
        ("FAILED_PRECONDITION", "semaphore_capacity", 409),
        ("UNAVAILABLE", "worker_unreachable", 502),
        ("UNKNOWN", "connection_lost", 502),
        ("UNAVAILABLE", "unavailable", 503),
        ("DEADLINE_EXCEEDED", "deadline_exceeded", 504),
        ("DEADLINE_EXCEEDED", "http_timed_out", 504),
        ("INTERNAL", "internal", 500),
    ],
)
def test_the_specification_s_table_of_statuses_holds(status: str, code: str, http: int) -> None:
    assert answer(status, code=code).status == http


def test_the_message_joins_what_happened_and_what_to_do() -> None:
    assert answer("NOT_FOUND", message="there is no key.", help="list the keys").message == "there is no key; list the keys"


def test_a_service_that_cannot_be_reached_is_not_described_by_grpc() -> None:
    told = answer("UNAVAILABLE", code="unavailable", message="failed to connect to all addresses; unix:/x", spoken=False)

    assert told.message == "the service behind this route cannot be reached; try again"


def test_a_service_that_says_what_it_lacks_is_repeated_in_its_own_words() -> None:
    told = answer("UNAVAILABLE", code="unavailable", message="the catalog's database cannot be reached", help="try again")

    assert (told.status, told.message) == (503, "the catalog's database cannot be reached; try again")


def test_an_unexpected_failure_tells_nothing_of_its_inside() -> None:
    assert "secret" not in answer("UNKNOWN", code="unknown", message="Traceback: secret", spoken=False).message


def test_facts_that_are_numbers_become_numbers() -> None:
    assert answer("ABORTED", current_version="7", field="7").details == {"current_version": 7, "field": "7"}
