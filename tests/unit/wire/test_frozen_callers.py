"""A caller that waits and is frozen, as a virtual machine may be: its connection stays, and only pings tell."""

import asyncio
import signal
import sys
from typing import Any

import grpc
import grpc.aio

from maand_wire.servers import bind_server, make_server

WAITS = """
import asyncio, sys
import grpc.aio
from maand_wire.channels import OPTIONS

async def wait():
    async with grpc.aio.insecure_channel(sys.argv[1], options=OPTIONS) as channel:
        await channel.unary_unary("/test.Patience/Wait")(b"")

asyncio.run(wait())
"""


class Patience:
    """A call that waits until its caller goes away."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.let_go = asyncio.Event()

    async def wait(self, request: bytes, context: Any) -> bytes:
        self.begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.let_go.set()
        return request

    def handlers(self) -> grpc.GenericRpcHandler:
        return grpc.method_handlers_generic_handler("test.Patience", {"Wait": grpc.unary_unary_rpc_method_handler(self.wait)})


async def test_a_caller_that_is_frozen_while_it_waits_is_let_go() -> None:
    patience, server = Patience(), make_server()
    server.add_generic_rpc_handlers((patience.handlers(),))
    address = bind_server(server, "127.0.0.1:0")
    await server.start()
    caller = await asyncio.create_subprocess_exec(sys.executable, "-c", WAITS, address)
    try:
        async with asyncio.timeout(60):
            await patience.begun.wait()
            caller.send_signal(signal.SIGSTOP)
            await patience.let_go.wait()  # about 20 s; a minute and more without an answer's own limit
    finally:
        caller.kill()
        await caller.wait()
        await server.stop(0)
