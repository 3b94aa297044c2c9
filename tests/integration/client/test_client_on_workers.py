"""Another service deploys and runs commands on a real worker, while a catalog dies."""

import asyncio

import pytest

from maand_client import specs
from maand_client.errors import RunFailed
from maand_contracts.catalog.v1 import allocation_pb2
from tests.integration.client.conftest import Calling


async def test_a_service_builds_deploys_and_looks(calling: Calling) -> None:
    calling.bed.write_job("api", {})
    async with calling.connect() as maand:
        deployed = await (await maand.runs.start(specs.deploy(build_snapshot_id=await calling.bed.upload()))).wait()
        deployed.raise_for_state()
        assert (deployed.state, deployed.counts["promoted"]) == ("succeeded", 1)
        (worker,) = calling.bed.workers
        assert [found.name for found in await maand.fleet.workers(labels=["worker"])] == [worker.host]
        assert [job.name for job in await maand.fleet.jobs()] == ["api"]
        (allocation,) = await maand.fleet.allocations(jobs=["api"])
        assert (allocation.worker, allocation.state) == (worker.host, allocation_pb2.ALLOCATION_STATE_PROMOTED)


async def test_following_a_command_goes_on_when_a_catalog_dies_midway(calling: Calling) -> None:
    calling.bed.write_job("api", {})
    await calling.bed.build()
    waits = "for n in 1 2 3; do echo $n; while [ ! -e /opt/go-$n ]; do sleep 0.05; done; done; echo done"
    (worker,) = calling.bed.workers
    async with calling.connect() as maand:
        run = await maand.runs.start(specs.run_command(waits))
        lines: list[str] = []
        async for event in run.events():
            for line in event.output.lines:
                lines.append(line)
                if line == "1":
                    await calling.kill(0)
                elif line == "2":
                    await revive_the_first_and_kill_the_second(calling)
                if line.isdigit():
                    worker.path(f"/opt/go-{line}").touch()
        assert lines == ["1", "2", "3", "done"]
        (await run.wait()).raise_for_state()


async def test_a_command_that_fails_says_where_and_how(calling: Calling) -> None:
    calling.bed.write_job("api", {})
    await calling.bed.build()
    async with calling.connect() as maand:
        ended = await (await maand.runs.start(specs.run_command("echo no room >&2; exit 7"))).wait()
        (failure,) = ended.failures
        assert (failure.kind, failure.worker, failure.exit_code) == ("command", calling.bed.hosts[0], 7)
        assert "no room" in failure.last_lines
        with pytest.raises(RunFailed, match=calling.bed.hosts[0]):
            ended.raise_for_state()


async def test_a_command_is_cancelled_from_afar(calling: Calling) -> None:
    calling.bed.write_job("api", {})
    await calling.bed.build()
    async with calling.connect() as maand:
        run = await maand.runs.start(specs.run_command("echo begun; sleep 600"))
        async for event in run.events():
            if "begun" in event.output.lines:
                break
        await run.cancel()
        await run.cancel()
        async with asyncio.timeout(60):
            assert (await run.wait()).state == "cancelled"


async def revive_the_first_and_kill_the_second(calling: Calling) -> None:
    """Let the stream move once more, to an address that was away before."""
    await calling.revive(0)
    await calling.kill(1)
