"""Commands on real OpenSSH workers: what they see, what comes back, and that nothing of them stays."""

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest

from maand_executor.rules.facts import Worker
from maand_executor.rules.remote_commands import Watch, command_line, make_order
from maand_executor.rules.worker_scripts import parse_preflight, preflight_script
from maand_executor.ssh.errors import CommandNotStarted, ConnectionLost, SudoRefused
from maand_executor.ssh.settings import SshSettings
from tests.integration.executor.ssh_support import IMPATIENT, command, fact, remote_of
from tests.testbed.fixtures import MakeTestBed
from tests.testbed.sshd import SshTestBed

NASTY = [
    "plain",
    "two  spaces and\ttab",
    "single ' double \" back ` slash \\",
    "$HOME $(id) ${x} !! *?[a]",
    "line\nbreak\r\n",
    "-n --help",
    "ümläut 漢字 🐙",
    "; rm -rf / #",
    "",
    "'",
    "\\",
    "$'\\x41'",
    "\x01\x1b[31m\x7f",
]


@pytest.mark.parametrize("sudo", [False, True])
async def test_output_exit_code_and_input_arrive(test_bed: SshTestBed, sudo: bool) -> None:
    worker = test_bed.start_worker()
    data = bytes(range(256)) * 4096

    async with remote_of(test_bed) as remote:
        result = await remote.run(fact(worker), command("cat; echo oops >&2; exit 3", sudo=sudo, stdin=data))

    assert (result.exit_code, result.stdout, result.stderr) == (3, data, b"oops\n")
    assert not result.timed_out
    assert not result.truncated


@pytest.mark.parametrize("sudo", [False, True])
async def test_a_command_runs_as_the_bucket_says_and_starts_in_the_users_home(test_bed: SshTestBed, sudo: bool) -> None:
    worker = test_bed.start_worker()

    async with remote_of(test_bed) as remote:
        result = await remote.run(fact(worker), command("id -un; pwd", sudo=sudo))

    assert result.stdout.decode().split() == ["root" if sudo else "agent", "/home/agent"]


@pytest.mark.parametrize("sudo", [False, True])
async def test_every_nasty_string_survives_environment_script_and_input(test_bed: SshTestBed, sudo: bool) -> None:
    worker = test_bed.start_worker()
    environment = {f"VALUE_{number}": text for number, text in enumerate(NASTY)}
    script = "\n".join(f'printf "%s\\0" "$VALUE_{number}"' for number in range(len(NASTY)))

    async with remote_of(test_bed) as remote:
        result = await remote.run(fact(worker), command(script, sudo=sudo, environment=environment))

    assert result.stdout.decode().split("\0")[:-1] == NASTY


async def test_environment_and_script_are_not_visible_in_ps(test_bed: SshTestBed) -> None:
    worker = test_bed.start_worker()
    seen: list[str] = []

    async with remote_of(test_bed) as remote:
        secret = {"PASSWORD": "hunter2-in-environment"}
        script = "token=hunter2-in-script; read -r line; ps axww; printenv PASSWORD >/dev/null"
        result = await remote.run(fact(worker), command(script, sudo=True, environment=secret, stdin=b"hunter2-in-input\n"))
        seen = result.stdout.decode().splitlines()

    assert any("bash --noprofile" in line for line in seen)
    assert not [line for line in seen if "hunter2" in line]


async def test_a_signal_is_reported_as_128_plus_its_number(test_bed: SshTestBed) -> None:
    worker = test_bed.start_worker()

    async with remote_of(test_bed) as remote:
        killed = await remote.run(fact(worker), command("kill -KILL $$"))
        child = await remote.run(fact(worker), command("bash -c 'kill -SEGV $$' 2>/dev/null"))

    assert killed.exit_code == 137
    assert child.exit_code == 139


