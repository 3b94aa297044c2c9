"""etcd as a peer: a durable server on loopback, spoken to with the same gRPC client that maand is measured with.

Its messages are written and read by hand, field by field: it takes a few lines, and no package with its contracts is needed.
etcd comes from the system (`apt-get install etcd-server`); without it the bench says so and goes on.
"""

import asyncio
import shutil
import socket
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import grpc
import grpc.aio

from maand_wire.channels import OPTIONS

LENGTH_DELIMITED, VARINT = 2, 0


def varint(number: int) -> bytes:
    """Write a number as Protocol Buffers do."""
    parts = bytearray()
    while number > 0x7F:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*parts, number])


def field(number: int, value: bytes | int) -> bytes:
    """Write one field."""
    if isinstance(value, int):
        return varint(number << 3 | VARINT) + varint(value)
    return varint(number << 3 | LENGTH_DELIMITED) + varint(len(value)) + value


def fields(message: bytes) -> dict[int, bytes | int]:
    """Read the fields of a message; of fields that repeat, the last."""
    found: dict[int, bytes | int] = {}
    position = 0
    while position < len(message):
        tag, position = read_varint(message, position)
        value, position = read_varint(message, position)
        if tag & 7 == LENGTH_DELIMITED:
            found[tag >> 3] = message[position : position + value]
            position += value
        else:
            found[tag >> 3] = value
    return found


def read_varint(message: bytes, position: int) -> tuple[int, int]:
    """Read a number and say where the next thing begins."""
    number = shift = 0
    while True:
        byte = message[position]
        position += 1
        number |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return number, position


class Etcd:
    """The few calls that are measured."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        def method(name: str) -> grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]:
            return channel.unary_unary(name, request_serializer=bytes, response_deserializer=bytes)

        self._put = method("/etcdserverpb.KV/Put")
        self._range = method("/etcdserverpb.KV/Range")
        self._grant = method("/etcdserverpb.Lease/LeaseGrant")
        self._lock = method("/v3lockpb.Lock/Lock")
        self._unlock = method("/v3lockpb.Lock/Unlock")

    async def put(self, key: str, value: str) -> None:
        """Store a value, durably."""
        await self._put(field(1, key.encode()) + field(2, value.encode()))

    async def get(self, key: str) -> None:
        """Read a value."""
        await self._range(field(1, key.encode()))

    async def lease(self, seconds: int = 60) -> int:
        """Begin a lease, as every holder of a lock needs one."""
        lease = fields(await self._grant(field(1, seconds)))[2]
        assert isinstance(lease, int)
        return lease

    async def lock_and_unlock(self, name: str, lease: int) -> None:
        """Wait for a lock and give it up."""
        key = fields(await self._lock(field(1, name.encode()) + field(2, lease)))[2]
        assert isinstance(key, bytes)
        await self._unlock(field(1, key))


@asynccontextmanager
async def running_etcd() -> AsyncIterator[Etcd | None]:
    """Start a server, and end it; None when etcd is not installed."""
    with etcd_server() as address:
        if address is None:
            print("  absent: etcd is not installed (apt-get install etcd-server); the bench goes on without it", flush=True)
            yield None
            return
        async with grpc.aio.insecure_channel(address, options=OPTIONS) as channel:
            await asyncio.wait_for(channel.channel_ready(), 30)
            yield Etcd(channel)


@contextmanager
def etcd_server() -> Iterator[str | None]:
    """Run a server with its data on disk and yield its address."""
    program = shutil.which("etcd")
    if program is None:
        yield None
        return
    clients, peers = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
    with tempfile.TemporaryDirectory(prefix="maand-etcd-") as name:
        words = [program, "--data-dir", name, "--listen-client-urls", clients, "--advertise-client-urls", clients]
        words += ["--listen-peer-urls", peers, "--initial-advertise-peer-urls", peers, "--initial-cluster", f"default={peers}"]
        with (Path(name) / "log").open("wb") as log:
            process = subprocess.Popen(words, stdout=log, stderr=log)
        try:
            yield clients.removeprefix("http://")
        finally:
            process.kill()
            process.wait()


def free_port() -> int:
    """Return a port that is free right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
