"""Health that tells the truth: Check and Watch behind interceptors, a look that says no, takes too long, or breaks."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from maand_wire import health as health_module
from maand_wire.errors import ErrorBoundary
from maand_wire.health import NOT_SERVING, SERVING, Health, check_serving
from maand_wire.servers import add_standard_services, bind_server, make_server
from tests.waiting import until

SERVICE = "maand.catalog.v1.RunService"
UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


@pytest.fixture
async def served() -> AsyncIterator[tuple[Health, grpc.aio.Channel]]:
    """Serve health behind the interceptor that every server of ours has."""
    server = make_server([ErrorBoundary({})])
    health = add_standard_services(server, [SERVICE])
    channel = grpc.aio.insecure_channel(bind_server(server, "127.0.0.1:0"))
    await server.start()
    yield health, channel
    await channel.close()
    await server.stop(None)


def asked_for(service: str = "") -> health_pb2.HealthCheckRequest:
    return health_pb2.HealthCheckRequest(service=service)


async def seen_by(channel: grpc.aio.Channel, service: str, seen: list[int]) -> None:
    """Watch, and remember what is told."""
    stub: Any = health_pb2_grpc.HealthStub(channel)
    async for answer in stub.Watch(asked_for(service)):
        seen += [answer.status]


@pytest.mark.parametrize("service", ["", SERVICE])
async def test_a_watcher_is_told_every_change_and_the_stop(served: tuple[Health, grpc.aio.Channel], service: str) -> None:
    health, channel = served
    seen: list[int] = []
    watching = asyncio.create_task(seen_by(channel, service, seen))
    expected: list[int] = []

    acts: list[tuple[Callable[[], None], int]] = [
        (lambda: None, NOT_SERVING),
        (lambda: health.announce(ready=True), SERVING),
        (lambda: health.announce(ready=False), NOT_SERVING),
        (lambda: health.announce(ready=True), SERVING),
        (health.announce_stop, NOT_SERVING),
    ]
    for act, status in acts:
        act()
        expected.append(status)
        await until(lambda: seen == expected)
    health.announce(ready=True)

    assert not await check_serving(channel), "what stops does not serve again"
    watching.cancel()


async def test_a_service_that_is_not_here_is_told_so(served: tuple[Health, grpc.aio.Channel]) -> None:
    _, channel = served
    seen: list[int] = []
    watching = asyncio.create_task(seen_by(channel, "maand.Nothing", seen))

    await until(lambda: seen == [UNKNOWN])
    stub: Any = health_pb2_grpc.HealthStub(channel)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stub.Check(asked_for("maand.Nothing"))

    assert refused.value.code() is grpc.StatusCode.NOT_FOUND
    watching.cancel()


async def test_nobody_there_does_not_serve() -> None:
    async with grpc.aio.insecure_channel("127.0.0.1:1") as channel:
        assert not await check_serving(channel)


async def keep(health: Health, is_ready: Callable[[], Awaitable[bool]], *, until_ready: bool) -> None:
    """Keep health until it is as expected."""
    keeping = asyncio.create_task(health.keep(is_ready))
    try:
        await until(lambda: keeping.done() or (health._status == SERVING) == until_ready)
    finally:
        keeping.cancel()
        with suppress(asyncio.CancelledError):
            await keeping


async def test_it_is_what_the_looks_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health_module, "LONGEST_LOOK", health_module.LONGEST_LOOK / 60)
    health, answers = Health([]), asyncio.Event()

    async def yes() -> bool:
        return True

    async def no() -> bool:
        return False

    async def stuck() -> bool:
        await answers.wait()
        return True

    await keep(health, yes, until_ready=True)
    await keep(health, no, until_ready=False)
    await keep(health, yes, until_ready=True)
    await keep(health, stuck, until_ready=False)
    answers.set()
    await keep(health, stuck, until_ready=True)


async def test_a_look_that_breaks_says_no_and_ends_the_loop_which_is_begun_again() -> None:
    health = Health([])
    health.announce(ready=True)

    async def broken() -> bool:
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        await health.keep(broken)
    assert health._status == NOT_SERVING
