"""The hook API measured through the whole chain: HTTP -> gRPC -> catalog -> database, and what an SDK call adds.

    python -m tests.bench hook-api [--database sqlite|postgresql] [--seconds 2] [--clients 1,16,64]

Interleaved with a bare FastAPI + gRPC server that does nothing, and with etcd's JSON gateway where etcd is installed, so that the
ratios mean something on a busy machine.
"""

import argparse
import asyncio
import base64
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

from maand_contracts.catalog.v1 import kv_pb2, kv_pb2_grpc
from maand_hook_sdk import SDK_FILES
from maand_runtime_gateway.service import start_gateway
from maand_runtime_gateway.settings import GatewaySettings
from maand_wire.channels import open_channel
from maand_wire.endpoints import Endpoint
from maand_wire.servers import bind_server, make_server
from tests.bench.etcd import etcd_server
from tests.contracts.hook_api.conftest import gateway_before_catalog
from tests.contracts.hook_api.world import ServedApi, environment
from tests.testbed.postgres import running_postgres
from tests.unit.gateway.raw_http import request_bytes

Ask = Callable[[int, int], list[bytes]]
"""Requests of one round, by client and round."""


@dataclass(kw_only=True)
class Measured:
    """Times of requests, milliseconds."""

    seconds: float
    times: list[float] = field(default_factory=list)

    def line(self) -> str:
        """Return rate, median and 99th percentile."""
        ordered = sorted(self.times)
        p50, p99 = ordered[len(ordered) // 2], ordered[int(len(ordered) * 0.99)]
        return f"{len(ordered) / self.seconds:8.0f}/s   p50 {p50:7.2f} ms   p99 {p99:7.2f} ms"

    @property
    def rate(self) -> float:
        """Requests per second."""
        return len(self.times) / self.seconds


async def hammer(address: str, clients: int, seconds: float, ask: Ask) -> Measured:
    """Let clients send requests one after the other, each on its own connection."""
    measured = Measured(seconds=seconds)
    host, _, port = address.rpartition(":")

    async def client(number: int) -> None:
        reader, writer = await asyncio.open_connection(host, int(port))
        done = time.perf_counter() + seconds
        turn = 0
        while time.perf_counter() < done:
            for request in ask(number, turn):
                began = time.perf_counter()
                writer.write(request)
                await exchange(reader)
                measured.times.append((time.perf_counter() - began) * 1000)
            turn += 1
        writer.close()

    await asyncio.gather(*(client(number) for number in range(clients)))
    return measured


async def exchange(reader: asyncio.StreamReader) -> None:
    """Read one answer, which must be good."""
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200"), head
    length = next(int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length"))
    await reader.readexactly(length)


def questions(api: ServedApi) -> dict[str, Ask]:
    """Return what is measured."""
    headers = {"Authorization": f"Bearer {api.tokens['api']}", "Content-Type": "application/json"}
    get = request_bytes("GET", "/kv?namespace=vars/job/api&key=greeting", headers=headers)

    def put(client: int, turn: int) -> list[bytes]:
        fields = {"namespace": "vars/job/api", "key": f"bench-{client}", "value": f"{turn}" + "x" * 200}
        return [request_bytes("PUT", "/kv", headers=headers, body=json.dumps(fields).encode())]

    def lock(client: int, _turn: int) -> list[bytes]:
        body = json.dumps({"name": f"bench-{client}"}).encode()
        paths = ("/semaphore/acquire", "/semaphore/release")
        return [request_bytes("POST", path, headers=headers, body=body) for path in paths]

    return {"GET /kv": lambda _client, _turn: [get], "PUT /kv": put, "acquire + release": lock}


def etcd_questions() -> dict[str, Ask]:
    """Return the same for etcd's JSON gateway: keys and values are base64 there, and every call is a POST."""
    headers = {"Content-Type": "application/json"}

    def encoded(text: str) -> str:
        return base64.b64encode(text.encode()).decode()

    def ask(path: str, **fields: str) -> list[bytes]:
        body = json.dumps({name: encoded(text) for name, text in fields.items()}).encode()
        return [request_bytes("POST", path, headers=headers, body=body)]

    return {
        "etcd put": lambda client, turn: ask("/v3/kv/put", key=f"bench-{client}", value=f"{turn}" + "x" * 200),
        "etcd get": lambda client, _turn: ask("/v3/kv/range", key=f"bench-{client}"),
    }


class Question(BaseModel):
    """What the bare server takes."""

    namespace: str
    key: str


class BareKv:
    """A catalog that knows one answer."""

    async def Get(self, request: kv_pb2.GetRequest, _context: Any) -> kv_pb2.GetResponse:
        """Answer at once."""
        return kv_pb2.GetResponse(entry=kv_pb2.Entry(namespace=request.namespace, key=request.key, value="hello", version=1))

    def __getattr__(self, _name: str) -> None:
        return None


@asynccontextmanager
async def bare_fastapi(directory: Path) -> AsyncIterator[tuple[str, str]]:
    """Serve the yardstick, plain FastAPI in front of a plain gRPC server, and the gateway in front of the same."""
    server = make_server()
    bare: Any = BareKv()
    kv_pb2_grpc.add_KvServiceServicer_to_server(bare, server)
    endpoint = Endpoint(address=bind_server(server, f"unix:{directory / 'bare.sock'}"))
    await server.start()
    channel = open_channel(endpoint)
    stub = kv_pb2_grpc.KvServiceStub(channel)
    app = FastAPI()

    @app.get("/kv")
    async def get_kv(namespace: str, key: str) -> dict[str, Any]:
        found = await stub.Get(kv_pb2.GetRequest(namespace=namespace, key=key), timeout=15)
        return {"namespace": namespace, "key": key, "value": found.entry.value, "version": found.entry.version}

    web = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, access_log=False, lifespan="off", ws="none"))
    serving = asyncio.create_task(web.serve())
    while not web.started:  # noqa: ASYNC110 - uvicorn tells no other way
        await asyncio.sleep(0.01)
    gateway = await start_gateway(GatewaySettings(listen="127.0.0.1:0", catalog=endpoint, executor=endpoint))
    yield f"127.0.0.1:{web.servers[0].sockets[0].getsockname()[1]}", gateway.address
    await gateway.stop()
    web.should_exit = True
    await serving
    await channel.close()
    await server.stop(None)


