"""A client that sends exactly the bytes it is told to: right requests, wrong ones, and halves of them."""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A response as it came over the wire."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """Return the body read as JSON."""
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """The code of an error."""
        return str(self.json()["error"]["code"])

    @property
    def message(self) -> str:
        """The message of an error."""
        return str(self.json()["error"]["message"])


def request_bytes(method: str, path: str, *, headers: Mapping[str, str] | None = None, body: bytes | None = None) -> bytes:
    """Write a request."""
    lines = [f"{method} {path} HTTP/1.1", "Host: gateway"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join((*lines, "", "")).encode("latin-1") + (body or b"")


class RawClient:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, address: str) -> Self:
        """Connect."""
        host, _, port = address.rpartition(":")
        return cls(*await asyncio.open_connection(host, int(port)))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    async def send(self, data: bytes) -> None:
        """Send bytes."""
        self._writer.write(data)
        await self._writer.drain()

    async def answer(self, timeout: float = 10) -> Answer:  # noqa: ASYNC109 - the test's own patience
        """Read one response."""
        async with asyncio.timeout(timeout):
            head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
            body = await self._reader.readexactly(int(headers.get("content-length", "0")))
        return Answer(status=int(head[0].split(" ")[1]), headers=headers, body=body)

    async def is_closed(self, timeout: float = 10) -> bool:  # noqa: ASYNC109 - the test's own patience
        """Wait for the other side to close the connection."""
        async with asyncio.timeout(timeout):
            try:
                while await self._reader.read(65536):
                    pass
            except ConnectionError:
                return True
        return True

    def close(self) -> None:
        """Close it."""
        self._writer.close()


async def call(
    address: str,
    method: str,
    path: str,
    *,
    token: str | None = None,
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
    fields: Any = None,
) -> Answer:
    """Make one call on a connection of its own; `fields` are sent as JSON."""
    sent = dict(headers or {})
    if token is not None:
        sent["Authorization"] = f"Bearer {token}"
    if fields is not None:
        body = json.dumps(fields).encode()
        sent.setdefault("Content-Type", "application/json")
    async with await RawClient.open(address) as client:
        await client.send(request_bytes(method, path, headers=sent, body=body))
        return await client.answer()
