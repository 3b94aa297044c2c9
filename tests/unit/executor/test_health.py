"""Probes against real sockets: what is healthy, what is not, and that nothing hangs."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta

import pytest

from maand_executor.rules.facts import HttpProbe, SshProbe, TcpProbe, Worker
from maand_executor.rules.health import OnOutput, Prober, describe_probe

HERE = Worker(name="127.0.0.1")
SOON = timedelta(seconds=2)


async def exit_code(command: str, limit: timedelta, on_output: OnOutput) -> int:
    on_output("stdout", b"looked\n")
    on_output("stderr", b"no file\n")
    return int(command)


PROBER = Prober(worker=HERE, run_command=exit_code)


@asynccontextmanager
async def server(answer: bytes | None) -> AsyncIterator[int]:
    """Serve one answer to everybody; None says nothing and holds the line."""

    ended: list[asyncio.Event] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ended.append(asyncio.Event())
        mine = ended[-1]
        with suppress(OSError, asyncio.IncompleteReadError):
            if answer is None:
                await reader.read()
            else:
                await reader.readuntil(b"\r\n\r\n")
                writer.write(answer)
                await writer.drain()
        with suppress(OSError):
            writer.close()
            await writer.wait_closed()
        mine.set()

    running = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with running:
        yield running.sockets[0].getsockname()[1]
        for one in ended:
            await one.wait()


async def test_a_port_that_accepts_is_healthy() -> None:
    async with server(None) as port:
        assert (await PROBER.probe(TcpProbe(port=port), SOON)).healthy


async def test_a_port_where_nobody_listens_is_not() -> None:
    async with server(None) as port:
        pass
    result = await PROBER.probe(TcpProbe(port=port), SOON)
    assert result.problem == f"tcp {port}: connection refused"


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", ""),
        (b"HTTP/1.0 200\r\n\r\n", ""),
        (b"HTTP/1.1 503 Nope\r\n\r\n", "http {port}/healthz: answered 503, not 200"),
        (b"SSH-2.0-OpenSSH\r\n", "http {port}/healthz: the answer is not HTTP"),
        (b"", "http {port}/healthz: the answer is not HTTP"),
    ],
)
async def test_an_http_status_decides(answer: bytes, problem: str) -> None:
    async with server(answer) as port:
        result = await PROBER.probe(HttpProbe(port=port, path="/healthz"), SOON)
        assert result.problem == problem.format(port=port)


async def test_a_probe_that_hangs_ends_at_its_timeout() -> None:
    async with server(None) as port:
        result = await PROBER.probe(HttpProbe(port=port), timedelta(milliseconds=50))
        assert result.problem == f"http {port}/: no answer within 0.05 s"


async def test_a_command_is_healthy_when_it_exits_with_0() -> None:
    assert (await PROBER.probe(SshProbe(command="0"), SOON)).healthy
    result = await PROBER.probe(SshProbe(command="3"), SOON)
    assert (result.problem, result.output) == ("ssh `3`: exit code 3", "looked\nno file")


@pytest.mark.parametrize(
    ("command", "named"),
    [("test -e data/ready", "test -e data/ready"), ("set -e\ncurl x\n", "set -e …"), ("x" * 80, f"{'x' * 60} …")],
)
def test_a_command_is_named_in_one_short_line(command: str, named: str) -> None:
    assert describe_probe(SshProbe(command=command)) == f"ssh `{named}`"


async def test_what_a_command_said_before_it_hung_is_kept() -> None:
    async def hang(command: str, limit: timedelta, on_output: OnOutput) -> int:
        on_output("stdout", b"waiting for the lock\n")
        await asyncio.Event().wait()
        return 0

    result = await Prober(worker=HERE, run_command=hang).probe(SshProbe(command="x"), timedelta(milliseconds=20))
    assert (result.problem, result.output) == ("ssh `x`: no answer within 0.02 s", "waiting for the lock")
    assert "lock" not in repr(result), "it may hold a secret"


async def test_a_worker_that_cannot_be_reached_is_a_finding_not_an_error() -> None:
    async def refuse(command: str, limit: timedelta, on_output: OnOutput) -> int:
        raise OSError(113, "No route to host")

    result = await Prober(worker=HERE, run_command=refuse).probe(SshProbe(command="x"), SOON)
    assert result.problem == "ssh `x`: No route to host"
