"""Copies to real workers over the pooled connection: what arrives, what goes, what stays, what an interruption does."""

import asyncio
import contextlib
import os
import signal
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from maand_executor.rules.facts import WorkerFence
from maand_executor.ssh.copy import Account, RemoteCopy
from maand_executor.ssh.errors import CopyFailed, StaleFence, SudoRefused, WorkerUnreachable
from maand_executor.ssh.rsync_pipes import KEPT_COMPLAINTS
from tests.integration.executor.ssh_support import BUCKET, IMPATIENT, PATIENT, command, fact, remote_of
from tests.testbed.fixtures import MakeTestBed
from tests.testbed.sshd import SshTestBed
from tests.testbed.worker import SshWorker
from tests.waiting import until

TARGET = "/opt/worker/bucket/jobs/api"


def write(directory: Path, files: dict[str, str], mode: int = 0o644) -> Path:
    for name, text in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)
    return directory


def read(directory: Path) -> dict[str, str]:
    return {str(path.relative_to(directory)): path.read_text() for path in sorted(directory.rglob("*")) if path.is_file()}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write(tmp_path / "source", {"Makefile": "start:\n", "conf/app.conf": "one", 'conf/it\'s "odd" $x.txt': "two"})


@pytest.mark.parametrize("sudo", [False, True])
async def test_a_copy_arrives_with_modes_and_its_parents_are_made(test_bed: SshTestBed, source: Path, sudo: bool) -> None:
    worker = test_bed.start_worker()
    write(source, {"run.sh": "#!/bin/sh"}, 0o755)
    write(source, {"secret": "s"}, 0o600)
    (source / "link").symlink_to("conf/app.conf")
    target = TARGET if sudo else "worker/bucket/jobs/api"

    async with remote_of(test_bed) as remote:
        result = await remote.copy(fact(worker), RemoteCopy(source=source, target=target, sudo=sudo))

    there = worker.path(target) if sudo else worker.home / target
    assert read(there) == {**read(source)}
    assert [(there / name).stat().st_mode & 0o777 for name in ("run.sh", "secret", "Makefile")] == [0o755, 0o600, 0o644]
    assert (there / "link").readlink() == Path("conf/app.conf")
    assert (there / "run.sh").stat().st_uid == (0 if sudo else 54_321)
    assert (result.files_transferred, result.files_deleted) == (5, 0)


async def test_a_copy_goes_over_the_open_connection(test_bed: SshTestBed, source: Path) -> None:
    worker = test_bed.start_worker()

    async with remote_of(test_bed) as remote:
        await remote.run(fact(worker), command("true"))
        copies = [RemoteCopy(source=source, target=f"{TARGET}-{number}", sudo=True) for number in range(12)]
        await asyncio.gather(*(remote.copy(fact(worker), copy) for copy in copies))

    assert worker.log.read_text().count("Accepted publickey") == 1
    assert len(list(worker.path("/opt/worker/bucket/jobs").iterdir())) == 12


async def test_copies_and_commands_take_turns_on_a_server_of_one_session(make_test_bed: MakeTestBed, source: Path) -> None:
    bed = make_test_bed(max_sessions=1)
    worker = bed.start_worker()

    async with remote_of(bed) as remote:
        commands = (remote.run(fact(worker), command("sleep 0.05; echo ok")) for _ in range(10))
        copies = (remote.copy(fact(worker), RemoteCopy(source=source, target=f"copied-{n}", sudo=False)) for n in range(4))
        results, _ = await asyncio.gather(asyncio.gather(*commands), asyncio.gather(*copies))

    assert [result.stdout for result in results] == [b"ok\n"] * 10
    assert len(list(worker.home.glob("copied-*/Makefile"))) == 4


async def test_only_what_changed_is_sent_and_what_left_is_deleted(test_bed: SshTestBed, source: Path) -> None:
    worker = test_bed.start_worker()
    copy = RemoteCopy(source=source, target=TARGET, sudo=True)

    async with remote_of(test_bed) as remote:
        await remote.copy(fact(worker), copy)
        unchanged = await remote.copy(fact(worker), copy)
        (source / "Makefile").unlink()
        write(source, {"conf/app.conf": "ONE", "new": "x"})
        changed = await remote.copy(fact(worker), copy)

    assert not unchanged.changed
    assert (changed.files_transferred, changed.files_deleted) == (2, 1)
    assert read(worker.path(TARGET)) == read(source)


async def test_a_change_of_the_same_size_and_time_is_seen(test_bed: SshTestBed, source: Path) -> None:
    worker = test_bed.start_worker()
    copy = RemoteCopy(source=source, target=TARGET, sudo=True)

    async with remote_of(test_bed) as remote:
        await remote.copy(fact(worker), copy)
        there = worker.path(TARGET) / "conf/app.conf"
        times = (there.stat().st_atime, there.stat().st_mtime)
        write(source, {"conf/app.conf": "eno"})
        os.utime(source / "conf/app.conf", times)
        await remote.copy(fact(worker), copy)

    assert there.read_text() == "eno"


