"""The executor as this command line asks it: only how it is."""

from typing import Any

from maand_cli.output.message_dicts import plain
from maand_cli.remote.catalog import call
from maand_contracts.executor.v1 import executor_pb2, executor_pb2_grpc
from maand_wire.channels import open_channel
from maand_wire.endpoints import Endpoint
from maand_wire.errors import RemoteError


async def executor_status(address: str) -> dict[str, Any]:
    """Return what an executor does, or why it does not say."""
    async with open_channel(Endpoint(address=address)) as channel:
        stub = executor_pb2_grpc.ExecutorServiceStub(channel)
        try:
            answer = await call(stub.GetExecutorStatus, executor_pb2.GetExecutorStatusRequest(), seconds=5)
        except RemoteError as error:
            return {"problem": f"the executor does not answer: {error.message}"}
    known = plain(answer)
    return {name: known[name] for name in ("executor_id", "run_ids", "ssh_connections", "hook_processes")}
