"""ExecutorService through a real gRPC server: what an executor tells of itself."""

from pathlib import Path
from typing import Any

import grpc.aio

from maand_contracts.executor.v1 import executor_pb2, executor_pb2_grpc
from maand_executor.rpc.callers import Viewers
from maand_executor.rpc.executor import ExecutorReport, ExecutorServicer
from maand_wire.channels import OPTIONS, open_channel
from maand_wire.endpoints import Endpoint
from maand_wire.health import check_serving
from maand_wire.servers import make_server
from tests.integration.executor.deploy_bed import deploy_bed
from tests.testbed.sshd import SshTestBed
from tests.waiting import until


async def test_an_executor_tells_what_it_is_doing(tmp_path: Path) -> None:
    report = ExecutorReport(
        executor_id="e", version="1", hook_api="127.0.0.1:8080", run_ids=["r1"], ssh_connections=2, hook_processes=3
    )
    server, socket = make_server(), f"unix:{tmp_path}/executor.sock"
    servicer = ExecutorServicer(lambda: report, Viewers(Endpoint(address="unix:/nowhere")))
    executor_pb2_grpc.add_ExecutorServiceServicer_to_server(servicer, server)
    server.add_insecure_port(socket)
    await server.start()
    async with grpc.aio.insecure_channel(socket, options=OPTIONS) as channel:
        stub: Any = executor_pb2_grpc.ExecutorServiceStub(channel)
        answer = await stub.GetExecutorStatus(executor_pb2.GetExecutorStatusRequest())
    await server.stop(None)

    assert answer == executor_pb2.GetExecutorStatusResponse(
        executor_id="e", version="1", hook_api="127.0.0.1:8080", run_ids=["r1"], ssh_connections=2, hook_processes=3
    )


async def test_an_executor_is_ready_while_its_catalog_is(tmp_path: Path, test_bed: SshTestBed) -> None:
    async with deploy_bed(tmp_path, test_bed, workers=1) as bed:
        assert bed.executor is not None
        async with open_channel(Endpoint(address=bed.executor.address)) as channel:
            await until(lambda: check_serving(channel))
            bed.catalog.health.announce_stop()

            async def is_away() -> bool:
                return not await check_serving(channel)

            await until(is_away)
