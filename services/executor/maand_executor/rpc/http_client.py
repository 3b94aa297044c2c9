"""One HTTP/1.1 request over one connection, spoken with h11 (the protocol engine of uvicorn and httpx). No pool.

The body is kept up to a limit and the connection closed then, so that an endless answer costs nothing.
"""

import asyncio
import ssl
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import h11

from maand_executor.rpc.errors import HttpRequestFailed, HttpUnreachable, InvalidCall
from maand_executor.rpc.http_rules import Header, HttpRequest

READ_SIZE = 64 * 1024


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


async def send(request: HttpRequest, *, tls: ssl.SSLContext | None, server_name: str, body_limit: int) -> HttpAnswer:
    """Send a request and return the answer. Raises `HttpUnreachable`, `HttpRequestFailed`, `InvalidCall`."""
    reader, writer = await connect(request, tls, server_name)
    try:
        connection = h11.Connection(h11.CLIENT)
        writer.write(request_bytes(connection, request))
        await writer.drain()
        return await read_answer(connection, reader, body_limit)
    except (h11.RemoteProtocolError, OSError) as error:
        raise HttpRequestFailed(f"{request.target.url}: {error}") from error
    finally:
        writer.close()
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(1):
                await writer.wait_closed()


async def connect(
    request: HttpRequest, tls: ssl.SSLContext | None, server_name: str
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect to the target, over TLS when a context is given."""
    target = request.target
    try:
        return await asyncio.open_connection(
            target.host, target.port, ssl=tls, server_hostname=(server_name or target.host) if tls else None
        )
    except ssl.SSLError as error:
        words = getattr(error, "verify_message", "") or error.reason or str(error)
        raise HttpRequestFailed(f"{target.url}: TLS failed: {words}") from error
    except OSError as error:
        raise HttpUnreachable(
            f"{target.url}: {error.strerror or error}",
        ) from error


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
    """Read one answer, as much of its body as is kept."""
    response: h11.Response | None = None
    body = bytearray()
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await reader.read(READ_SIZE))
        elif isinstance(event, h11.Response):
            response = event
        elif isinstance(event, h11.Data):
            body += event.data
        if response is not None and (isinstance(event, h11.EndOfMessage | h11.ConnectionClosed) or len(body) > body_limit):
            return answer(response, bytes(body), body_limit)


def answer(response: h11.Response, body: bytes, body_limit: int) -> HttpAnswer:
    """Put an answer together."""
    return HttpAnswer(
        status=response.status_code,
        headers=[(name.decode("latin-1"), value.decode("latin-1")) for name, value in response.headers],
        body=body[:body_limit],
        truncated=len(body) > body_limit,
    )
