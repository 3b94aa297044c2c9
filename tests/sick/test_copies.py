"""Workers whose rsync hangs, floods, lies, or breaks off: the copy ends, says what was waited for, and holds up nobody else."""

import asyncio
from pathlib import Path

import pytest

from tests.sick.sick_bed import sick_bed
from tests.testbed.sshd import SshTestBed
from tests.waiting import wait_until

pytestmark = [pytest.mark.sick, pytest.mark.timeout(180)]

HANGS = "#!/bin/sh\nexec sleep 4321\n"
TAKES_SOME = "#!/bin/sh\nhead -c 20 >/dev/null\ntouch /opt/copying\nexec sleep 4321\n"
GREETS = "#!/bin/sh\nprintf '\\037\\000\\000\\000'\nexec sleep 4321\n"
FLOODS_STDERR = "#!/bin/sh\nexec yes a complaint without end >&2\n"
FLOODS_STDOUT = "#!/bin/sh\nexec yes EVIL\n"
NONSENSE = "#!/bin/sh\nhead -c 100000 /dev/urandom\n"
FRAMES = "#!/bin/sh\nprintf '\\037\\000\\000\\000'\nexec yes '12345678901234567890'\n"
CONTROLS = "#!/bin/sh\nprintf '\\033]0;owned\\007\\033[2Jno disk today\\n' >&2\nexit 12\n"
DIES = "#!/bin/sh\nhead -c 20 >/dev/null\nexit 1\n"


@pytest.mark.parametrize(
    ("rsync", "said"),
    [
        pytest.param(HANGS, "stood still for 6 s: its rsync did not answer", id="hangs"),
        pytest.param(TAKES_SOME, "stood still for 6 s: its rsync did not answer", id="hangs-later"),
        pytest.param(GREETS, "stood still for 6 s: its rsync said nothing more after 4 bytes", id="greets-and-hangs"),
        pytest.param(FLOODS_STDERR, "its rsync complained without end", id="floods-stderr"),
        pytest.param(FLOODS_STDOUT, "is your shell clean?", id="floods-stdout"),
        pytest.param(NONSENSE, "", id="nonsense"),
        pytest.param(FRAMES, "", id="frames-without-end"),
        pytest.param(CONTROLS, r"\x1b]0;owned\x07\x1b[2Jno disk today", id="control-characters"),
        pytest.param(DIES, "", id="dies"),
    ],
)
async def test_a_sick_rsync_costs_its_own_allocation_only(tmp_path: Path, test_bed: SshTestBed, rsync: str, said: str) -> None:
    async with sick_bed(tmp_path, test_bed) as bed:
        await bed.write("1.0.0")
        bed.sick.stand_in("rsync", rsync)

        ended = await bed.deploy()

        message = await bed.only_the_sick_one_failed(ended)
        assert said in message
        assert ended.state == "failed"
        steps = [(event.worker, event.step_finished.step) for event in ended.of_kind("step_finished")]
        if "stood still" in said:
            assert steps.index((bed.healthy.host, "start")) < steps.index((bed.sick.host, "copy"))
        (bed.sick.tree / "sbin/rsync").unlink()
        await bed.recovers()


async def test_sick_copies_hold_up_no_copies_of_other_jobs(tmp_path: Path, test_bed: SshTestBed) -> None:
    async with sick_bed(tmp_path, test_bed) as bed:
        for number in range(4):  # twice as many as there are places for copies
            bed.deploy_bed.write_job(f"stuck{number}", {"selectors": ["sick"]})
        bed.deploy_bed.labels = {bed.sick.host: ["sick"]}
        bed.deploy_bed.write_workers()
        await bed.write("1.0.0")
        await bed.deploy_bed.configure(max_parallel_jobs=8)
        bed.sick.stand_in("rsync", HANGS)

        ended = await bed.deploy()

        steps = [(event.job, event.worker, event.step_finished.step) for event in ended.of_kind("step_finished")]
        healthy_copied = steps.index(("api", bed.healthy.host, "copy"))
        assert healthy_copied < min(number for number, (job, _, _) in enumerate(steps) if job.startswith("stuck"))
        assert (await bed.deploy_bed.states("api"))[bed.healthy.host] == "promoted"


async def test_a_connection_that_breaks_in_the_middle_of_a_copy_costs_its_own_allocation_only(
    tmp_path: Path, test_bed: SshTestBed
) -> None:
    async with sick_bed(tmp_path, test_bed) as bed, bed.proxied() as proxy:
        await bed.write("1.0.0")
        bed.sick.stand_in("rsync", TAKES_SOME)
        deploying = asyncio.create_task(bed.deploy())
        await asyncio.to_thread(wait_until, bed.sick.path("/opt/copying").exists)
        proxy.hang_up()

        assert "connection was lost during a copy" in await bed.only_the_sick_one_failed(await deploying)
        (bed.sick.tree / "sbin/rsync").unlink()
        await bed.recovers()


async def test_a_link_a_hundred_times_slower_is_only_slow(tmp_path: Path, test_bed: SshTestBed) -> None:
    async with sick_bed(tmp_path, test_bed) as bed, bed.proxied() as proxy:
        await bed.write("1.0.0", **{"some.conf": "x = 1\n" * 500})
        proxy.pace.most, proxy.pace.pause = 1024, 0.05

        ended = await bed.deploy()

        assert ended.state == "succeeded", ended.result
        assert set((await bed.deploy_bed.states("api")).values()) == {"promoted"}


@pytest.mark.parametrize("how", ["full", "read-only"])
async def test_a_disk_that_takes_nothing_costs_its_own_allocation_only(tmp_path: Path, test_bed: SshTestBed, how: str) -> None:
    async with sick_bed(tmp_path, test_bed) as bed:
        await bed.write("1.0.0", **{"big.conf": "0123456789abcdef" * 20_000})
        sicken = {"full": "mount -t tmpfs -o size=128k none /opt", "read-only": "mount -t tmpfs -o ro none /opt"}[how]
        bed.sick.run(sicken)

        ended = await bed.deploy()

        message = await bed.only_the_sick_one_failed(ended)
        assert {"full": "No space left on device", "read-only": "Read-only file system"}[how] in message
        bed.sick.run("umount /opt")
        await bed.recovers()
