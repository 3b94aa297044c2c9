"""A catalog that restarts or moves while hooks call: what may be repeated is repeated, and nothing is done twice."""

from datetime import timedelta
from typing import Any

import grpc
import pytest

from maand_runtime_gateway.settings import Deadlines
from maand_wire.errors import RemoteError
from tests.unit.gateway.conftest import ServedGateway, serve

SECRET = {"namespace": "secrets/job/api", "key": "pin"}


@pytest.mark.parametrize(
    ("method", "path", "fields"),
    [
        ("GET", "/kv?namespace=vars/job/api&key=greeting", None),
        ("GET", "/kv/keys", None),
        ("PUT", "/kv", {"namespace": "vars/job/api", "key": "greeting", "value": "new"}),
        ("PUT", "/kv", {"namespace": "vars/job/api", "key": "fresh", "value": "new", "if_absent": True}),
        ("PUT", "/kv/secret", {**SECRET, "value": "4711", "if_absent": True}),
        ("DELETE", "/kv?namespace=vars/job/api&key=greeting", None),
    ],
)
async def test_an_answer_that_was_lost_is_asked_for_again(
    gateway: ServedGateway, method: str, path: str, fields: dict[str, Any] | None
) -> None:
    gateway.fakes.kv.lose = 2

    answer = await gateway.call(method, path, fields=fields)

    assert answer.status == 200, answer.message
    assert len(gateway.fakes.kv.seen.metadata) == 3


@pytest.mark.parametrize("status", [grpc.StatusCode.NOT_FOUND, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.INTERNAL])
async def test_a_refusal_is_told_at_once(gateway: ServedGateway, status: grpc.StatusCode) -> None:
    gateway.fakes.kv.fail_with = RemoteError(status, "no")

    await gateway.call("GET", "/kv?namespace=vars/job/api&key=greeting")

    assert len(gateway.fakes.kv.seen.metadata) == 1


async def test_a_grant_that_was_lost_is_the_same_grant(gateway: ServedGateway) -> None:
    gateway.fakes.semaphores.lose = 1

    granted = await gateway.call("POST", "/semaphore/acquire", fields={"name": "one"})

    status = await gateway.call("GET", "/semaphore/status?name=one")
    assert granted.status == 200
    assert status.json()["holders"] == ["api-1"]


async def test_a_wait_that_is_taken_up_again_lasts_no_longer(gateway: ServedGateway) -> None:
    gateway.fakes.semaphores.lose, gateway.fakes.semaphores.lost_after = 1, 1.6

    await gateway.call("POST", "/semaphore/acquire", fields={"name": "one", "timeout_seconds": 100})

    first, second = gateway.fakes.semaphores.asked_to_wait
    assert first == 100
    assert second <= 98


async def test_a_slot_given_back_twice_because_the_answer_was_lost_is_given_back(gateway: ServedGateway) -> None:
    await gateway.call("POST", "/semaphore/acquire", fields={"name": "one"})
    gateway.fakes.semaphores.lose = 1

    released = await gateway.call("POST", "/semaphore/release", fields={"name": "one"})
    again = await gateway.call("POST", "/semaphore/release", fields={"name": "one"})

    assert released.status == 200
    assert (again.status, again.code) == (409, "semaphore_not_held")


async def test_a_command_on_a_worker_is_never_repeated(gateway: ServedGateway) -> None:
    gateway.fakes.remote.lose = 1

    answer = await gateway.call("POST", "/ssh", fields={"worker": "10.0.0.1", "command": "true"})

    assert answer.status == 503
    assert len(gateway.fakes.remote.seen.metadata) == 1


async def test_a_catalog_that_stays_away_is_told() -> None:
    async with serve(deadlines=Deadlines(patience=timedelta(milliseconds=300))) as gateway:
        await gateway.fakes.stop()

        answer = await gateway.call("GET", "/kv?namespace=vars/job/api&key=greeting")

    assert (answer.status, answer.code) == (503, "unavailable")
    assert answer.message == "the service behind this route cannot be reached; try again"
