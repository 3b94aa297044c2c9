"""Connections to real OpenSSH servers: shared, paced, limited, judged, and lost."""

import asyncio
import os
import resource
import signal
import subprocess
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from maand_executor.rules.facts import HostKeyPolicy, Worker
from maand_executor.ssh.errors import (
    AuthenticationRefused,
    CannotConnect,
    ConnectionLost,
    ConnectionUnusable,
    HostKeyChanged,
    HostKeyUnknown,
    KeyUnusable,
    KnownHostsUnreadable,
    WorkerUnreachable,
)
from maand_executor.ssh.host_keys import PinState
from maand_executor.ssh.settings import SshSettings
from tests.integration.executor.ssh_support import IMPATIENT, command, fact, remote_of
from tests.testbed.fixtures import MakeTestBed
from tests.testbed.sshd import SshTestBed
from tests.testbed.worker import Cut, SshWorker


def logins(worker: SshWorker) -> int:
    return worker.log.read_text().count("Accepted publickey")


def add_key(agent: str, key: Path) -> None:
    subprocess.run(["ssh-add", "-q", str(key)], env={**os.environ, "SSH_AUTH_SOCK": agent}, check=True)


# Sharing and limits ---------------------------------------------------------------------------------------------------------


async def test_everybody_shares_one_login_even_when_they_come_together(test_bed: SshTestBed) -> None:
    worker = test_bed.start_worker()

    async with remote_of(test_bed) as remote:
        await asyncio.gather(*(remote.run(fact(worker), command("true")) for _ in range(20)))
        await remote.connect(fact(worker))

        assert (logins(worker), remote.open_connections) == (1, 1)


async def test_logins_that_default_max_startups_drops_are_tried_again(test_bed: SshTestBed) -> None:
    crowd = test_bed.start_crowd(60)

    async with remote_of(test_bed, ssh_port=crowd.port, ssh_starts_per_second=1000, settings=SshSettings()) as remote:
        results = await asyncio.gather(*(remote.run(Worker(name=host), command("echo ok")) for host in crowd.hosts))

    assert [result.stdout for result in results] == [b"ok\n"] * 60


async def test_logins_begin_no_faster_than_the_bucket_allows(test_bed: SshTestBed) -> None:
    crowd = test_bed.start_crowd(15)
    begun = time.monotonic()

    async with remote_of(test_bed, ssh_port=crowd.port, ssh_starts_per_second=10) as remote:
        await asyncio.gather(*(remote.connect(Worker(name=host)) for host in crowd.hosts))

    assert time.monotonic() - begun >= 0.5  # ten at once, five more at ten a second


async def test_no_more_connections_are_open_than_allowed_and_all_workers_are_served(test_bed: SshTestBed) -> None:
    crowd = test_bed.start_crowd(12)
    most = 0

    async with remote_of(test_bed, ssh_port=crowd.port, max_ssh_sessions=4, ssh_starts_per_second=1000) as remote:

        async def work(host: str) -> bytes:
            nonlocal most
            result = await remote.run(Worker(name=host), command("sleep 0.05; echo ok"))
            most = max(most, remote.open_connections)
            return result.stdout

        outputs = await asyncio.gather(*(work(host) for host in (*crowd.hosts, *crowd.hosts)))

    assert outputs == [b"ok\n"] * 24
    assert most <= 4


# Who may log in where -------------------------------------------------------------------------------------------------------


async def test_an_unknown_host_key_is_refused_with_the_command_that_pins_it(test_bed: SshTestBed) -> None:
    worker = test_bed.start_worker()

    async with remote_of(test_bed, pinned=False) as remote:
        with pytest.raises(HostKeyUnknown) as refused:
            await remote.connect(fact(worker))
        (key,) = await remote.scan_host_keys(fact(worker))

        assert f"maand worker trust -w {worker.host}" in refused.value.help
        assert refused.value.facts["fingerprint"] == key.fingerprint
        assert remote.host_key_states(fact(worker), [key]) == (PinState.UNKNOWN,)

        await remote.pin_host_keys([remote.make_pin(fact(worker), [key])])
        await remote.connect(fact(worker))

    known_hosts = test_bed.directory / "secrets" / "known_hosts"
    assert known_hosts.read_text() == worker.known_hosts_lines
    assert known_hosts.stat().st_mode & 0o777 == 0o600


async def test_a_changed_host_key_is_refused_even_by_accept_new(test_bed: SshTestBed) -> None:
    worker = test_bed.start_worker()

    async with remote_of(test_bed, host_keys=HostKeyPolicy.ACCEPT_NEW) as remote:
        worker.change_host_key()
        with pytest.raises(HostKeyChanged) as refused:
            await remote.connect(fact(worker))
        keys = await remote.scan_host_keys(fact(worker))

        assert f"maand worker trust -w {worker.host} --force" in refused.value.help
        assert remote.host_key_states(fact(worker), keys) == (PinState.CHANGED,)

        await remote.pin_host_keys([remote.make_pin(fact(worker), keys, replace=True)])
        await remote.connect(fact(worker))


