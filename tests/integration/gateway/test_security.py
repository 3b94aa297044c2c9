"""What a hook can do with its token and every trick on headers: its own job's work, while it runs, and nothing else."""

import asyncio

import pytest

from tests.integration.gateway.conftest import Chain
from tests.unit.gateway.raw_http import Answer, RawClient, call, request_bytes
from tests.waiting import until

OTHERS = [
    ("GET", "/kv?namespace=vars/job/web&key=theme"),
    ("GET", "/kv?namespace=secrets/job/web&key=cookie"),
    ("GET", "/kv/keys?namespace=secrets/job/web"),
    ("GET", "/kv?namespace=maand/job/api/worker/10.0.0.2&key=certs/tls.key"),
    ("DELETE", "/kv?namespace=vars/job/web&key=theme"),
    ("DELETE", "/kv/secret?namespace=secrets/job/web&key=cookie"),
]
"""What belongs to another job, or to another allocation alone."""


async def as_hook(chain: Chain, token: str, method: str, path: str, **headers: str) -> Answer:
    return await call(chain.gateway.address, method, path, token=token, headers=headers)


@pytest.mark.parametrize(("method", "path"), OTHERS)
async def test_a_hook_reaches_nothing_of_another_job_or_allocation(chain: Chain, method: str, path: str) -> None:
    (token,) = await chain.begin("api")
    web = chain.identities["web"]
    tricks: list[dict[str, str]] = [
        {},
        {"X-ALLOCATION-ID": web.allocation_id, "HOOK": web.hook, "EVENT": web.event},
        {"X-ALLOCATION-ID": web.allocation_id},
        {"maand-caller": "operator", "maand-claimed-allocation": web.allocation_id},
        {"X-Forwarded-For": "127.0.0.1", "X-Real-IP": "127.0.0.1", "X-Original-URL": "/kv?namespace=vars/job/api&key=greeting"},
        {"grpc-metadata-maand-caller": "operator", "te": "trailers"},
    ]

    answers = [await as_hook(chain, token, method, path, **headers) for headers in tricks]

    assert {answer.status for answer in answers} == {403}
    assert not any(b"dark" in answer.body or b"web-secret-cookie" in answer.body for answer in answers)


@pytest.mark.parametrize("token", ["", "x", "mh_x", "ma_x", "mh_" + "A" * 43, "null", "Bearer", "a" * 60_000])
async def test_made_up_tokens_are_worth_nothing(chain: Chain, token: str) -> None:
    for method, path in OTHERS:
        assert (await as_hook(chain, token, method, path)).status == 401


async def test_a_second_authorization_header_does_not_win(chain: Chain) -> None:
    (mine,) = await chain.begin("api")
    (theirs,) = await chain.begin("web")
    path = "/kv?namespace=secrets/job/web&key=cookie"
    async with await RawClient.open(chain.gateway.address) as client:
        both = f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {mine}\r\nAuthorization: Bearer {theirs}\r\n\r\n"
        await client.send(both.encode())

        assert (await client.answer()).status == 401


async def test_an_ended_hook_may_nothing_even_on_a_connection_that_is_still_open(chain: Chain) -> None:
    (token,) = await chain.begin("api")
    request = request_bytes("GET", "/kv?namespace=vars/job/api&key=greeting", headers={"Authorization": f"Bearer {token}"})
    async with await RawClient.open(chain.gateway.address) as client:
        await client.send(request)
        before = await client.answer()
        await chain.fleet.end(token)
        await client.send(request)
        after = await client.answer()

    assert (before.status, after.status) == (200, 401)


async def test_a_hook_that_ends_gives_its_slot_to_the_next(chain: Chain) -> None:
    holder, waiter = await chain.begin("api", 2)
    address = chain.gateway.address
    await call(address, "POST", "/semaphore/acquire", token=holder, fields={"name": "busy"})
    waiting = asyncio.create_task(
        call(address, "POST", "/semaphore/acquire", token=waiter, fields={"name": "busy", "timeout_seconds": 30})
    )

    await chain.fleet.end(holder)

    assert (await waiting).status == 200


async def test_a_client_that_goes_away_leaves_the_line_of_the_catalog(chain: Chain) -> None:
    holder, gone, asking = await chain.begin("api", 3)
    address = chain.gateway.address
    await call(address, "POST", "/semaphore/acquire", token=holder, fields={"name": "busy"})
    async with await RawClient.open(address) as client:
        body = b'{"name": "busy", "timeout_seconds": 60}'
        await client.send(request_bytes("POST", "/semaphore/acquire", headers={"Authorization": f"Bearer {gone}"}, body=body))
        await until_waiting(address, asking, 1)

    await until_waiting(address, asking, 0)


async def until_waiting(address: str, token: str, count: int) -> None:
    """Wait until so many wait for the semaphore."""

    async def holds() -> bool:
        status = await call(address, "GET", "/semaphore/status?name=busy", token=token)
        return bool(status.json()["waiting"] == count)

    await until(holds)
