"""The pool, with connections that are only pretended."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from structlog.testing import capture_logs

from maand_executor.ssh.connect import Destination
from maand_executor.ssh.errors import WorkerUnreachable
from maand_executor.ssh.pool import Pool, Room
from maand_executor.ssh.settings import SshSettings


class Connection:
    def __init__(self) -> None:
        self.closed = False
        self.keepalives: list[tuple[float, int]] = []

    def is_closed(self) -> bool:
        return self.closed

    def abort(self) -> None:
        self.closed = True

    def set_keepalive(self, interval: float, count_max: int) -> None:
        self.keepalives.append((interval, count_max))

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


class Still(Ticks):
    def __call__(self) -> float:
        return 1.0


def make_pool(server: Server, limit: int, *, room: Room | None = None, clock: Ticks | None = None, **settings: Any) -> Pool:
    return Pool(server.open, limit=limit, settings=SshSettings(**settings), room=room or Room(1000), clock=clock or Ticks())


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


async def test_an_idle_connection_is_asked_for_signs_of_life_less_often_than_one_in_use() -> None:
    server = Server()
    pool = make_pool(server, 2)

    await visit(pool, "a")
    asked = server.connections["a"].keepalives
    found = [asked[-1]]
    async with pool.lease(at("a")):
        found.append(asked[-1])
        await visit(pool, "a")
        found.append(asked[-1])
    found.append(asked[-1])

    assert found == [(30, 1), (5, 3), (5, 3), (30, 1)]


async def test_pools_share_the_room_of_the_process_and_the_longest_idle_of_any_is_closed() -> None:
    one, two, room, clock = Server(), Server(), Room(3), Ticks()
    first, second = make_pool(one, 10, room=room, clock=clock), make_pool(two, 10, room=room, clock=clock)

    with capture_logs() as logs:
        for pool, host in ((first, "a"), (second, "b"), (first, "a"), (first, "c"), (first, "d"), (second, "e")):
            await visit(pool, host)

    assert two.connections["b"].closed
    assert one.connections["a"].closed
    assert first.open_connections + second.open_connections == 3
    assert [(line["log_level"], line["connections"]) for line in logs] == [("warning", 3)], "told once, with the remedy"
    assert "ulimit -n" in logs[0]["event"]


async def test_who_waits_for_the_room_of_the_process_goes_on_when_another_pool_frees_some() -> None:
    one, two, room = Server(), Server(), Room(2)
    first, second = make_pool(one, 10, room=room), make_pool(two, 10, room=room)
    release = asyncio.Event()

    async def hold() -> None:
        async with first.lease(at("a")):
            await release.wait()

    async def stay() -> None:
        async with second.lease(at("x")):
            await asyncio.Event().wait()

    holding, staying = asyncio.create_task(hold()), asyncio.create_task(stay())
    await asyncio.sleep(0)
    waiting = asyncio.create_task(visit(second, "y"))
    await asyncio.sleep(0)
    assert two.logins == ["x"]
    release.set()
    await asyncio.wait_for(asyncio.gather(holding, waiting), 60)

    assert two.logins == ["x", "y"]
    staying.cancel()


async def test_a_pool_without_any_connection_gets_one_though_other_pools_fill_the_room() -> None:
    one, two, room = Server(), Server(), Room(1)
    first, second = make_pool(one, 10, room=room), make_pool(two, 10, room=room)

    async with first.lease(at("a")):
        await asyncio.wait_for(visit(second, "b"), 60)

    assert two.logins == ["b"]


async def test_the_connections_of_a_closed_pool_take_no_room() -> None:
    one, two, room = Server(), Server(), Room(1)
    first, second = make_pool(one, 10, room=room), make_pool(two, 10, room=room)
    await visit(first, "a")

    await first.close()
    with capture_logs() as logs:
        await visit(second, "b")

    assert logs == []


async def test_a_long_wait_for_a_connection_is_told_once_for_all_who_wait() -> None:
    pool = make_pool(Server(), 1, long_wait=timedelta(milliseconds=20), clock=Still())
    told = asyncio.Event()

    async def hold() -> None:
        async with pool.lease(at("a")):
            await told.wait()

    with capture_logs() as logs:
        holding = asyncio.create_task(hold())
        await asyncio.sleep(0)
        waiting = [asyncio.create_task(visit(pool, host)) for host in "bcd"]
        async with asyncio.timeout(60):
            while not logs:  # noqa: ASYNC110 - a list tells nobody that it grew
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)  # time in which it could be told again
        told.set()
        await asyncio.gather(holding, *waiting)

    (line,) = logs
    assert "max_ssh_sessions" in line["event"]
    assert (line["worker"], line["in_use"], line["waiting"]) == ("b", 1, 3)
