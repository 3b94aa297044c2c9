"""The executor as a service: what it tells about itself, and how runs wait for it."""

import asyncio
from dataclasses import replace
from pathlib import Path

import grpc
import pytest

from maand_contracts.catalog.v1 import run_spec_pb2, token_pb2, token_pb2_grpc
from maand_contracts.executor.v1 import executor_pb2, executor_pb2_grpc
from maand_executor.service import SERVICES
from maand_wire.channels import bearer_header, open_channel
from maand_wire.endpoints import Endpoint
from maand_wire.errors import RemoteError, remote_errors
from tests.integration.executor.deploy_bed import deploy_bed
from tests.testbed.sshd import SshTestBed


async def test_an_executor_tells_who_it_is_and_what_it_does(tmp_path: Path, test_bed: SshTestBed) -> None:
    async with deploy_bed(tmp_path, test_bed, workers=1) as bed:
        assert bed.executor
        channel = open_channel(Endpoint(address=bed.executor.address))
        ask = executor_pb2_grpc.ExecutorServiceStub(channel).GetExecutorStatus
        idle = await ask(executor_pb2.GetExecutorStatusRequest())
        assert (idle.executor_id, idle.hook_api, list(idle.run_ids)) == (bed.executor.executor_id, "127.0.0.1:8080", [])
        assert SERVICES == ("maand.executor.v1.ExecutorService", "maand.executor.v1.RemoteService")

        bed.write_job("api", {})
        await bed.build()
        run_id = await bed.begin(run_spec_pb2.RunSpec(run_command=run_spec_pb2.RunCommandSpec(command="sleep 60")))
        await bed.until(run_id, "step_started")
        busy = await ask(executor_pb2.GetExecutorStatusRequest())
        assert list(busy.run_ids) == [run_id]
        assert bed.executor.active_runs == 1
        await bed.cancel(run_id)
        await bed.cancel(run_id)
        assert (await bed.follow(run_id)).state == "cancelled"
        await channel.close()


async def test_over_tcp_an_executor_tells_only_those_who_may_read(tmp_path: Path, test_bed: SshTestBed) -> None:
    async with deploy_bed(tmp_path, test_bed, workers=1, executor=False) as bed:
        bed.executor_settings = replace(bed.executor_settings, listen="127.0.0.1:0")
        await bed.start_executor()
        assert bed.executor
        tokens = token_pb2_grpc.TokenServiceStub(bed.channel)
        made = await tokens.CreateToken(token_pb2.CreateTokenRequest(name="me", role=token_pb2.ROLE_VIEWER))
        async with open_channel(Endpoint(address=bed.executor.address)) as channel:
            ask = executor_pb2_grpc.ExecutorServiceStub(channel).GetExecutorStatus

            async def look(*metadata: tuple[str, str]) -> str:
                with remote_errors():
                    return (await ask(executor_pb2.GetExecutorStatusRequest(), metadata=metadata)).executor_id

            assert await look(bearer_header(made.secret)) == bed.executor.executor_id
            for refused in (
                (),
                (bearer_header("ma_nobody"),),
                (bearer_header("mh_a-hook"),),
                (("authorization", "Basic abc"),),
            ):
                with pytest.raises(RemoteError) as caught:
                    await look(*refused)
                assert caught.value.status is grpc.StatusCode.UNAUTHENTICATED
                assert "API token of role viewer" in caught.value.help
            await bed.catalog.stop()
            with pytest.raises(RemoteError) as caught:
                await look(bearer_header(made.secret))
            assert caught.value.status is grpc.StatusCode.UNAVAILABLE


async def test_commands_run_beside_a_deploy(tmp_path: Path, test_bed: SshTestBed) -> None:
    async with deploy_bed(tmp_path, test_bed, workers=1) as bed:
        bed.write_job("api", {}, {"Makefile": "start:\n\t@while [ ! -e /opt/go ]; do sleep 0.05; done\n"})
        await bed.build()
        deploy = await bed.begin(run_spec_pb2.RunSpec(deploy=run_spec_pb2.DeploySpec()))
        await bed.until(deploy, "batch_started")
        touch = run_spec_pb2.RunCommandSpec(command="touch /opt/go")
        assert (await bed.run(run_spec_pb2.RunSpec(run_command=touch))).state == "succeeded"
        assert (await bed.follow(deploy)).state == "succeeded"


async def test_a_run_created_while_no_executor_is_there_is_carried_out_when_one_comes(
    tmp_path: Path, test_bed: SshTestBed
) -> None:
    async with deploy_bed(tmp_path, test_bed, workers=1, executor=False) as bed:
        bed.write_job("api", {})
        build = run_spec_pb2.BuildSpec(snapshot_id=await bed.upload())
        run_id = await bed.begin(run_spec_pb2.RunSpec(build=build))
        following = asyncio.create_task(bed.follow(run_id))
        await bed.start_executor()
        assert (await following).state == "succeeded"
