"""What keeps an executor from acting where it must not: fences on the worker, and `worker.json`."""

import asyncio
from datetime import timedelta

import pytest

from maand_executor.rules.facts import WorkerFence
from maand_executor.rules.remote_commands import RemoteCommand
from maand_executor.ssh.errors import CommandNotStarted, ForeignOwner, ForeignWorker, StaleFence
from tests.integration.executor.ssh_support import BUCKET, command, fact, remote_of
from tests.testbed.sshd import SshTestBed
from tests.testbed.worker import SshWorker


def fenced(script: str, seq: int, number: int, *, epoch: int = 1, sudo: bool = True, seconds: float = 30) -> RemoteCommand:
    fence = WorkerFence(epoch=epoch, seq=seq, number=number)
    return command(script, sudo=sudo, fence=fence, timeout=timedelta(seconds=seconds))


@pytest.mark.parametrize("worker_root", ["/opt/worker", "maand files/it's here"])
async def test_a_smaller_triple_than_the_last_one_seen_is_refused(test_bed: SshTestBed, worker_root: str) -> None:
    worker = test_bed.start_worker()

    async with remote_of(test_bed, worker_root=worker_root) as remote:

        async def runs(epoch: int, seq: int, number: int) -> bool:
            try:
                result = await remote.run(fact(worker), fenced("true", seq, number, epoch=epoch))
            except StaleFence:
                return False
            return result.ok

        triples = ((1, 7, 1), (1, 7, 1), (1, 7, 2), (1, 7, 1), (1, 6, 9), (1, 8, 1), (1, 7, 3), (2, 3, 1), (1, 9, 9), (2, 3, 1))
        seen = [await runs(*triple) for triple in triples]

    assert seen == [True, True, True, False, False, True, False, True, False, True]
    root = worker.path("/opt/worker") if worker_root.startswith("/") else worker.home / worker_root
    assert (root / BUCKET / "fence").read_text() == "3 1 2\n"


@pytest.mark.parametrize(
    "before", ["", "\n", "5\n", "a[$(touch /opt/was-here)] 1 1\n", "9 9 x\n", "7 1\n", "08 09\n", f"{'9' * 30} 1 1\n"]
)
async def test_a_fence_file_of_before_epochs_or_a_damaged_one_neither_stops_nor_runs_anything(
    test_bed: SshTestBed, before: str
) -> None:
    worker = test_bed.start_worker()
    file = worker.path(f"/opt/worker/{BUCKET}/fence")
    file.parent.mkdir(parents=True)
    file.write_text(before)

    async with remote_of(test_bed) as remote:
        assert (await remote.run(fact(worker), fenced("true", 1, 1))).ok

    assert file.read_text() == "1 1 1\n"
    assert not worker.path("/opt/was-here").exists()


async def test_a_stale_command_does_nothing_and_says_who_was_there(test_bed: SshTestBed) -> None:
    worker = test_bed.start_worker()

    async with remote_of(test_bed) as remote:
        await remote.run(fact(worker), fenced("true", 12, 3, epoch=2))
        with pytest.raises(StaleFence, match="claim 3 of run 12 has changed this worker, and this is claim 2") as stale:
            await remote.run(fact(worker), fenced("touch /opt/was-here", 12, 2, epoch=2))
        with pytest.raises(StaleFence, match="run 12 of this bucket has changed this worker, and this is run 11"):
            await remote.run(fact(worker), fenced("touch /opt/was-here", 11, 9, epoch=2))
        with pytest.raises(StaleFence, match=r"a later life of this bucket's database \(epoch 2, ours is 1\)") as restored:
            await remote.run(fact(worker), fenced("touch /opt/was-here", 99, 1, epoch=1))

    assert stale.value.facts == {"worker": worker.host, "epoch": "2", "seq": "12", "fence": "3"}
    assert "maand-catalog new-epoch" in restored.value.help
    assert not worker.path("/opt/was-here").exists()


async def until_running(worker: SshWorker, words: str) -> None:
    while not any(line.startswith(words) for line in worker.processes()):  # noqa: ASYNC110 - processes tell nobody
        await asyncio.sleep(0.01)


async def test_commands_of_one_owner_run_side_by_side(test_bed: SshTestBed) -> None:
    worker = test_bed.start_worker()
    meet = "touch /opt/{0}; until [ -e /opt/{1} ]; do sleep 0.02; done"

    async with remote_of(test_bed) as remote:
        both = await asyncio.gather(
            remote.run(fact(worker), fenced(meet.format("a", "b"), 1, 1)),
            remote.run(fact(worker), fenced(meet.format("b", "a"), 1, 1)),
        )

    assert [result.exit_code for result in both] == [0, 0]


