"""Connections across commands and edits of `maand.conf`, with real OpenSSH servers: a fleet stays warm, old settings go."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from maand_executor.rules.facts import BucketConfig, Worker
from maand_executor.ssh.pool import Room
from maand_executor.ssh.remote import Remote, Remotes
from tests.integration.executor.ssh_support import BUCKET, PATIENT, command
from tests.testbed.sshd import SshTestBed
from tests.testbed.worker import SshWorker


def logins(crowd: SshWorker) -> int:
    return crowd.log.read_text().count("Accepted publickey")


async def until_connected(crowd: SshWorker, user: str, count: int) -> None:
    """Return when that many connections of a user are open, as the server sees it."""
    async with asyncio.timeout(60):
        while len(list(sessions(crowd, user))) != count:  # noqa: ASYNC110 - processes of another side tell nobody
            await asyncio.sleep(0.05)


def sessions(crowd: SshWorker, user: str) -> Iterator[str]:
    return (line for line in crowd.processes() if line.startswith(f"sshd: {user}") and "[priv]" not in line)


@asynccontextmanager
async def remotes_of(bed: SshTestBed, room: Room | None = None) -> AsyncIterator[Remotes]:
    secrets = bed.directory / "secrets"
    bed.write_secrets(secrets)
    remotes = Remotes(secrets, PATIENT, room=room)
    try:
        yield remotes
    finally:
        await remotes.close()


def config(crowd: SshWorker, **settings: Any) -> BucketConfig:
    """Settings as they are by default, but for how the test bed is reached."""
    return BucketConfig(**{"bucket_id": BUCKET, "ssh_user": crowd.user, "ssh_port": crowd.port, **settings})


async def run_true(remote: Remote, hosts: Sequence[str]) -> None:
    results = await asyncio.gather(*(remote.run(Worker(name=host), command("true")) for host in hosts))
    assert all(result.ok for result in results)


async def test_a_fleet_of_a_hundred_is_logged_in_to_once_with_default_settings(test_bed: SshTestBed) -> None:
    crowd = test_bed.start_crowd(100)

    async with remotes_of(test_bed) as remotes:
        for _ in range(3):
            async with remotes.of(config(crowd)) as remote:
                await run_true(remote, crowd.hosts)

        assert (logins(crowd), remotes.open_connections) == (100, 100)


async def test_editing_other_settings_keeps_the_connections(test_bed: SshTestBed) -> None:
    crowd = test_bed.start_crowd(3)

    async with remotes_of(test_bed) as remotes:
        edits: list[dict[str, Any]] = [{}, {"hook_timeout": PATIENT.silence}, {"hook_env": ("A",)}, {"max_parallel_jobs": 9}]
        for edit in [*edits, {"use_sudo": False}, {"built": False}]:
            async with remotes.of(config(crowd, **edit)) as remote:
                await run_true(remote, crowd.hosts)

        assert (logins(crowd), remotes.open_connections) == (3, 3)


async def test_changing_the_user_closes_the_old_connections_once_nobody_works_with_them(test_bed: SshTestBed) -> None:
    crowd = test_bed.start_crowd(4)

    async with remotes_of(test_bed) as remotes:
        async with remotes.of(config(crowd, ssh_user="agent")) as before:
            await run_true(before, crowd.hosts)
            async with remotes.of(config(crowd, ssh_user="root")) as after:
                await run_true(after, crowd.hosts)
            await run_true(before, crowd.hosts)
            assert (logins(crowd), remotes.open_connections) == (8, 8), "a run that began with the old ones keeps them"

        await until_connected(crowd, "agent", 0)
        await until_connected(crowd, "root", 4)
        assert remotes.open_connections == 4


async def test_going_back_to_the_settings_of_a_run_that_goes_on_shares_its_connections(test_bed: SshTestBed) -> None:
    crowd = test_bed.start_crowd(2)

    async with remotes_of(test_bed) as remotes:
        async with remotes.of(config(crowd)) as before:
            await run_true(before, crowd.hosts)
            async with remotes.of(config(crowd, ssh_user="root")):
                pass
            async with remotes.of(config(crowd)) as again:
                assert again is before
        assert (logins(crowd), remotes.open_connections) == (2, 2)


async def test_settings_edited_again_and_again_leave_nothing_open(test_bed: SshTestBed) -> None:
    crowd = test_bed.start_crowd(2)

    async with remotes_of(test_bed) as remotes:
        for number in range(1, 6):
            async with remotes.of(config(crowd, ssh_starts_per_second=number * 10)) as remote:
                await run_true(remote, crowd.hosts)
        await until_connected(crowd, "agent", 2)
        assert remotes.open_connections == 2


async def test_an_edited_ssh_config_closes_the_old_connections(test_bed: SshTestBed, tmp_path: Path) -> None:
    crowd = test_bed.start_crowd(2)
    path = tmp_path / "ssh_config"

    async with remotes_of(test_bed) as remotes:
        for edit in ("# one\n", "", "# two\n"):
            if edit:
                path.write_text(edit)
            async with remotes.of(config(crowd, ssh_config=str(path))) as remote:
                await run_true(remote, crowd.hosts)
        assert logins(crowd) == 4
        await until_connected(crowd, "agent", 2)


async def test_buckets_share_the_descriptors_of_the_process(test_bed: SshTestBed) -> None:
    crowd = test_bed.start_crowd(20)
    most = 0

    async with remotes_of(test_bed, Room(8)) as remotes:
        for bucket_id in ("one", "two", "one"):
            async with remotes.of(config(crowd, bucket_id=bucket_id)) as remote:
                work = asyncio.create_task(run_true(remote, crowd.hosts))
                while not work.done():
                    most = max(most, remotes.open_connections)
                    await asyncio.sleep(0.001)
                await work

        assert remotes.open_connections == 8
    assert most == 8
