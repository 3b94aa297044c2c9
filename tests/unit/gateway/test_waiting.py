"""Calls that last: whoever goes away leaves the line at once, and so does a gateway that stops."""

import asyncio

from tests.unit.gateway.conftest import ServedGateway
from tests.unit.gateway.raw_http import RawClient, request_bytes
from tests.waiting import until


async def waiter(gateway: ServedGateway, caller: str = "api_peer") -> RawClient:
    """Ask for a slot that somebody else holds."""
    client = await RawClient.open(gateway.address)
    body = b'{"name": "busy", "timeout_seconds": 60}'
    headers = {"Authorization": f"Bearer {gateway.tokens[caller]}", "Content-Type": "application/json"}
    waiting = await waiting_count(gateway)
    await client.send(request_bytes("POST", "/semaphore/acquire", headers=headers, body=body))

    async def waits() -> bool:
        return await waiting_count(gateway) != waiting

    await until(waits)
    return client


async def waiting_count(gateway: ServedGateway) -> int:
    status = await gateway.call("GET", "/semaphore/status?name=busy")
    return int(status.json()["waiting"])


async def test_a_client_that_goes_away_leaves_the_line(gateway: ServedGateway) -> None:
    await gateway.call("POST", "/semaphore/acquire", fields={"name": "busy"})
    client = await waiter(gateway)

    client.close()

    await until(lambda: gateway.fakes.semaphores.seen.cancelled == ["busy"])
    assert await waiting_count(gateway) == 0


async def test_a_grant_reaches_the_next_in_line(gateway: ServedGateway) -> None:
    first = (await gateway.call("POST", "/semaphore/acquire", fields={"name": "busy"})).json()
    async with await waiter(gateway) as client:
        await gateway.call("POST", "/semaphore/release", fields={"name": "busy"})

        second = (await client.answer()).json()

    assert (first["allocation_id"], second["allocation_id"]) == ("api-1", "api-2")
    assert second["fencing_token"] > first["fencing_token"]


async def test_a_gateway_that_stops_ends_waits_with_words(gateway: ServedGateway) -> None:
    await gateway.call("POST", "/semaphore/acquire", fields={"name": "busy"})
    async with await waiter(gateway) as client:
        stopping = asyncio.create_task(gateway.running.stop())

        answer = await client.answer()
        await stopping

    assert (answer.status, answer.code) == (503, "stopping")
    assert gateway.fakes.semaphores.seen.cancelled == ["busy"]
