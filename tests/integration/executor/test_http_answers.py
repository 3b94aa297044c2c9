"""Whatever a worker answers to a hook's HTTP request, or fails to answer: the call ends in time, and others go on meanwhile.

The workers are threads with plain sockets: what they do is not slowed down by the loop that is tested, nor slows it down.
"""

import asyncio
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta

import h11
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maand_executor.rpc.errors import HttpRequestFailed, HttpTimedOut, InvalidCall
from maand_executor.rpc.http_client import HttpAnswer, read_answer, request_bytes, send_request
from maand_executor.rpc.http_proxy import ANSWER_BODY_LIMIT, TlsManners, proxy_request
from maand_executor.rpc.http_rules import HttpRequest, Target
from maand_executor.rules.facts import Certificates

HERE = "127.0.0.1"
LIMIT = 1.0
"""Seconds that a call of these tests has."""
LATE = 1.5
"""Seconds by which a busy machine may end it late."""
LONGEST_PAUSE = 1.0
"""Seconds that nobody else came to their turn: the loop hangs. A busy machine takes a part of them."""

Talk = Callable[[socket.socket], None]


# Workers --------------------------------------------------------------------------------------------------------------------


@contextmanager
def worker_that(talk: Talk, *, hears_first: bool = True) -> Iterator[int]:
    """Serve with that on each connection until the test is over; give the port."""
    over = threading.Event()
    listener = socket.create_server((HERE, 0))

    def converse(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            connection.settimeout(20)
            if hears_first:
                heard = b""
                while b"\r\n\r\n" not in heard:
                    heard += connection.recv(65_536)
            talk(connection)

    def accept() -> None:
        with suppress(OSError):
            while not over.is_set():
                connection, _ = listener.accept()
                threading.Thread(target=converse, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield listener.getsockname()[1]
    finally:
        over.set()
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def says(answer: bytes) -> Talk:
    """Answer that, then close."""
    return lambda connection: connection.sendall(answer)


def says_and_stays(answer: bytes) -> Talk:
    """Answer that, then say nothing more until the other side is gone."""

    def talk(connection: socket.socket) -> None:
        connection.sendall(answer)
        while connection.recv(65_536):
            pass

    return talk


def repeats(piece: bytes, *, after: bytes = b"", every: float = 0.0) -> Talk:
    """Answer the same again and again, as fast as it goes or every so often."""
    large = piece if every else piece * (65_536 // len(piece) + 1)

    def talk(connection: socket.socket) -> None:
        connection.sendall(after)
        while True:
            connection.sendall(large)
            time.sleep(every)

    return talk


def breaks_off(connection: socket.socket) -> None:
    """Begin an answer, then reset the connection."""
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def reads_nothing(connection: socket.socket) -> None:
    """Take no byte and say none."""
    time.sleep(10)


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


# The caller -----------------------------------------------------------------------------------------------------------------


@contextmanager
def others_go_on() -> Iterator[None]:
    """Fail when another coroutine of the loop had to wait for its turn too long."""
    pauses: list[float] = []

    async def beat() -> None:
        last = time.monotonic()
        while True:
            await asyncio.sleep(0.01)
            now = time.monotonic()
            pauses.append(now - last)
            last = now

    beating = asyncio.ensure_future(beat())
    try:
        yield
    finally:
        beating.cancel()
    assert max(pauses, default=0.0) < LONGEST_PAUSE


async def ask(port: int, *, method: str = "GET", scheme: str = "http", body: bytes = b"", limit: float = LIMIT) -> HttpAnswer:
    """Ask as the service does, and insist that it ends in time whatever comes back."""
    target = Target(scheme=scheme, host=HERE, port=port, path="/")
    began = time.monotonic()
    try:
        with others_go_on():
            return await proxy_request(
                HttpRequest(method=method, target=target, body=body),
                allowed_hosts=[HERE],
                certificates=Certificates(),
                allocation_id="a-1",
                tls=TlsManners(insecure=True),
                limit=timedelta(seconds=limit),
            )
    finally:
        assert time.monotonic() - began < limit + LATE


# What ends the call at once -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["CONNECT", "GET"])
@pytest.mark.parametrize("status", ["200 OK", "204 No Content", "299 Odd"])
async def test_a_tunnel_that_is_agreed_to_hangs_nobody(method: str, status: str) -> None:
    """The service sends no CONNECT: this is the second line of defence."""
    with worker_that(
        says_and_stays(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\nand now for something else".encode())
    ) as port:
        if method == "GET":
            assert (await ask(port)).body == b""
            return
        with pytest.raises(HttpRequestFailed, match="left HTTP") as failed:
            await ask(port, method=method, limit=5)

    assert not isinstance(failed.value, HttpTimedOut)


async def test_a_tunnel_that_is_refused_is_an_answer() -> None:
    with worker_that(says(b"HTTP/1.1 405 No\r\nContent-Length: 2\r\n\r\nno")) as port:
        assert (await ask(port, method="CONNECT")).status == 405


@pytest.mark.parametrize(
    "talk",
    [
        says_and_stays(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n\x81\x05hello"),
        says(b""),
        says(b"HTTP/1.1 200 OK\r\nContent-Le"),
        says(b"HTTP/1.1 100 Continue\r\n\r\n"),
        says_and_stays(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        says_and_stays(b"\x00\x00\x12\x04\x00\x00\x00\x00\x00" + b"\x00" * 18 + b"\r\n\r\n"),
        says_and_stays(b"SSH-2.0-OpenSSH_9.2\r\n\r\n"),
        says_and_stays(b"HTTP/1.1 099 Low\r\n\r\n"),
        says_and_stays(b"HTTP/1.1 2000 High\r\n\r\n"),
        says(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc"),
        says_and_stays(b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n"),
        says_and_stays(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd"),
        says_and_stays(b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 5_000 + b"\r\n\r\n"),
        says_and_stays(CHUNKED + b"xyz\r\nabc\r\n"),
        says_and_stays(CHUNKED + b"f" * 100 + b"\r\n"),
        says_and_stays(CHUNKED + b"3\r\nabcd\r\n"),
        says(CHUNKED + b"3\r\nab"),
        says_and_stays(b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 1_000_000),
        repeats(b"X-Again: 1\r\n", after=b"HTTP/1.1 200 OK\r\n"),
        repeats(b"X-Again: 1\r\n", after=CHUNKED + b"0\r\n"),
        repeats(b"x", after=CHUNKED + b"3;"),
        breaks_off,
    ],
)
async def test_what_is_no_http_answer_fails_at_once(talk: Talk) -> None:
    with worker_that(talk) as port, pytest.raises(HttpRequestFailed) as failed:
        await ask(port, limit=10)

    assert not isinstance(failed.value, HttpTimedOut)
    assert str(failed.value).startswith(f"http://{HERE}:{port}/")


@pytest.mark.parametrize("location", ["http://[::1", "ftp://127.0.0.1/", "http://127.0.0.1:99999/", "/\xfc"])
async def test_a_redirect_to_nowhere_is_the_workers_fault(location: str) -> None:
    answer = f"HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode("latin-1")
    with worker_that(says(answer)) as port, pytest.raises(HttpRequestFailed, match="redirects to where nothing can be asked"):
        await ask(port)


# What never ends ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "talk",
    [
        says_and_stays(b""),
        says_and_stays(b"HTTP/1.1 200 OK\r\nX-A: "),
        says_and_stays(b"HTTP/1.1 100 Continue\r\n\r\n"),
        says_and_stays(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc"),
        says_and_stays(CHUNKED + b"5\r\nabc"),
        repeats(b"HTTP/1.1 100 Continue\r\n\r\n"),
        repeats(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n", every=0.05),
        repeats(b"x", every=0.05),
        repeats(b"x", after=b"HTTP/1.1 200 OK\r\n\r\n", every=0.05),
        repeats(b"1\r\nx\r\n", after=CHUNKED, every=0.05),
        repeats(b"1\r\nx\r\n", after=CHUNKED),
        repeats(b"HTTP/1.1 302 Found\r\nLocation: /\r\n", every=0.3),
    ],
)
async def test_what_never_ends_ends_with_the_time_limit(talk: Talk) -> None:
    with worker_that(talk) as port, pytest.raises(HttpTimedOut, match="no complete answer within 1 s"):
        await ask(port)


async def test_slow_redirects_have_one_time_limit_together() -> None:
    def talk(connection: socket.socket) -> None:
        time.sleep(0.4)
        connection.sendall(b"HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n")

    with worker_that(talk) as port, pytest.raises(HttpTimedOut):
        await ask(port)


async def test_a_worker_that_reads_nothing_ends_with_the_time_limit() -> None:
    with worker_that(reads_nothing, hears_first=False) as port, pytest.raises(HttpTimedOut):
        await ask(port, method="POST", body=b"x" * 2 * 1024 * 1024)


@pytest.mark.parametrize(
    "talk",
    [says_and_stays(b""), says_and_stays(b"\x16\x03\x03\x40\x00"), repeats(b"\x16", after=b"\x16\x03\x03\x40\x00", every=0.05)],
)
async def test_a_tls_handshake_that_never_ends_ends_with_the_time_limit(talk: Talk) -> None:
    with worker_that(talk, hears_first=False) as port, pytest.raises(HttpTimedOut):
        await ask(port, scheme="https")


async def test_what_speaks_no_tls_fails_at_once() -> None:
    with worker_that(says_and_stays(b"HTTP/1.1 400 Speak plainly\r\n\r\n"), hears_first=False) as port:
        with pytest.raises(HttpRequestFailed, match="TLS failed"):
            await ask(port, scheme="https", limit=10)


@pytest.mark.parametrize("method", ["GET", "TRACE", "OPTIONS", "PROPFIND"])
async def test_an_endless_body_costs_what_is_kept_of_it(method: str) -> None:
    with worker_that(repeats(b"x" * 1024, after=b"HTTP/1.1 200 OK\r\n\r\n")) as port:
        answer = await ask(port, method=method, limit=30)

    assert (len(answer.body), answer.truncated) == (ANSWER_BODY_LIMIT, True)


async def test_a_body_that_nobody_asked_for_is_left_alone() -> None:
    with worker_that(repeats(b"x" * 1024, after=b"HTTP/1.1 200 OK\r\nContent-Length: 999999999\r\n\r\n")) as port:
        assert (await ask(port, method="HEAD", limit=30)).body == b""


@pytest.mark.parametrize("name", [".", ".internal", "a" * 64 + ".internal", "a\0b"])
async def test_a_name_that_cannot_be_verified_is_the_hooks_fault(name: str) -> None:
    request = HttpRequest(method="GET", target=Target(scheme="https", host=HERE, port=1, path="/"))
    with worker_that(says_and_stays(b""), hears_first=False) as port:
        target = Target(scheme="https", host=HERE, port=port, path="/")
        with pytest.raises(InvalidCall, match=r"tls\.server_name"):
            async with asyncio.timeout(5):
                await send_request(
                    HttpRequest(method=request.method, target=target),
                    tls=ssl.create_default_context(),
                    server_name=name,
                    body_limit=1,
                )


# Any bytes at all -----------------------------------------------------------------------------------------------------------

PIECES = [
    *(b"HTTP/1.1 ", b"HTTP/1.0 ", b"100 Continue", b"101 Switching Protocols", b"200 OK", b"204 No", b"302 Found", b"999 X"),
    *(
        b"\r\n",
        b"\r\n\r\n",
        b"\n\n",
        b"Content-Length: 3",
        b"Content-Length: 0",
        b"Transfer-Encoding: chunked",
        b"Connection: close",
    ),
    *(b"Upgrade: h2c", b"3\r\nabc\r\n", b"0\r\n\r\n", b"abc", b"\x00", b"\xff"),
]
HEADS = [b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 101 Go\r\n\r\n", CHUNKED, b""]
ANSWERS = st.builds(
    lambda head, pieces: head + b"".join(pieces),
    st.sampled_from(HEADS),
    st.lists(st.one_of(st.sampled_from(PIECES), st.binary(max_size=40)), max_size=12),
)


@settings(max_examples=300, deadline=None)
@given(ANSWERS, st.sampled_from(["GET", "HEAD", "POST", "CONNECT", "TRACE"]), st.booleans())
async def test_any_bytes_are_an_answer_or_a_failure_in_time(answer: bytes, method: str, ends: bool) -> None:
    connection = h11.Connection(h11.CLIENT)
    request_bytes(connection, HttpRequest(method=method, target=Target(scheme="http", host=HERE, port=80, path="/")))
    reader = asyncio.StreamReader()
    reader.feed_data(answer)
    if ends:
        reader.feed_eof()
    with others_go_on(), suppress(h11.RemoteProtocolError, TimeoutError):
        async with asyncio.timeout(0.02):
            kept = await read_answer(connection, reader, 10)
            assert len(kept.body) <= 10