async def test_output_is_streamed_while_the_command_runs(test_bed: SshTestBed) -> None:
    worker = test_bed.start_worker()
    heard: list[tuple[str, bytes]] = []
    first = asyncio.Event()

    def listen(stream: str, data: bytes) -> None:
        heard.append((stream, data))
        first.set()

    async with remote_of(test_bed) as remote:
        running = asyncio.create_task(
            remote.run(fact(worker), command("echo one; until [ -e go ]; do sleep 0.05; done; echo two >&2"), on_output=listen)
        )
        await asyncio.wait_for(first.wait(), 60)
        assert heard == [("stdout", b"one\n")]
        (worker.home / "go").touch()
        await running

    assert heard == [("stdout", b"one\n"), ("stderr", b"two\n")]


async def test_output_beyond_the_limit_is_cut_and_the_command_goes_on(test_bed: SshTestBed) -> None:
    worker = test_bed.start_worker()
    heard = 0

    def count(_stream: str, data: bytes) -> None:
        nonlocal heard
        heard += len(data)

    async with remote_of(test_bed) as remote:
        result = await remote.run(
            fact(worker), command("head -c 20000000 /dev/zero; exit 4", capture_limit=1000), on_output=count
        )

    assert (result.exit_code, len(result.stdout), result.truncated, heard) == (4, 1000, True, 20_000_000)


@pytest.mark.parametrize("sudo", [False, True])
async def test_a_timeout_ends_the_whole_remote_tree(test_bed: SshTestBed, sudo: bool) -> None:
    worker = test_bed.start_worker()
    script = "sleep 4321 & (sleep 4321; true) & set -m; sleep 4321 & echo ready; sleep 4321"

    async with remote_of(test_bed) as remote:
        result = await remote.run(fact(worker), command(script, sudo=sudo, timeout=timedelta(seconds=1.5)))

    assert (result.exit_code, result.timed_out, result.stdout) == (124, True, b"ready\n")
    await asyncio.to_thread(worker.wait_until_gone, "4321")


@pytest.mark.parametrize("sudo", [False, True])
async def test_what_ignores_term_is_killed_after_the_grace(test_bed: SshTestBed, sudo: bool) -> None:
    worker = test_bed.start_worker()
    script = "trap '' TERM; (trap '' TERM; while :; do sleep 0.1; done) & while :; do sleep 0.1; done"

    async with remote_of(test_bed) as remote:
        result = await remote.run(fact(worker), command(script, sudo=sudo, timeout=timedelta(seconds=0.3)))

        assert result.timed_out
        assert timedelta(seconds=1) < result.duration < timedelta(seconds=30)
        await asyncio.to_thread(worker.wait_until_gone, "noprofile")


async def test_the_grace_is_counted_by_the_clock_however_slow_the_worker_looks(test_bed: SshTestBed) -> None:
    worker = test_bed.start_worker()
    worker.stand_in("sleep", "#!/bin/sh\nexec /bin/sleep 4\n")  # each of ten looks a second; a loaded worker takes as long

    async with remote_of(test_bed) as remote:
        result = await remote.run(fact(worker), command("trap '' TERM; /bin/sleep 4321", timeout=timedelta(seconds=0.3)))

        assert result.timed_out
        assert result.end_known
        assert not [line for line in worker.processes() if "4321" in line]


async def test_a_command_has_not_ended_while_something_of_it_ignores_the_request(test_bed: SshTestBed) -> None:
    worker = test_bed.start_worker()

    async with remote_of(test_bed) as remote:
        script = "(trap '' TERM; exec sleep 4321) & echo $!; wait"  # bash itself ends at once
        result = await remote.run(fact(worker), command(script, timeout=timedelta(seconds=0.5)))

        assert result.end_known
        assert not [line for line in worker.processes() if "4321" in line]


async def test_a_cancel_whose_effect_is_not_known_is_told(test_bed: SshTestBed) -> None:
    worker = test_bed.start_worker()
    started = asyncio.Event()
    told: list[str] = []

    async with remote_of(test_bed, settings=SshSettings(grace=timedelta(), kill_time=timedelta(seconds=0.5))) as remote:
        running = asyncio.create_task(
            remote.telling(told.append).run(fact(worker), command("echo up; sleep 4321"), on_output=lambda *_: started.set())
        )
        await asyncio.wait_for(started.wait(), 60)
        with worker.frozen():
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running

    assert told == [
        f"a command on {worker.host} was told to end, and did not say that it has: look there before it is begun again"
    ]