async def test_data_logs_and_bin_of_the_job_are_neither_written_nor_deleted(test_bed: SshTestBed, source: Path) -> None:
    worker = test_bed.start_worker()
    write(worker.path(TARGET), {"data/rows": "kept", "logs/log": "kept", "bin/tool": "kept", "conf/data/x": "goes"})
    write(source, {"data/rows": "never", "conf/logs/y": "comes"})

    async with remote_of(test_bed) as remote:
        await remote.copy(fact(worker), RemoteCopy(source=source, target=TARGET, sudo=True))

    arrived = read(worker.path(TARGET))
    assert {name: arrived[name] for name in ("data/rows", "logs/log", "bin/tool")} == dict.fromkeys(
        ("data/rows", "logs/log", "bin/tool"), "kept"
    )
    assert "conf/data/x" not in arrived
    assert arrived["conf/logs/y"] == "comes"


async def test_hard_linked_content_is_copied_as_files(test_bed: SshTestBed, tmp_path: Path) -> None:
    worker = test_bed.start_worker()
    store = write(tmp_path / "store", {"digest": "same content"})
    tree = tmp_path / "tree"
    tree.mkdir()
    for name in ("a", "b"):
        os.link(store / "digest", tree / name)

    async with remote_of(test_bed) as remote:
        await remote.copy(fact(worker), RemoteCopy(source=tree, target=TARGET, sudo=True))

    assert read(worker.path(TARGET)) == {"a": "same content", "b": "same content"}


def big_tree(tmp_path: Path) -> Path:
    tree = write(tmp_path / "big", {"a-first": "new", "z-last": "new"})
    (tree / "m-blob").write_bytes(os.urandom(64 * 1024 * 1024))
    return tree


async def until_something_arrives(worker: SshWorker) -> None:
    while not any(path.stat().st_size for path in worker.path(TARGET).rglob(".m-blob*")):  # noqa: ASYNC110 - files tell nobody
        await asyncio.sleep(0.005)


async def test_a_cancelled_copy_leaves_what_was_there_and_the_next_one_completes_it(test_bed: SshTestBed, tmp_path: Path) -> None:
    worker = test_bed.start_worker()
    before = {"a-first": "old", "z-last": "old", "gone-later": "old"}
    write(worker.path(TARGET), before)
    copy = RemoteCopy(source=big_tree(tmp_path), target=TARGET, sudo=True)

    async with remote_of(test_bed) as remote:
        copying = asyncio.create_task(remote.copy(fact(worker), copy))
        await asyncio.wait_for(until_something_arrives(worker), 60)
        copying.cancel()
        with pytest.raises(asyncio.CancelledError):
            await copying
        await asyncio.to_thread(worker.wait_until_gone, "rsync")

        assert {name: (worker.path(TARGET) / name).read_text() for name in before} == before

        await remote.copy(fact(worker), copy)

    assert sorted(path.name for path in worker.path(TARGET).iterdir()) == ["a-first", "m-blob", "z-last"]
    assert (worker.path(TARGET) / "m-blob").stat().st_size == 64 * 1024 * 1024
    assert (worker.path(TARGET) / "z-last").read_text() == "new"


async def test_a_worker_cut_off_during_a_copy_is_an_error_and_the_copy_can_be_repeated(
    test_bed: SshTestBed, tmp_path: Path
) -> None:
    worker = test_bed.start_worker()
    write(worker.path(TARGET), {"a-first": "old"})
    copy = RemoteCopy(source=big_tree(tmp_path), target=TARGET, sudo=True)

    async with remote_of(test_bed, settings=IMPATIENT) as remote:
        copying = asyncio.create_task(remote.copy(fact(worker), copy))
        await asyncio.wait_for(until_something_arrives(worker), 60)
        with worker.cut_off(), pytest.raises((CopyFailed, WorkerUnreachable)):
            await asyncio.wait_for(copying, 60)

        assert (worker.path(TARGET) / "a-first").read_text() == "old"

        await remote.copy(fact(worker), copy)

    assert (worker.path(TARGET) / "a-first").read_text() == "new"


async def test_a_copy_has_a_time_limit(test_bed: SshTestBed, source: Path) -> None:
    worker = test_bed.start_worker()
    worker.stand_in("rsync", "#!/bin/sh\nexec sleep 4321\n")

    async with remote_of(test_bed) as remote:
        with pytest.raises(CopyFailed, match=r"longer than 0\.5 s"):
            await remote.copy(fact(worker), RemoteCopy(source=source, target=TARGET, sudo=True, timeout=timedelta(seconds=0.5)))


