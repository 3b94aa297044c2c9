"""What the in-memory gateway refuses of requests that no SDK would send; the conformance table has the rest."""

import http.client
import json

import pytest

from maand_hook_sdk.memory_gateway import MemoryGateway
from maand_hook_sdk.memory_identity import Identity
from maand_hook_sdk.memory_semaphores import Semaphores
from maand_hook_sdk.memory_state import MemoryState

HOOK = Identity(job="api", worker="10.0.0.1", allocation_id="a1", hook="hook_x", event="cli")


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PUT", "/kv", '{"namespace": "vars/job/api", "key": "k", "value": "v", "if_version": 1, "if_version": 2}'),
        ("GET", "/kv?namespace=vars/job/api&key=k&key=l", None),
    ],
)
def test_a_field_given_twice_has_no_single_meaning(method: str, path: str, body: str | None) -> None:
    with MemoryGateway(MemoryState()) as gateway:
        connection = http.client.HTTPConnection(gateway.address, timeout=10)
        connection.request(method, path, body=body, headers={"authorization": f"Bearer {gateway.begin(HOOK)}"})
        answer = connection.getresponse()
        error = json.loads(answer.read())["error"]
        connection.close()

    assert (answer.status, error["code"]) == (400, "invalid_argument")
    assert "is given twice" in error["message"]


def test_an_invocation_that_asks_side_by_side_has_one_place_and_one_slot() -> None:
    semaphores = Semaphores()
    holder = semaphores.request(HOOK, "one", "ddl", 2)
    semaphores.request(HOOK, "two", "ddl", 2)
    first, second = (semaphores.request(HOOK, "three", "ddl", 2) for _ in range(2))
    behind = semaphores.request(HOOK, "four", "ddl", 2)
    assert semaphores.status(HOOK, "ddl")["waiting"] == 2

    semaphores.release(HOOK, "one", "ddl")
    assert (first.granted.is_set(), second.granted.is_set(), behind.granted.is_set()) == (True, True, False)
    assert first.ticket == second.ticket > holder.ticket

    semaphores.withdraw("ddl", first)
    assert not behind.granted.is_set()
    semaphores.withdraw("ddl", second)
    assert behind.granted.is_set()


def test_a_holder_that_asks_again_and_goes_away_keeps_its_slot() -> None:
    semaphores = Semaphores()
    semaphores.request(HOOK, "one", "ddl", 1)
    again = semaphores.request(HOOK, "one", "ddl", 1)

    semaphores.withdraw("ddl", again)

    assert semaphores.status(HOOK, "ddl")["available"] == 0
    semaphores.release(HOOK, "one", "ddl")
