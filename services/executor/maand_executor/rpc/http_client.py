"""One HTTP/1.1 request over one connection, spoken with h11 (the protocol engine of uvicorn and httpx). No pool.

Workers are not trusted to answer well. The body is kept up to a limit and the connection closed then, h11 bounds the headers, and
whoever calls bounds the time: reading gives way to everybody else after each piece, so a time limit always comes through.
"""

import asyncio
import ssl
from collections.abc import Sequence
from dataclasses import dataclass

import h11

from maand_executor.rpc.errors import HttpRequestFailed, HttpUnreachable, InvalidCall
from maand_executor.rpc.http_rules import Header, HttpRequest

READ_SIZE = 16 * 1024
"""Small, for what is read at once is parsed at once, and thousands of tiny chunks or informational answers fit in it."""


@dataclass(frozen=True, kw_only=True)
class HttpAnswer:
    """What came back."""

    status: int
    headers: Sequence[Header]
    body: bytes
    truncated: bool = False

    def header(self, name: str) -> str:
        """Return the first header of that name, or nothing."""
        return next((value for key, value in self.headers if key.lower() == name), "")


async def send_request(request: HttpRequest, *, tls: ssl.SSLContext | None, server_name: str, body_limit: int) -> HttpAnswer:
    """Send a request and return the answer. Raises `HttpUnreachable`, `HttpRequestFailed`, `InvalidCall`."""
    reader, writer = await connect_to_target(request, tls, server_name)
    try:
        connection = h11.Connection(h11.CLIENT)
        writer.write(request_bytes(connection, request))
        await writer.drain()
        return await read_answer(connection, reader, body_limit)
    except (h11.RemoteProtocolError, OSError) as error:
        raise HttpRequestFailed(f"{request.target.url}: {error}") from error
    finally:
        writer.transport.abort()  # a close would wait, beyond any time limit, for a peer that reads nothing


async def connect_to_target(
    request: HttpRequest, tls: ssl.SSLContext | None, server_name: str
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect to the target, over TLS when a context is given."""
    target = request.target
    name = server_name or target.host
    if tls:
        check_server_name(tls, name)
    try:
        return await asyncio.open_connection(target.host, target.port, ssl=tls, server_hostname=name if tls else None)
    except ssl.SSLError as error:
        words = getattr(error, "verify_message", "") or error.reason or str(error)
        raise HttpRequestFailed(f"{target.url}: TLS failed: {words}") from error
    except OSError as error:
        raise HttpUnreachable(
            f"{target.url}: {error.strerror or error}",
        ) from error


def check_server_name(tls: ssl.SSLContext, name: str) -> None:
    """Refuse a name that OpenSSL cannot verify while there is no connection yet that asyncio would leave open."""
    try:
        tls.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname=name)
    except (ValueError, TypeError) as error:
        raise InvalidCall(f"tls.server_name is no name that can be verified: {error}") from error


def request_bytes(connection: h11.Connection, request: HttpRequest) -> bytes:
    """Return the request as it goes over the wire."""
    given = {name.lower() for name, _ in request.headers}
    headers = [*request.headers, ("Connection", "close")]
    if "host" not in given:
        headers.insert(0, ("Host", request.target.authority))
    if request.body or request.method in ("POST", "PUT", "PATCH"):
        headers.append(("Content-Length", str(len(request.body))))
    try:
        head = connection.send(h11.Request(method=request.method, target=request.target.path, headers=headers))
        body = connection.send(h11.Data(data=request.body)) if request.body else b""
        end = connection.send(h11.EndOfMessage())
    except (h11.LocalProtocolError, UnicodeEncodeError) as error:
        raise InvalidCall(f"the request cannot be sent: {error}") from error
    return (head or b"") + (body or b"") + (end or b"")


async def read_answer(connection: h11.Connection, reader: asyncio.StreamReader, body_limit: int) -> HttpAnswer:
    """Read one answer, as much of its body as is kept. Raises `h11.RemoteProtocolError` for what is no answer.

    Every turn of the loop takes bytes away from what was received, waits for more of them, or ends the loop.
    """
    response: h11.Response | None = None
    body = bytearray()
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await receive_piece(reader))
        elif isinstance(event, h11.Response):
            response = event
        elif isinstance(event, h11.Data):
            body += event.data
        elif not isinstance(event, h11.InformationalResponse):
            break  # the end; or PAUSED: HTTP is over on this connection, and no later event will ever be another one
        if len(body) > body_limit:
            break
    if response is None or event is h11.PAUSED:
        raise h11.RemoteProtocolError("the worker left HTTP instead of answering")
    return make_answer(response, bytes(body), body_limit)


async def receive_piece(reader: asyncio.StreamReader) -> bytes:
    """Return the next bytes. Gives way to others first: reading what is there already does not."""
    await asyncio.sleep(0)
    return await reader.read(READ_SIZE)


def make_answer(response: h11.Response, body: bytes, body_limit: int) -> HttpAnswer:
    """Put an answer together."""
    return HttpAnswer(
        status=response.status_code,
        headers=[(name.decode("latin-1"), value.decode("latin-1")) for name, value in response.headers],
        body=body[:body_limit],
        truncated=len(body) > body_limit,
    )
