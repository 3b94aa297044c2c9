"""Clients that are slow, silent, or never stop: each is let go, and everybody else is served meanwhile."""

import asyncio

from tests.unit.gateway.conftest import ServedGateway
from tests.unit.gateway.raw_http import RawClient, request_bytes
from tests.waiting import until


def head(gateway: ServedGateway, *, length: int) -> bytes:
    headers = {"Authorization": f"Bearer {gateway.tokens['api']}", "Content-Length": str(length)}
    return request_bytes("PUT", "/kv", headers=headers)


async def test_a_body_that_stops_halfway_times_out(impatient: ServedGateway) -> None:
    async with await RawClient.open(impatient.address) as client:
        await client.send(head(impatient, length=100) + b'{"namespace"')

        answer = await client.answer()

    assert (answer.status, answer.code) == (408, "request_timeout")


async def test_a_body_that_drips_times_out(impatient: ServedGateway) -> None:
    async def drip(client: RawClient) -> None:
        await client.send(head(impatient, length=100))
        for _ in range(100):
            await client.send(b" ")
            await asyncio.sleep(0.02)

    async with await RawClient.open(impatient.address) as client:
        dripping = asyncio.create_task(drip(client))
        answer = await client.answer()
        dripping.cancel()

    assert answer.status == 408


async def test_a_head_that_stops_halfway_is_closed(impatient: ServedGateway) -> None:
    async with await RawClient.open(impatient.address) as client:
        await client.send(b"GET /kv HTTP/1.1\r\nHost: x\r\nX-Slow: ")

        assert await client.is_closed()


async def test_a_connection_that_says_nothing_is_closed(impatient: ServedGateway) -> None:
    async with await RawClient.open(impatient.address) as client:
        assert await client.is_closed()


async def test_an_endless_head_is_cut_off(gateway: ServedGateway) -> None:
    async with await RawClient.open(gateway.address) as client:
        await client.send(b"GET /kv HTTP/1.1\r\nX-Endless: ")
        try:
            for _ in range(64):
                await client.send(b"x" * 1024 * 1024)
        except ConnectionError:
            return
        assert await client.is_closed()


async def test_an_answer_that_nobody_reads_is_dropped(impatient: ServedGateway) -> None:
    for number in range(4):
        large = {"namespace": "vars/job/api", "key": f"large-{number}", "value": "x" * 1024 * 1024}
        await impatient.call("PUT", "/kv", fields=large)
    asked = request_bytes(
        "GET",
        "/kv?namespace=vars/job/api&key=large-1",
        headers={"Authorization": f"Bearer {impatient.tokens['api']}"},
    )
    async with await RawClient.open(impatient.address) as client:
        await client.send(asked * 40)
        connections = impatient.running._server.server_state.connections
        await until(lambda: connections)
        await until(lambda: not connections)  # reading, as `is_closed` does, would be progress

        assert await client.is_closed()
    assert (await impatient.call("GET", "/demands")).status == 200


async def test_others_are_served_while_many_stand_still(impatient: ServedGateway) -> None:
    still = [await RawClient.open(impatient.address) for _ in range(200)]
    for client in still:
        await client.send(head(impatient, length=10))

    answer = await impatient.call("GET", "/demands")

    assert answer.status == 200
    for client in still:
        client.close()
