"""Ways to workers through real jump hosts, and what is wrong in `ssh_config`: who waits for whom, what a failure names."""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from maand_executor.ssh.errors import (
    AuthenticationRefused,
    CannotConnect,
    ConnectionUnusable,
    HostKeyUnknown,
    WorkerUnreachable,
)
from tests.integration.executor.ssh_support import IMPATIENT, command, fact, remote_of, secrets_for, write_ssh_config
from tests.testbed.fixtures import MakeTestBed
from tests.testbed.sshd import SshTestBed
from tests.testbed.worker import SshWorker


def behind(worker: SshWorker, jump: str) -> str:
    return f"Host {worker.host}\n  ProxyJump {jump}\n"


@pytest.fixture
def silent_port() -> Iterator[int]:
    """Give a port that accepts connections and never says anything."""
    with socket.create_server(("127.0.0.1", 0), backlog=200) as server:
        yield server.getsockname()[1]


# Jump hosts -----------------------------------------------------------------------------------------------------------------


async def test_a_dead_jump_host_holds_up_nobody_behind_the_others(test_bed: SshTestBed, tmp_path: Path, silent_port: int) -> None:
    first, second, *workers = test_bed.start_workers(5)
    jumps = [f"agent@{first.host}:{first.port}", f"agent@{second.host}:{second.port}", f"agent@127.0.0.1:{silent_port}"]
    config = write_ssh_config(tmp_path, "".join(behind(worker, jump) for worker, jump in zip(workers, jumps, strict=True)))

    async with remote_of(test_bed, ssh_config=config) as remote:
        dead = asyncio.create_task(remote.connect(fact(workers[2])))
        await asyncio.sleep(0)
        await asyncio.gather(*(remote.connect(fact(worker)) for worker in workers[:2]))

        assert not dead.done(), "the others are connected while one still waits"
        dead.cancel()
        with suppress(asyncio.CancelledError):
            await dead


async def test_many_workers_behind_a_dead_jump_host_take_no_places_from_others(
    test_bed: SshTestBed, tmp_path: Path, silent_port: int
) -> None:
    worker = test_bed.start_worker()
    names = [f"dead-{number}" for number in range(100)]
    config = write_ssh_config(tmp_path, f"Host dead-*\n  ProxyJump agent@127.0.0.1:{silent_port}\n")

    async with remote_of(test_bed, ssh_config=config) as remote:
        dead = [asyncio.create_task(remote.connect(fact(worker, name=name))) for name in names]
        await asyncio.sleep(0)
        await remote.connect(fact(worker))

        assert not any(task.done() for task in dead)
        for task in dead:
            task.cancel()
        await asyncio.gather(*dead, return_exceptions=True)


async def test_a_failure_names_the_jump_host_as_resolved_and_the_way(
    test_bed: SshTestBed, tmp_path: Path, silent_port: int
) -> None:
    worker = test_bed.start_worker()
    config = write_ssh_config(tmp_path, f"Host j1\n  HostName 127.0.0.1\n  Port {silent_port}\n{behind(worker, 'j1')}")

    async with remote_of(test_bed, ssh_config=config, settings=IMPATIENT) as remote:
        with pytest.raises(ConnectionUnusable) as failed:
            await remote.connect(fact(worker))

    assert str(failed.value) == (
        f"{worker.host}: jump host j1 (127.0.0.1:{silent_port}), on the way to {worker.host}:"
        f" no SSH connection to 127.0.0.1:{silent_port} within 2 s"
    )
    assert f"-w {worker.host}" in failed.value.help
    assert failed.value.facts["jump_host"] == "j1"


async def test_a_bastion_with_a_key_of_its_own_is_used_by_proxy_jump(make_test_bed: MakeTestBed, tmp_path: Path) -> None:
    office, fleet = make_test_bed(), make_test_bed()
    bastion, workers = office.start_worker(), fleet.start_workers(2)
    there = f"Host bastion\n  HostName {bastion.host}\n  Port {bastion.port}\n  User agent\n"
    secrets = secrets_for(tmp_path, fleet.key, fleet, office)

    own_key = write_ssh_config(tmp_path, f"{there}  IdentityFile {office.key}\nHost 127.*\n  ProxyJump bastion\n")
    async with remote_of(fleet, secrets=secrets, ssh_config=own_key) as remote:
        results = await asyncio.gather(*(remote.run(fact(worker), command("echo ok")) for worker in workers))
    assert [result.stdout for result in results] == [b"ok\n"] * 2
    assert bastion.log.read_text().count("Accepted publickey") == 1

    no_key = write_ssh_config(tmp_path, f"{there}Host 127.*\n  ProxyJump bastion\n")
    async with remote_of(fleet, secrets=secrets, ssh_config=no_key) as remote:
        with pytest.raises(AuthenticationRefused) as refused:
            await remote.connect(fact(workers[0]))
    hop = f"jump host bastion ({bastion.host}:{bastion.port}), on the way to {workers[0].host}"
    assert str(refused.value).startswith(f"{workers[0].host}: {hop}: ")
    assert 'does not accept our key for the user "agent" (offered: ' in str(refused.value)
    assert "IdentityFile" in refused.value.help