async def test_a_worker_without_any_key_of_the_pinned_kind_has_changed(test_bed: SshTestBed) -> None:
    worker = test_bed.start_worker()

    async with remote_of(test_bed) as remote:
        worker.change_host_key("ecdsa")
        with pytest.raises(HostKeyChanged):
            await remote.connect(fact(worker))


async def test_accept_new_pins_at_first_sight(test_bed: SshTestBed) -> None:
    worker = test_bed.start_worker()

    async with remote_of(test_bed, pinned=False, host_keys=HostKeyPolicy.ACCEPT_NEW) as remote:
        await remote.connect(fact(worker))

    assert (test_bed.directory / "secrets" / "known_hosts").read_text() == worker.known_hosts_lines


async def test_a_key_the_worker_does_not_know_is_refused_once(test_bed: SshTestBed, make_test_bed: MakeTestBed) -> None:
    worker = test_bed.start_worker()
    stranger = make_test_bed()
    secrets = test_bed.directory / "secrets"
    test_bed.write_secrets(secrets)
    (secrets / "worker.key").write_bytes(stranger.key.read_bytes())

    async with remote_of(test_bed, secrets=secrets) as remote:
        with pytest.raises(AuthenticationRefused, match='"agent"') as refused:
            await remote.connect(fact(worker))

    assert "authorized_keys" in refused.value.help
    assert worker.log.read_text().count("Connection closed by authenticating user agent") <= 1


async def test_a_missing_key_and_an_unreadable_known_hosts_are_named(test_bed: SshTestBed) -> None:
    worker = test_bed.start_worker()
    secrets = test_bed.directory / "secrets"
    test_bed.write_secrets(secrets)

    async with remote_of(test_bed, secrets=secrets, ssh_key="other.key") as remote:
        with pytest.raises(KeyUnusable, match=r"other\.key"):
            await remote.connect(fact(worker))
    (secrets / "known_hosts").write_text("just-one-word\n")
    async with remote_of(test_bed, secrets=secrets) as remote:
        with pytest.raises(KnownHostsUnreadable, match="just-one-word"):
            await remote.connect(fact(worker))


async def test_a_key_that_was_replaced_in_secrets_is_used_at_the_next_login(
    test_bed: SshTestBed, make_test_bed: MakeTestBed
) -> None:
    worker = test_bed.start_worker()
    secrets = test_bed.directory / "secrets"
    test_bed.write_secrets(secrets)
    (secrets / "worker.key").write_bytes(make_test_bed().key.read_bytes())

    async with remote_of(test_bed, secrets=secrets) as remote:
        with pytest.raises(AuthenticationRefused):
            await remote.connect(fact(worker))
        (secrets / "worker.key").unlink()
        test_bed.write_secrets(secrets)
        await remote.connect(fact(worker))


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[str]:
    socket = f"{tmp_path}/agent.sock"
    process = subprocess.Popen(["ssh-agent", "-D", "-a", socket], stdout=subprocess.DEVNULL)
    while not Path(socket).exists():
        time.sleep(0.01)
    yield socket
    process.send_signal(signal.SIGTERM)
    process.wait()