@pytest.mark.parametrize("sudo", [False, True])
async def test_cancelling_ends_the_remote_tree(test_bed: SshTestBed, sudo: bool) -> None:
    worker = test_bed.start_worker()
    started = asyncio.Event()

    async with remote_of(test_bed) as remote:
        running = asyncio.create_task(
            remote.run(
                fact(worker),
                command("echo up; sleep 4321 & sleep 4321", sudo=sudo),
                on_output=lambda *_: started.set(),
            )
        )
        await asyncio.wait_for(started.wait(), 60)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

        await asyncio.to_thread(worker.wait_until_gone, "4321")  # a signal sent is not yet a process gone


async def test_what_a_command_leaves_behind_neither_blocks_it_nor_is_ended(test_bed: SshTestBed) -> None:
    worker = test_bed.start_worker()

    async with remote_of(test_bed) as remote:
        result = await remote.run(fact(worker), command("sleep 4321 & echo started"))

        assert (result.exit_code, result.stdout) == (0, b"started\n")
        assert [line for line in worker.processes() if "4321" in line]


@pytest.mark.parametrize("sudo", [False, True])
async def test_the_end_of_the_connection_ends_the_command(test_bed: SshTestBed, sudo: bool) -> None:
    worker = test_bed.start_worker()
    started = asyncio.Event()

    async with remote_of(test_bed) as remote:
        running = asyncio.create_task(
            remote.run(fact(worker), command("echo up; sleep 4321", sudo=sudo), on_output=lambda *_: started.set())
        )
        await asyncio.wait_for(started.wait(), 60)
        await remote.close()
        await asyncio.gather(running, return_exceptions=True)

    await asyncio.to_thread(worker.wait_until_gone, "4321")


async def test_noise_of_the_login_shell_is_no_output(test_bed: SshTestBed) -> None:
    worker = test_bed.start_worker()
    (worker.home / ".bashrc").write_text("echo welcome; cd /tmp 2>/dev/null; cd ~\n")

    async with remote_of(test_bed) as remote:
        result = await remote.run(fact(worker), command("echo mine"))

    assert result.stdout == b"mine\n"


async def test_a_long_script_and_a_syntax_error_are_no_surprise(test_bed: SshTestBed) -> None:
    worker = test_bed.start_worker()
    long_script = "x='" + "a" * 900_000 + "'\necho ${#x}"

    async with remote_of(test_bed) as remote:
        long = await remote.run(fact(worker), command(long_script))
        wrong = await remote.run(fact(worker), command("echo before\nif then"))

    assert long.stdout == b"900000\n"
    assert wrong.exit_code != 0
    assert b"syntax error" in wrong.stderr


async def test_a_missing_directory_is_an_error_unless_optional(test_bed: SshTestBed) -> None:
    worker = test_bed.start_worker()
    (worker.home / "it's here").mkdir()

    async with remote_of(test_bed) as remote:
        there = await remote.run(fact(worker), command("pwd", directory="it's here"))
        optional = await remote.run(fact(worker), command("pwd", directory="nowhere", directory_optional=True))
        with pytest.raises(CommandNotStarted, match="directory"):
            await remote.run(fact(worker), command("pwd", directory="nowhere"))

    assert there.stdout == b"/home/agent/it's here\n"
    assert optional.stdout == b"/home/agent\n"


async def test_a_nul_character_is_refused_before_anything_is_contacted(test_bed: SshTestBed) -> None:
    async with remote_of(test_bed) as remote:
        with pytest.raises(CommandNotStarted, match="NUL"):
            await remote.run(Worker(name="192.0.2.1"), command("echo a\0b"))