async def compare(api: ServedApi, bare: str, empty: str, etcd: str | None, clients: list[int], seconds: float) -> None:
    """Print every figure; the bare server is measured beside GET, and beside a gateway with nothing behind it."""
    get = request_bytes("GET", "/kv?namespace=vars/job/api&key=greeting", headers={"Authorization": "Bearer x"})
    for count in clients:
        yardstick = await hammer(bare, count, seconds, lambda _client, _turn: [get])
        print(f"{count:3} clients   {'bare FastAPI + gRPC':22} {yardstick.line()}")
        alone = await hammer(empty, count, seconds, lambda _client, _turn: [get])
        print(f"{count:3} clients   {'gateway + bare gRPC':22} {alone.line()}   {alone.rate / yardstick.rate:.2f} of bare")
        for name, ask in questions(api).items():
            measured = await hammer(api.address, count, seconds, ask)
            ratio = f"   {measured.rate / yardstick.rate:.2f} of bare" if name.startswith("GET") else ""
            print(f"{count:3} clients   {name:22} {measured.line()}{ratio}")
        for name, ask in etcd_questions().items() if etcd else ():
            print(f"{count:3} clients   {name:22} {(await hammer(etcd or '', count, seconds, ask)).line()}")


def start_costs(directory: Path, api: ServedApi) -> None:
    """Print what the SDK adds to the start of a hook, and to a call."""
    (directory / "maand.py").write_bytes(SDK_FILES[0].read_bytes())
    scripts = {
        "bare python": "pass",
        "import maand": "import maand",
        "import maand + one read": "import maand; maand.get_kv_value('vars/job/api', 'greeting')",
    }
    found: dict[str, list[float]] = {name: [] for name in scripts}
    for _ in range(30):
        for name, script in scripts.items():
            (directory / "hook.py").write_text(script)
            began = time.perf_counter()
            hook_environment = environment(api, "api") | {"PATH": os.environ["PATH"]}
            subprocess.run([sys.executable, "hook.py"], cwd=directory, check=True, env=hook_environment)
            found[name].append((time.perf_counter() - began) * 1000)
    for name, times in found.items():
        print(f"{name:26} median {statistics.median(times):6.1f} ms   min {min(times):6.1f} ms")
    ratio = statistics.median(found["import maand + one read"]) / statistics.median(found["bare python"])
    print(f"hook with one read / bare python: {ratio:.2f}")


async def measure(options: argparse.Namespace, database_url: str, directory: Path) -> None:
    """Measure everything on one database."""
    with etcd_server() as etcd:
        await measure_beside(etcd, options, database_url, directory)


async def measure_beside(etcd: str | None, options: argparse.Namespace, database_url: str, directory: Path) -> None:
    """Measure everything on one database beside etcd, or say that it is absent."""
    if etcd is None:
        print("absent: etcd is not installed (apt-get install etcd-server); the bench goes on without it")
    async with gateway_before_catalog(directory, database_url) as api, bare_fastapi(directory) as (bare, empty):
        await compare(api, bare, empty, etcd, options.clients, options.seconds)
        await asyncio.to_thread(start_costs, directory, api)


def main(arguments: Sequence[str]) -> None:
    """Run the bench."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--database", choices=("sqlite", "postgresql"), default="sqlite")
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--clients", type=lambda text: [int(part) for part in text.split(",")], default=[1, 16, 64])
    options = parser.parse_args(arguments)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    with tempfile.TemporaryDirectory() as name:
        if options.database == "sqlite":
            asyncio.run(measure(options, "", Path(name)))
        else:
            with running_postgres() as cluster:
                asyncio.run(measure(options, cluster.create_database("bench"), Path(name)))
