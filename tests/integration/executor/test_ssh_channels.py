"""Channels on real OpenSSH servers: how many at once, refused, given up while they open, waited for."""

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from maand_executor.rules.facts import Worker
from maand_executor.rules.side_by_side import end_tasks
from maand_executor.ssh.errors import ConnectionUnusable, NothingFree
from maand_executor.ssh.remote import Remote
from tests.integration.executor.ssh_support import PATIENT, command, fact, remote_of
from tests.testbed.fixtures import MakeTestBed
from tests.testbed.sshd import SshTestBed
from tests.testbed.worker import SshWorker
from tests.waiting import until


def logins(worker: SshWorker) -> int:
    return worker.log.read_text().count("Accepted publickey")


async def test_more_commands_than_channels_wait_for_their_turn_with_default_max_sessions(test_bed: SshTestBed) -> None:
    worker = test_bed.start_worker()

    async with remote_of(test_bed) as remote:
        results = await asyncio.gather(*(remote.run(fact(worker), command("sleep 0.1; echo ok")) for _ in range(40)))

    assert [result.stdout for result in results] == [b"ok\n"] * 40


async def test_a_server_with_fewer_channels_teaches_how_many(make_test_bed: MakeTestBed) -> None:
    bed = make_test_bed(max_sessions=3)
    worker = bed.start_worker()

    async with remote_of(bed) as remote:
        results = await asyncio.gather(*(remote.run(fact(worker), command("sleep 0.05; echo ok")) for _ in range(30)))

    assert [result.stdout for result in results] == [b"ok\n"] * 30
    assert worker.log.read_text().count("no more sessions") <= 15


async def test_a_server_that_allows_no_channel_at_all_is_reported(make_test_bed: MakeTestBed) -> None:
    bed = make_test_bed(max_sessions=0)
    worker = bed.start_worker()

    async with remote_of(bed) as remote:
        with pytest.raises(ConnectionUnusable, match="refuses to run"):
            await remote.run(fact(worker), command("true"))


async def test_a_server_that_allows_no_channel_holds_up_nobody_of_a_crowd(make_test_bed: MakeTestBed) -> None:
    bed = make_test_bed(max_sessions=0)
    worker = bed.start_worker()

    async with remote_of(bed) as remote:
        crowd = (remote.run(fact(worker), command("true")) for _ in range(3))
        ends = await asyncio.gather(*crowd, return_exceptions=True)

    assert [type(end) for end in ends] == [ConnectionUnusable] * 3


async def test_commands_cancelled_while_their_channel_is_opened_leave_no_channel_open(test_bed: SshTestBed) -> None:
    worker = test_bed.start_worker()

    async with remote_of(test_bed) as remote:
        await remote.connect(fact(worker))
        for turns in range(60):  # sshd allows ten channels
            hasty = asyncio.create_task(remote.run(fact(worker), command("true")))
            for _ in range(1 + turns % 12):
                await asyncio.sleep(0)
            hasty.cancel()
            await asyncio.wait([hasty])
        await remote.run(fact(worker), command("true"))

        async with remote._pool.lease(remote._destination(fact(worker))) as link:
            await until(lambda: not link.connection._channels)
            assert link.slots.used == 0
    assert logins(worker) == 1


async def test_a_connection_that_refuses_everything_while_we_hold_nothing_there_is_replaced(test_bed: SshTestBed) -> None:
    worker = test_bed.start_worker()

    async with remote_of(test_bed) as remote:
        async with remote._pool.lease(remote._destination(fact(worker))) as link:
            held = [await link.connection.create_process("sleep 4321") for _ in range(10)]  # as leaked ones were
        assert (await remote.run(fact(worker), command("echo ok"))).stdout == b"ok\n"

    assert len(held) == 10
    assert logins(worker) == 2


async def hold_everything(remote: Remote, worker: Worker, release: asyncio.Event, count: int = 1) -> None:
    """Run so many commands on a worker until told that it is enough."""
    holding = [asyncio.create_task(remote.run(worker, command("sleep 4321"))) for _ in range(count)]
    await release.wait()
    await end_tasks(*holding)


async def test_a_long_wait_for_a_connection_is_told_to_the_run_that_waits_and_ends(test_bed: SshTestBed) -> None:
    crowd = test_bed.start_crowd(2)
    first, second = (Worker(name=host) for host in crowd.hosts)
    hasty = replace(PATIENT, long_wait=timedelta(seconds=0.1), longest_wait=timedelta(seconds=1))
    told: list[str] = []
    release = asyncio.Event()

    async with remote_of(test_bed, ssh_port=crowd.port, max_ssh_sessions=1, settings=hasty) as remote:
        holding = asyncio.create_task(hold_everything(remote, first, release))
        await until(lambda: remote.open_connections)
        with pytest.raises(NothingFree, match=r"none of 1 SSH connections became free within 1 s") as error:
            await remote.telling(told.append).run(second, command("true"))
        release.set()
        await holding
        assert (await remote.run(second, command("echo ok"))).stdout == b"ok\n"

    assert "max_ssh_sessions" in error.value.help
    assert told == [
        "waits for an SSH connection: as many are in use as max_ssh_sessions or the limit of file descriptors allows (1)"
    ]


async def test_a_long_wait_for_a_turn_on_a_worker_is_told_to_the_run_that_waits_and_ends(test_bed: SshTestBed) -> None:
    worker = test_bed.start_worker()
    hasty = replace(PATIENT, long_wait=timedelta(seconds=0.1), longest_wait=timedelta(seconds=1))
    told: list[str] = []
    release = asyncio.Event()

    async with remote_of(test_bed, settings=hasty) as remote:
        holding = asyncio.create_task(hold_everything(remote, fact(worker), release, count=8))
        await until(lambda: sum("4321" in line for line in worker.processes()) >= 8)
        with pytest.raises(NothingFree, match=r"none of the 8 commands and copies under way there ended within 1 s"):
            await remote.telling(told.append).run(fact(worker), command("true"))
        release.set()
        await holding
        assert (await remote.run(fact(worker), command("echo ok"))).stdout == b"ok\n"

    assert told == [f"waits for its turn on {worker.host}: 8 commands and copies are under way there"]
