"""Workers that break off, reboot, flood or never end while a Makefile target runs there."""

import asyncio
from pathlib import Path

import pytest

from maand_contracts.catalog.v1 import run_event_pb2 as pb
from tests.sick.sick_bed import sick_bed
from tests.testbed.fixtures import MakeTestBed
from tests.testbed.sshd import SshTestBed
from tests.waiting import wait_until

pytestmark = [pytest.mark.sick, pytest.mark.timeout(180)]


def unless_well(script: str) -> str:
    """Return a script that is sick until the worker has a file `/opt/well`."""
    return f"[ -e /opt/well ] && exit 0\ntouch /opt/began\n{script}\n"


async def test_a_connection_that_breaks_in_the_middle_of_a_command(tmp_path: Path, test_bed: SshTestBed) -> None:
    async with sick_bed(tmp_path, test_bed) as bed, bed.proxied() as proxy:
        await bed.write("1.0.0", unless_well("sleep 4321"))
        deploying = asyncio.create_task(bed.deploy())
        await asyncio.to_thread(wait_until, bed.sick.path("/opt/began").exists)
        proxy.hang_up()

        ended = await deploying
        assert "connection was lost while a command ran" in await bed.only_the_sick_one_failed(ended)
        assert [failure.kind for failure in ended.result.failures] == [pb.FAILURE_KIND_CONNECTION]
        await asyncio.to_thread(bed.sick.wait_until_gone, "4321")
        bed.sick.path("/opt/well").touch()
        await bed.recovers()


async def test_a_worker_that_reboots_while_it_starts(tmp_path: Path, test_bed: SshTestBed) -> None:
    async with sick_bed(tmp_path, test_bed) as bed:
        await bed.write("1.0.0", unless_well("sleep 4321"))
        deploying = asyncio.create_task(bed.deploy())
        await asyncio.to_thread(wait_until, bed.sick.path("/opt/began").exists)
        await asyncio.to_thread(bed.sick.stop)
        await asyncio.to_thread(bed.sick.start)

        ended = await deploying
        await bed.only_the_sick_one_failed(ended)
        assert [failure.kind for failure in ended.result.failures] == [pb.FAILURE_KIND_CONNECTION]
        bed.sick.path("/opt/well").touch()
        await bed.recovers()


@pytest.mark.parametrize("how", ["freezes", "is cut off"])
async def test_a_worker_that_falls_silent_while_it_starts(tmp_path: Path, test_bed: SshTestBed, how: str) -> None:
    async with sick_bed(tmp_path, test_bed) as bed:
        await bed.write("1.0.0", unless_well("sleep 4321"))
        deploying = asyncio.create_task(bed.deploy())
        await asyncio.to_thread(wait_until, bed.sick.path("/opt/began").exists)
        with bed.sick.frozen() if how == "freezes" else bed.sick.cut_off():
            ended = await deploying

        await bed.only_the_sick_one_failed(ended)
        bed.sick.path("/opt/well").touch()
        await bed.recovers()


@pytest.mark.parametrize(
    "flood", ["yes a line without end", "yes a line without end >&2", "tr '\\0' x </dev/zero", "cat /dev/urandom"]
)
async def test_output_without_end_is_ended_by_the_limit(tmp_path: Path, test_bed: SshTestBed, flood: str) -> None:
    async with sick_bed(tmp_path, test_bed) as bed:
        await bed.write("1.0.0", unless_well(flood))

        ended = await bed.deploy()

        assert "timed out after 5 s" in await bed.only_the_sick_one_failed(ended)
        bed.sick.path("/opt/well").touch()
        await bed.recovers()


async def test_what_ignores_every_request_to_end_is_ended_all_the_same(tmp_path: Path, test_bed: SshTestBed) -> None:
    async with sick_bed(tmp_path, test_bed) as bed:
        await bed.write("1.0.0", unless_well("trap '' TERM HUP INT; while :; do sleep 0.2; done"))

        ended = await bed.deploy()

        assert "timed out after 5 s" in await bed.only_the_sick_one_failed(ended)
        assert not [line for line in bed.sick.processes() if "sick.sh" in line], "it was told as ended"
        bed.sick.path("/opt/well").touch()
        await bed.recovers()


@pytest.mark.parametrize("noise", ["exec yes", "exec yes >&2", "exec sleep 4321"])
async def test_a_login_shell_that_floods_or_hangs_is_named_and_left_out(tmp_path: Path, test_bed: SshTestBed, noise: str) -> None:
    async with sick_bed(tmp_path, test_bed) as bed:
        await bed.write("1.0.0")
        bed.sick.home.joinpath(".bashrc").write_text(f"{noise}\n")

        await bed.only_the_sick_one_failed(await bed.deploy(skip_unreachable=True))
        bed.sick.home.joinpath(".bashrc").write_text("")
        await bed.recovers()


async def test_a_server_that_allows_one_session_is_only_slow(tmp_path: Path, make_test_bed: MakeTestBed) -> None:
    async with sick_bed(tmp_path, make_test_bed(max_sessions=1)) as bed:
        for number in range(3):
            bed.deploy_bed.write_job(f"other{number}", {})
        await bed.write("1.0.0")

        ended = await bed.deploy()

        assert ended.state == "succeeded", ended.result
        assert ended.result.counts["promoted"] == 8
