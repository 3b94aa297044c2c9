"""Questions to real workers."""

from pathlib import Path

from maand_executor.ssh.probes import find_missing_tools, ping, read_facts
from tests.integration.executor.ssh_support import fact, remote_of
from tests.testbed.fixtures import MakeTestBed
from tests.testbed.sshd import SshTestBed


async def test_everything_a_worker_lacks_is_named_at_once(make_test_bed: MakeTestBed) -> None:
    bed = make_test_bed()
    complete, bare = bed.start_workers(2)
    bare.hide("make", "flock")

    async with remote_of(bed) as remote:
        assert await find_missing_tools(remote, fact(complete), sudo=True) == ()
        (bed.directory / "shared" / "sudoers").write_text("root ALL=(ALL) ALL\n")
        assert await find_missing_tools(remote, fact(bare), sudo=True) == ("make", "flock", "sudo without a password")


async def test_facts_are_those_of_the_machine(test_bed: SshTestBed) -> None:
    worker = test_bed.start_worker()

    async with remote_of(test_bed) as remote:
        facts = await read_facts(remote, fact(worker))

    assert facts.memory_mb == memory_kib() // 1024
    assert facts.cpu_mhz > 0


async def test_a_ping_tells_the_round_trip_of_a_command(test_bed: SshTestBed) -> None:
    worker = test_bed.start_worker()

    async with remote_of(test_bed) as remote:
        assert 0 < (await ping(remote, fact(worker))).total_seconds() < 60


def memory_kib() -> int:
    return int(Path("/proc/meminfo").read_text().split()[1])