async def test_a_newer_owner_waits_until_the_older_ones_command_has_ended(test_bed: SshTestBed) -> None:
    worker = test_bed.start_worker()

    async with remote_of(test_bed) as remote:
        older = asyncio.create_task(
            remote.run(fact(worker), fenced("until [ -e /opt/go ]; do sleep 0.02; done; echo older >>/opt/log", 1, 1))
        )
        await asyncio.wait_for(until_running(worker, "sleep 0.02"), 60)
        newer = asyncio.create_task(remote.run(fact(worker), fenced("echo newer >>/opt/log", 1, 2)))
        await asyncio.wait_for(until_running(worker, "flock -x"), 60)
        worker.path("/opt/go").touch()
        await asyncio.gather(older, newer)

    assert worker.path("/opt/log").read_text() == "older\nnewer\n"


async def test_what_a_command_leaves_behind_does_not_hold_the_fence(test_bed: SshTestBed) -> None:
    worker = test_bed.start_worker()

    async with remote_of(test_bed) as remote:
        await remote.run(fact(worker), fenced("sleep 4321 >/dev/null 2>&1 &", 1, 1))
        result = await remote.run(fact(worker), fenced("echo free", 1, 2, seconds=5))

    assert result.stdout == b"free\n"
    assert any("4321" in line for line in worker.processes())


async def test_a_worker_without_flock_is_named(test_bed: SshTestBed) -> None:
    worker = test_bed.start_worker()
    worker.hide("flock")

    async with remote_of(test_bed) as remote:
        with pytest.raises(CommandNotStarted, match="is `flock` installed"):
            await remote.run(fact(worker), fenced("true", 1, 1))


@pytest.mark.parametrize(
    ("about", "refused"),
    [
        (None, None),
        ('{{"bucket_id": "{bucket}", "worker_id": "id-of-{host}"}}', None),
        ('{{"worker_id" : "id-of-{host}","bucket_id":"{bucket}"}}', None),
        ('{{"bucket_id": "another", "worker_id": "id-of-{host}"}}', "another bucket: another"),
        ('{{"bucket_id": "{bucket}", "worker_id": "id-of-10.0.0.9"}}', r"another worker: id-of-10\.0\.0\.9"),
    ],
)
async def test_a_worker_that_is_another_one_is_refused_when_asked_to_check(
    test_bed: SshTestBed, about: str | None, refused: str | None
) -> None:
    worker = test_bed.start_worker()
    if about is not None:
        directory = worker.path(f"/opt/worker/{BUCKET}")
        directory.mkdir(parents=True)
        (directory / "worker.json").write_text(about.format(bucket=BUCKET, host=worker.host) + "\n")

    async with remote_of(test_bed) as remote:
        assert (await remote.run(fact(worker), command("true"))).ok
        checked = command("touch /opt/was-here", sudo=True, check_host=True)
        if refused is None:
            assert (await remote.run(fact(worker), checked)).ok
        else:
            with pytest.raises(ForeignWorker, match=refused):
                await remote.run(fact(worker), checked)

    assert worker.path("/opt/was-here").exists() is (refused is None)


OURS = "11111111-1111-4111-8111-111111111111"
THEIRS = "22222222-2222-4222-8222-222222222222"


async def test_the_first_database_that_acts_on_a_worker_is_the_only_one(test_bed: SshTestBed) -> None:
    worker = test_bed.start_worker()
    file = worker.path(f"/opt/worker/{BUCKET}/fence")

    async with remote_of(test_bed, owner_id=OURS) as ours, remote_of(test_bed, owner_id=THEIRS) as theirs:
        await ours.run(fact(worker), fenced("true", 7, 1))
        with pytest.raises(ForeignOwner, match=f"another database acts on it for this bucket \\(owner {OURS}\\)") as refused:
            await theirs.run(fact(worker), fenced("touch /opt/was-here", 9, 1, epoch=2))
        with pytest.raises(StaleFence):
            await ours.run(fact(worker), fenced("touch /opt/was-here", 6, 1))
        await ours.run(fact(worker), fenced("true", 8, 1))
        assert (await theirs.run(fact(worker), command("echo looks"))).stdout == b"looks\n"

    assert "maand worker adopt" in refused.value.help
    assert "maand-catalog new-epoch" in refused.value.help
    assert file.read_text() == f"8 1 1 {OURS}\n"
    assert not worker.path("/opt/was-here").exists()


@pytest.mark.parametrize("before", ["7 1\n", "7 1 1\n"])
async def test_a_worker_of_before_owners_is_completed(test_bed: SshTestBed, before: str) -> None:
    worker = test_bed.start_worker()
    file = worker.path(f"/opt/worker/{BUCKET}/fence")
    file.parent.mkdir(parents=True)
    file.write_text(before)

    async with remote_of(test_bed, owner_id=OURS) as remote:
        await remote.run(fact(worker), fenced("true", 7, 1))

    assert file.read_text() == f"7 1 1 {OURS}\n"
