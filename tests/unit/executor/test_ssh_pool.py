"""The pool, with connections that are only pretended."""

import asyncio
from typing import Any

import pytest

from maand_executor.ssh.connect import Destination
from maand_executor.ssh.errors import WorkerUnreachable
from maand_executor.ssh.pool import Pool


class Connection:
    def __init__(self) -> None:
        self.closed = False

    def is_closed(self) -> bool:
        return self.closed

    def abort(self) -> None:
        self.closed = True

    async def wait_closed(self) -> None:
        return None


class Server:
    """Opens pretended connections when told to."""

    def __init__(self) -> None:
        self.logins: list[str] = []
        self.connections: dict[str, Connection] = {}
        self.may_open = asyncio.Event()
        self.may_open.set()
        self.refuses = False

    async def open(self, destination: Destination) -> Any:
        self.logins.append(destination.host)
        await self.may_open.wait()
        if self.refuses:
            raise WorkerUnreachable(destination.host, "no")
        self.connections[destination.host] = Connection()
        return self.connections[destination.host]


def at(host: str) -> Destination:
    return Destination(host=host, port=22, user="agent")


class Ticks:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1
        return self.now


def make_pool(server: Server, limit: int) -> Pool:
    return Pool(server.open, limit=limit, channels=8, clock=Ticks())


async def visit(pool: Pool, host: str) -> None:
    async with pool.lease(at(host)):
        pass


async def test_leases_of_one_destination_share_one_login() -> None:
    server = Server()
    pool = make_pool(server, 4)

    await asyncio.gather(*(visit(pool, "a") for _ in range(10)))
    await visit(pool, "a")

    assert server.logins == ["a"]
    assert pool.open_connections == 1


async def test_the_one_idle_longest_makes_room() -> None:
    server = Server()
    pool = make_pool(server, 2)

    for host in ("a", "b", "a", "c"):
        await visit(pool, host)

    assert server.connections["b"].closed
    assert not server.connections["a"].closed
    assert pool.open_connections == 2


async def test_when_all_are_busy_one_waits_and_the_first_to_wait_is_served_first() -> None:
    server = Server()
    pool = make_pool(server, 1)
    served: list[str] = []

    async def work(host: str) -> None:
        async with pool.lease(at(host)):
            served.append(host)
            await asyncio.sleep(0)

    await asyncio.wait_for(asyncio.gather(*(work(host) for host in "abcdef")), 60)

    assert served == list("abcdef")
    assert pool.open_connections == 1


async def test_a_failed_login_reaches_everybody_who_waited_and_nobody_after() -> None:
    server = Server()
    server.refuses = True
    pool = make_pool(server, 1)

    outcomes = await asyncio.gather(*(visit(pool, "a") for _ in range(3)), return_exceptions=True)
    server.refuses = False
    await visit(pool, "a")

    assert [type(outcome) for outcome in outcomes] == [WorkerUnreachable] * 3
    assert server.logins == ["a", "a"]


async def test_a_lost_connection_is_opened_anew() -> None:
    server = Server()
    pool = make_pool(server, 2)
    await visit(pool, "a")

    server.connections["a"].closed = True
    await visit(pool, "a")

    assert server.logins == ["a", "a"]


async def test_a_login_whose_waiters_all_gave_up_does_not_block_the_pool() -> None:
    server = Server()
    server.may_open.clear()
    pool = make_pool(server, 1)
    hasty = asyncio.create_task(visit(pool, "a"))
    await asyncio.sleep(0)
    other = asyncio.create_task(visit(pool, "b"))
    await asyncio.sleep(0)

    hasty.cancel()
    await asyncio.sleep(0)
    server.may_open.set()
    await asyncio.wait_for(other, 60)

    assert server.logins == ["a", "b"]


async def test_a_login_that_fails_with_nobody_waiting_makes_room_silently() -> None:
    server = Server()
    server.may_open.clear()
    pool = make_pool(server, 1)
    hasty = asyncio.create_task(visit(pool, "a"))
    await asyncio.sleep(0)
    hasty.cancel()
    server.refuses = True
    server.may_open.set()
    await asyncio.sleep(0)
    server.refuses = False

    await asyncio.wait_for(visit(pool, "b"), 60)


async def test_giving_up_the_wait_for_room_passes_the_turn_on() -> None:
    server = Server()
    pool = make_pool(server, 1)
    release = asyncio.Event()

    async def hold() -> None:
        async with pool.lease(at("a")):
            await release.wait()

    holding = asyncio.create_task(hold())
    await asyncio.sleep(0)
    first, second = (asyncio.create_task(visit(pool, host)) for host in "bc")
    await asyncio.sleep(0)
    release.set()
    first.cancel()
    await asyncio.wait_for(asyncio.gather(holding, second), 60)

    with pytest.raises(asyncio.CancelledError):
        await first


async def test_closing_hangs_everything_up() -> None:
    server = Server()
    pool = make_pool(server, 3)
    for host in "abc":
        await visit(pool, host)

    await pool.close()

    assert all(connection.closed for connection in server.connections.values())
    assert pool.open_connections == 0