async def test_without_a_key_file_the_agents_keys_are_used(
    test_bed: SshTestBed, agent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = test_bed.start_worker()
    add_key(agent, test_bed.key)
    monkeypatch.setenv("SSH_AUTH_SOCK", agent)

    async with remote_of(test_bed, ssh_key="") as remote:
        await remote.connect(fact(worker))


async def test_a_jump_host_is_logged_in_to_once_for_everybody_behind_it(test_bed: SshTestBed, tmp_path: Path) -> None:
    jump, *workers = test_bed.start_workers(4)
    config = tmp_path / "ssh_config"
    config.write_text(f"Host {jump.host}\n  User agent\n  Port {jump.port}\nHost 127.*\n  ProxyJump {jump.host}\n")
    config.write_text(f"Host {' '.join(one.host for one in workers)}\n  ProxyJump agent@{jump.host}:{jump.port}\n")

    async with remote_of(test_bed, ssh_config=str(config)) as remote:
        scripts = [remote.run(fact(worker), command("echo ${SSH_CONNECTION%% *}")) for worker in workers]
        results = await asyncio.gather(*scripts)
        keys = await remote.scan_host_keys(fact(workers[0]))

    assert all(result.ok for result in results)
    assert logins(jump) == 1
    assert [logins(worker) for worker in workers] == [1, 1, 1]
    assert len(keys) == 1


# Trouble --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("how", "words"), [("drop", "within 2 s"), ("reset", "Connection refused")])
async def test_a_worker_cut_off_before_is_unreachable(test_bed: SshTestBed, how: Cut, words: str) -> None:
    worker = test_bed.start_worker()

    async with remote_of(test_bed, settings=IMPATIENT) as remote:
        with worker.cut_off(how), pytest.raises(WorkerUnreachable, match=words) as unreachable:
            await remote.run(fact(worker), command("true"))
        assert type(unreachable.value) is WorkerUnreachable
        await remote.run(fact(worker), command("true"))


@pytest.mark.parametrize("how", ["drop", "reset"])
async def test_a_worker_cut_off_during_a_command_is_noticed_and_the_command_is_not_repeated(
    test_bed: SshTestBed, how: Cut
) -> None:
    worker = test_bed.start_worker()
    started = asyncio.Event()

    async with remote_of(test_bed, settings=IMPATIENT) as remote:
        running = asyncio.create_task(
            remote.run(fact(worker), command("echo x >>runs; echo up; sleep 4321"), on_output=lambda *_: started.set())
        )
        await asyncio.wait_for(started.wait(), 60)
        with worker.cut_off(how):
            with pytest.raises(ConnectionLost):
                await asyncio.wait_for(running, 60)
        await remote.run(fact(worker), command("true"))

    assert (worker.home / "runs").read_text() == "x\n"


async def test_a_frozen_worker_is_lost_and_one_that_thaws_is_reached_again(test_bed: SshTestBed) -> None:
    worker = test_bed.start_worker()

    async with remote_of(test_bed, settings=IMPATIENT) as remote:
        await remote.connect(fact(worker))
        with worker.frozen(), pytest.raises(WorkerUnreachable):
            await asyncio.wait_for(remote.run(fact(worker), command("true")), 60)
        assert (await remote.run(fact(worker), command("echo back"))).stdout == b"back\n"


async def test_a_connection_that_died_while_idle_is_opened_again(test_bed: SshTestBed) -> None:
    worker = test_bed.start_worker()

    async with remote_of(test_bed) as remote:
        await remote.run(fact(worker), command("true"))
        worker.stop()
        worker.start()
        assert (await remote.run(fact(worker), command("echo back"))).stdout == b"back\n"


async def test_a_server_that_speaks_no_ssh_is_no_sign_of_a_dead_worker(test_bed: SshTestBed) -> None:
    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, remote_of(test_bed, ssh_port=port, settings=IMPATIENT) as remote:
        with pytest.raises(ConnectionUnusable, match="drops logins"):
            await remote.connect(Worker(name="127.0.0.1"))


async def test_a_jump_host_that_is_down_is_no_sign_of_dead_workers_behind_it(test_bed: SshTestBed, tmp_path: Path) -> None:
    jump, worker = test_bed.start_workers(2)
    config = tmp_path / "ssh_config"
    config.write_text(f"Host {worker.host}\n  ProxyJump agent@{jump.host}:{jump.port}\n")

    async with remote_of(test_bed, ssh_config=str(config), settings=IMPATIENT) as remote:
        with jump.cut_off("reset"), pytest.raises(ConnectionUnusable, match=r"^127\.\S+: jump host .*refused"):
            await remote.connect(fact(worker))


async def test_an_ssh_config_that_is_missing_or_broken_is_this_side_s_fault(test_bed: SshTestBed, tmp_path: Path) -> None:
    worker = test_bed.start_worker()
    broken = tmp_path / "broken"
    broken.write_text("Match nonsense\n")

    for config in (tmp_path / "missing", broken):
        async with remote_of(test_bed, ssh_config=str(config)) as remote:
            with pytest.raises(CannotConnect, match=r"the ssh_config of maand.conf, .* cannot be"):
                await remote.connect(fact(worker))


async def test_running_out_of_descriptors_is_this_side_s_fault(test_bed: SshTestBed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGNAME", "tester")  # else asyncssh opens /etc/passwd for it
    first, second = test_bed.start_workers(2)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)

    async with remote_of(test_bed) as remote:
        await remote.connect(fact(first))
        lowest_free = os.dup(0)
        os.close(lowest_free)
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, hard))
            with pytest.raises(CannotConnect, match="Too many open files"):
                await remote.connect(fact(second))
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_a_name_that_is_not_known_is_unreachable(test_bed: SshTestBed) -> None:
    async with remote_of(test_bed) as remote:
        with pytest.raises(WorkerUnreachable, match=r"no-such-worker\.invalid"):
            await remote.connect(Worker(name="no-such-worker.invalid"))


async def test_giving_up_one_wait_leaves_the_login_to_the_others(test_bed: SshTestBed) -> None:
    worker = test_bed.start_worker()

    async with remote_of(test_bed) as remote:
        hasty = asyncio.create_task(remote.connect(fact(worker)))
        patient = asyncio.create_task(remote.connect(fact(worker)))
        await asyncio.sleep(0)
        hasty.cancel()
        await asyncio.wait_for(patient, 60)

    assert hasty.cancelled() or hasty.cancelling()
    assert logins(worker) == 1


async def test_a_command_that_times_out_on_a_cut_off_worker_returns_in_time(test_bed: SshTestBed) -> None:
    worker = test_bed.start_worker()
    started = asyncio.Event()

    async with remote_of(test_bed, settings=SshSettings(grace=timedelta(seconds=1))) as remote:
        running = asyncio.create_task(
            remote.run(
                fact(worker),
                command("echo up; sleep 4321", timeout=timedelta(seconds=1)),
                on_output=lambda *_: started.set(),
            )
        )
        await asyncio.wait_for(started.wait(), 60)
        with worker.cut_off():
            result = await asyncio.wait_for(running, 30)

    assert result.timed_out
    assert not result.end_known