async def test_nothing_of_a_command_is_logged(test_bed: SshTestBed, caplog: pytest.LogCaptureFixture) -> None:
    worker = test_bed.start_worker()
    caplog.set_level("INFO")

    async with remote_of(test_bed) as remote:
        await remote.run(fact(worker), command("true"))

    assert not caplog.records


@pytest.mark.parametrize("captured", [0, 1000])
@pytest.mark.parametrize(
    ("rules", "words"),
    [
        ("agent ALL=(ALL) ALL", "sudo: a password is required"),
        ("Defaults requiretty\nagent ALL=(ALL) NOPASSWD: ALL", "sudo: sorry, you must have a tty to run sudo"),
    ],
)
async def test_sudo_that_refuses_is_told_in_its_own_words(
    rules: str, words: str, captured: int, make_test_bed: MakeTestBed
) -> None:
    bed = make_test_bed()
    (bed.directory / "shared" / "sudoers").write_text(f"root ALL=(ALL) NOPASSWD: ALL\n{rules}\n")
    worker = bed.start_worker()

    async with remote_of(bed) as remote:
        with pytest.raises(SudoRefused, match=words) as refused:
            await remote.run(fact(worker), command("true", sudo=True, capture_limit=captured))
        ready = await remote.run(fact(worker), command(preflight_script(sudo=True)))

    assert parse_preflight(ready.stdout.decode()).sudo_refusal == words
    assert "NOPASSWD" in refused.value.help
    assert "requiretty" in refused.value.help


async def test_a_thousand_commands_share_one_connection(test_bed: SshTestBed) -> None:
    worker = test_bed.start_worker()
    descriptors = open_descriptors()

    async with remote_of(test_bed) as remote:
        for batch in range(10):
            results = await asyncio.gather(
                *(remote.run(fact(worker), command(f"echo {number}")) for number in range(batch * 100, batch * 100 + 100))
            )
            assert [int(result.stdout) for result in results] == list(range(batch * 100, batch * 100 + 100))
        assert remote.open_connections == 1

    assert worker.log.read_text().count("Accepted publickey") == 1
    assert open_descriptors() <= descriptors + 1


@pytest.mark.parametrize("sudo", [False, True])
async def test_the_worker_ends_a_command_by_itself_when_the_executor_is_cut_off(test_bed: SshTestBed, sudo: bool) -> None:
    worker = test_bed.start_worker()
    started = asyncio.Event()

    async with remote_of(test_bed, settings=IMPATIENT) as remote:
        running = asyncio.create_task(
            remote.run(fact(worker), command("echo up; sleep 4321", sudo=sudo), on_output=lambda *_: started.set())
        )
        await asyncio.wait_for(started.wait(), 60)
        with worker.cut_off():
            with pytest.raises(ConnectionLost):
                await running
            await asyncio.to_thread(worker.wait_until_gone, "4321")


async def test_a_silent_command_lives_as_long_as_the_executor_is_heard(test_bed: SshTestBed) -> None:
    worker = test_bed.start_worker()

    async with remote_of(test_bed, settings=IMPATIENT) as remote:
        result = await remote.run(fact(worker), command("sleep 4.5; echo done"))  # more than two silences

    assert result.stdout == b"done\n"


async def test_the_worker_keeps_the_limit_when_nobody_else_does(test_bed: SshTestBed) -> None:
    worker = test_bed.start_worker()
    watch = Watch(grace=timedelta(seconds=1), silence=timedelta(seconds=60))
    order_text = make_order(command("sleep 4321", timeout=timedelta(seconds=300)), watch=watch).replace(
        b"maand_begin 311", b"maand_begin 1"
    )

    async with remote_of(test_bed) as remote, remote._pool.lease(remote._destination(fact(worker))) as link:
        process = await link.connection.create_process(command_line(sudo=False), encoding=None)
        process.stdin.write(order_text)
        done = await asyncio.wait_for(process.wait(), 60)

    assert done.exit_signal is not None
    assert not [line for line in worker.processes() if "4321" in line]


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))