async def test_a_copy_of_an_older_owner_is_refused_and_changes_nothing(test_bed: SshTestBed, source: Path) -> None:
    worker = test_bed.start_worker()
    copy = RemoteCopy(source=source, target=f"/opt/worker/{BUCKET}/jobs/api", sudo=True)
    older, newer = (WorkerFence(epoch=0, seq=7, number=number) for number in (1, 2))

    async with remote_of(test_bed) as remote:
        await remote.copy(fact(worker), replace(copy, fence=newer))
        (source / "Makefile").write_text("changed by somebody who slept\n")
        with pytest.raises(StaleFence, match="claim 2 of run 7 has changed this worker, and this is claim 1"):
            await remote.copy(fact(worker), replace(copy, fence=older))
        assert (worker.path(copy.target) / "Makefile").read_text() == "start:\n"

        await remote.copy(fact(worker), replace(copy, fence=newer))

    assert (worker.path(copy.target) / "Makefile").read_text() == "changed by somebody who slept\n"


async def test_what_a_login_shell_prints_disturbs_no_copy(test_bed: SshTestBed, source: Path) -> None:
    worker = test_bed.start_worker()
    worker.home.joinpath(".bashrc").write_text("echo welcome; seq 1000; echo on stderr >&2\n")

    async with remote_of(test_bed) as remote:
        assert b"on stderr" in (await remote.run(fact(worker), command("true"))).stderr
        await remote.copy(fact(worker), RemoteCopy(source=source, target=TARGET, sudo=True))

    assert read(worker.path(TARGET)) == read(source)


async def test_a_copy_ends_at_once_when_the_process_on_this_side_is_killed(test_bed: SshTestBed, tmp_path: Path) -> None:
    worker = test_bed.start_worker()
    copy = RemoteCopy(source=big_tree(tmp_path), target=TARGET, sudo=True)

    async with remote_of(test_bed) as remote:
        copying = asyncio.create_task(remote.copy(fact(worker), copy))
        await asyncio.wait_for(until_something_arrives(worker), 60)
        for process in own_processes("rsync"):
            os.kill(process, signal.SIGKILL)
        with pytest.raises(CopyFailed, match="ended by signal 9"):
            await asyncio.wait_for(copying, 30)
        await asyncio.to_thread(worker.wait_until_gone, "rsync")

        await remote.copy(fact(worker), copy)

    assert not own_processes("rsync")


async def test_words_without_end_of_the_process_on_this_side_are_not_kept_and_end_it() -> None:
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec("yes", "words", stdout=pipe, stderr=pipe, process_group=0)

    account = await asyncio.wait_for(Account().read(process), 60)

    assert (account.has_flooded, process.returncode) == (True, -signal.SIGKILL)
    assert len(account.stdout) == KEPT_COMPLAINTS


async def test_a_copy_that_waits_for_its_turn_is_not_taken_for_one_that_stands_still(test_bed: SshTestBed, source: Path) -> None:
    worker = test_bed.start_worker()
    hasty = replace(PATIENT, silence=timedelta(seconds=3), heartbeat=timedelta(seconds=0.3))

    async with remote_of(test_bed, settings=hasty) as remote:
        busy = [asyncio.create_task(remote.run(fact(worker), command("until [ -e go ]; do sleep 0.1; done"))) for _ in range(8)]
        await until(lambda: len([line for line in worker.processes() if "noprofile" in line]) >= 8)
        copying = asyncio.create_task(remote.copy(fact(worker), RemoteCopy(source=source, target=TARGET, sudo=True)))
        await asyncio.sleep(4)  # longer than a copy may be silent
        assert not copying.done()
        (worker.home / "go").touch()
        await asyncio.wait_for(copying, 60)
        await asyncio.gather(*busy)

    assert read(worker.path(TARGET)) == read(source)


def own_processes(name: str) -> list[int]:
    """Return the living children of this process that are called so."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            called, _, rest = entry.read_text().partition("(")[2].rpartition(")")
            state, parent = rest.split()[:2]
            if called == name and state != "Z" and int(parent) == os.getpid():
                found.append(int(entry.parent.name))
    return found


async def test_what_keeps_a_copy_from_succeeding_is_said_in_plain_words(
    make_test_bed: MakeTestBed, source: Path, tmp_path: Path
) -> None:
    bed = make_test_bed()
    worker, bare = bed.start_workers(2)
    bare.hide("rsync")

    async with remote_of(bed) as remote:
        with pytest.raises(CopyFailed, match="Permission denied"):
            await remote.copy(fact(worker), RemoteCopy(source=source, target="/opt/not-allowed", sudo=False))
        with pytest.raises(CopyFailed, match="rsync is not installed"):
            await remote.copy(fact(bare), RemoteCopy(source=source, target=TARGET, sudo=True))
        with pytest.raises(CopyFailed, match="No such file or directory"):
            await remote.copy(fact(worker), RemoteCopy(source=tmp_path / "missing", target=TARGET, sudo=True))
        (bed.directory / "shared" / "sudoers").write_text("root ALL=(ALL) ALL\n")
        with pytest.raises(SudoRefused):
            await remote.copy(fact(worker), RemoteCopy(source=source, target=TARGET, sudo=True))