async def test_a_jump_host_whose_host_key_is_not_pinned_is_told_as_that(make_test_bed: MakeTestBed, tmp_path: Path) -> None:
    office, fleet = make_test_bed(), make_test_bed()
    bastion, worker = office.start_worker(), fleet.start_worker()
    config = write_ssh_config(tmp_path, behind(worker, f"agent@{bastion.host}:{bastion.port}"))

    async with remote_of(fleet, ssh_config=config) as remote:
        with pytest.raises(HostKeyUnknown, match="jump host") as unknown:
            await remote.connect(fact(worker))

    assert "ssh-keyscan" in unknown.value.help
    assert "worker trust" not in unknown.value.help


async def test_a_jump_host_that_forbids_forwarding_is_no_sign_of_a_dead_worker(
    make_test_bed: MakeTestBed, test_bed: SshTestBed, tmp_path: Path
) -> None:
    bed = make_test_bed(settings={"AllowTcpForwarding": "no"})
    jump, worker = bed.start_workers(2)
    config = write_ssh_config(tmp_path, behind(worker, f"agent@{jump.host}:{jump.port}"))

    async with remote_of(bed, ssh_config=config) as remote:
        with pytest.raises(ConnectionUnusable, match=r"jump host .*, on the way to .*, does not connect us"):
            await remote.connect(fact(worker))


async def test_a_jump_host_that_finds_nobody_tells_of_an_unreachable_worker(test_bed: SshTestBed, tmp_path: Path) -> None:
    jump, worker = test_bed.start_workers(2)
    config = write_ssh_config(tmp_path, behind(worker, f"agent@{jump.host}:{jump.port}"))
    worker.stop()

    async with remote_of(test_bed, ssh_config=config) as remote:
        with pytest.raises(WorkerUnreachable, match=rf"through jump host {jump.host}") as unreachable:
            await remote.connect(fact(worker))

    assert type(unreachable.value) is WorkerUnreachable


async def test_a_jump_host_that_was_lost_is_logged_in_to_again(test_bed: SshTestBed, tmp_path: Path) -> None:
    jump, one, two = test_bed.start_workers(3)
    config = write_ssh_config(
        tmp_path, behind(one, f"agent@{jump.host}:{jump.port}") + behind(two, f"agent@{jump.host}:{jump.port}")
    )

    async with remote_of(test_bed, ssh_config=config) as remote:
        await remote.connect(fact(one))
        jump.stop()
        jump.start()
        await remote.connect(fact(two))


# Faults of this side --------------------------------------------------------------------------------------------------------


async def test_a_syntax_error_in_ssh_config_is_told_with_its_line(test_bed: SshTestBed, tmp_path: Path) -> None:
    worker = test_bed.start_worker()
    config = write_ssh_config(tmp_path, "# ours\nPort notaport\n")

    async with remote_of(test_bed, ssh_config=config) as remote:
        with pytest.raises(CannotConnect, match=rf"{config}:2: Invalid Port integer value: notaport") as failed:
            await remote.connect(fact(worker))

    assert "no worker's fault" in failed.value.help


@pytest.mark.parametrize("where", ["worker", "jump host"])
async def test_a_proxy_command_that_is_not_installed_is_named(test_bed: SshTestBed, tmp_path: Path, where: str) -> None:
    worker = test_bed.start_worker()
    host = worker.host if where == "worker" else "j1"
    text = f"Host {host}\n  ProxyCommand /opt/nowhere/connect-it %h %p\n"
    config = write_ssh_config(tmp_path, text if where == "worker" else text + behind(worker, "j1"))

    async with remote_of(test_bed, ssh_config=config) as remote:
        with pytest.raises(CannotConnect, match=r"ProxyCommand cannot be run: /opt/nowhere/connect-it: No such file"):
            await remote.connect(fact(worker))


async def test_a_proxy_command_that_ends_at_once_is_named_and_no_sign_of_a_dead_worker(
    test_bed: SshTestBed, tmp_path: Path
) -> None:
    worker = test_bed.start_worker()
    config = write_ssh_config(tmp_path, f"Host {worker.host}\n  ProxyCommand false %h\n")

    async with remote_of(test_bed, ssh_config=config, settings=IMPATIENT) as remote:
        with pytest.raises(ConnectionUnusable, match=r"its ProxyCommand \(false\) ends before"):
            await remote.connect(fact(worker))


async def test_host_keys_are_shown_without_any_key_that_ssh_config_names(test_bed: SshTestBed, tmp_path: Path) -> None:
    worker = test_bed.start_worker()

    async with remote_of(test_bed, ssh_config=write_ssh_config(tmp_path, "IdentityFile /no/such/key\n")) as remote:
        (key,) = await remote.scan_host_keys(fact(worker))

    assert key.text in worker.known_hosts_lines


async def test_what_ssh_config_says_for_people_at_terminals_does_not_count(test_bed: SshTestBed, tmp_path: Path) -> None:
    worker = test_bed.start_worker()
    text = "RequestTTY force\nRemoteCommand false\nSetEnv FOO=bar\nPubkeyAuthentication no\nPreferredAuthentications password\n"

    async with remote_of(test_bed, ssh_config=write_ssh_config(tmp_path, text)) as remote:
        result = await remote.run(fact(worker), command("tty; echo $FOO"))

    assert result.stdout == b"not a tty\n\n"
