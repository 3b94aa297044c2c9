"""Thousands of malformed requests: every one is answered within the document's statuses, and the gateway goes on serving."""

import asyncio
import json
import random
import string
from collections.abc import Callable
from typing import Any

from maand_runtime_gateway.openapi import MEANINGS
from tests.contracts.hook_api.field_cases import FIELDS_OF
from tests.unit.gateway.conftest import IMPATIENT, ServedGateway, serve
from tests.unit.gateway.raw_http import RawClient, request_bytes

REQUESTS = 10_000
AT_ONCE = 32
SEED = 20_260_101

Junk = Callable[[random.Random, str], bytes]


def bad_json(chance: random.Random, token: str) -> bytes:
    """Send a body cut, doubled, or with bytes flipped."""
    method, path = chance.choice([route for route in FIELDS_OF if route[0] in ("PUT", "POST")])
    body = bytearray(json.dumps(FIELDS_OF[(method, path)]).encode())
    for _ in range(chance.randint(1, 4)):
        body[chance.randrange(len(body))] = chance.randrange(256)
    return framed(method, path, token, bytes(body[: chance.randint(1, len(body))]))


def wrong_types(chance: random.Random, token: str) -> bytes:
    """Send fields of every type but the right one."""
    method, path = chance.choice(list(FIELDS_OF))
    fields: dict[str, Any] = dict(FIELDS_OF[(method, path)])
    junk: list[Any] = [None, True, -1, 2**70, 1e400, [], [[]], {}, {"a": {}}, "\x00", "x" * 300]
    for name in [*fields, chance.choice(string.ascii_letters)]:
        if chance.random() < 0.7:
            fields[name] = chance.choice(junk)
    return framed(method, path, token, json.dumps(fields).encode())


def bad_query(chance: random.Random, token: str) -> bytes:
    """Send queries of every shape."""
    query = "".join(chance.choice("&=%;+?#/ab01%20%ff%") for _ in range(chance.randint(1, 60))).replace("#", "")
    return framed(chance.choice(["GET", "DELETE"]), f"/kv?{query}", token, None)


def bad_headers(chance: random.Random, token: str) -> bytes:
    """Send headers that contradict each other or mean nothing."""
    name = "".join(chance.choice(string.ascii_letters + "-") for _ in range(chance.randint(1, 30)))
    value = "".join(chr(chance.randint(33, 255)) for _ in range(chance.randint(0, 200)))
    method, path = chance.choice(list(FIELDS_OF))
    headers = {name: value, "Authorization": chance.choice(["Bearer " + value, "Basic x", "Bearer", f"Bearer {token}"])}
    headers[chance.choice(["HOOK", "EVENT", "X-ALLOCATION-ID", "X-REQUEST-ID", "Content-Type", "Accept"])] = value
    return request_bytes(method, path, headers=headers, body=b"{}")


def bad_path(chance: random.Random, token: str) -> bytes:
    """Send paths and methods that nobody has."""
    path = "/" + "".join(chance.choice("/.%2f~kvab\\:*$") for _ in range(chance.randint(0, 40)))
    return framed(chance.choice(["GET", "PUT", "OPTIONS", "TRACE", "PATCH", "DELETE", "BREW"]), path, token, None)


def too_large(chance: random.Random, token: str) -> bytes:
    """Send a body over the limit, on rare occasions."""
    size = 2 * 1024 * 1024 + 1 if chance.random() < 0.01 else 70_000
    return framed("PUT", "/kv", token, b'{"value": "' + b"x" * size)


def no_http(chance: random.Random, _token: str) -> bytes:
    """Send bytes that are no HTTP at all."""
    return bytes(chance.randrange(256) for _ in range(chance.randint(1, 200))) + b"\r\n\r\n"


def half_sent(chance: random.Random, token: str) -> bytes:
    """Send the beginning of a right request, and nothing more."""
    whole = framed("PUT", "/kv", token, json.dumps(FIELDS_OF[("PUT", "/kv")]).encode())
    return whole[: chance.randint(1, len(whole) - 1)]


KINDS: tuple[tuple[Junk, int], ...] = (
    (bad_json, 30),
    (wrong_types, 30),
    (bad_query, 20),
    (bad_headers, 20),
    (bad_path, 15),
    (too_large, 2),
    (no_http, 5),
    (half_sent, 5),
)
"""What is sent, and how often."""


def framed(method: str, path: str, token: str, body: bytes | None) -> bytes:
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    return request_bytes(method, path, headers=headers, body=body)


async def send_and_look(address: str, data: bytes, *, closes: bool) -> int | None:
    """Send one request; return the status, or None when the connection was closed without one."""
    async with await RawClient.open(address) as client:
        try:
            await client.send(data)
            if closes:
                return None
            return (await client.answer()).status
        except (ConnectionError, asyncio.IncompleteReadError):
            return None


async def hammer(gateway: ServedGateway, chance: random.Random, count: int) -> list[int | None]:
    """Send so many malformed requests, one after the other."""
    kinds, weights = zip(*KINDS, strict=True)
    statuses = []
    for _ in range(count):
        kind: Junk = chance.choices(kinds, weights)[0]
        token = gateway.tokens[chance.choice(["api", "api", "dead", "stranger"])]
        statuses.append(await send_and_look(gateway.address, kind(chance, token), closes=kind is half_sent))
    return statuses


async def test_ten_thousand_malformed_requests_leave_it_serving() -> None:
    async with serve(limits=IMPATIENT) as gateway:
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(hammer(gateway, random.Random(SEED + number), REQUESTS // AT_ONCE)) for number in range(AT_ONCE)
            ]
        statuses = {status for task in tasks for status in task.result()}

        assert statuses - {None} <= {200, 404, 405, *MEANINGS} - {500, 502, 503, 504}
        assert (await gateway.call("GET", "/demands")).status == 200
