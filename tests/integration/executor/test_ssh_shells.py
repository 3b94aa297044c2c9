"""Whatever login shell the SSH user has, and whatever it prints by itself: commands and copies work, or it is said why not."""

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest

from maand_executor.rules.worker_scripts import parse_preflight, preflight_script
from maand_executor.ssh.copy import RemoteCopy
from maand_executor.ssh.errors import BashNotStarted
from tests.integration.executor.ssh_support import command, fact, remote_of
from tests.testbed.fixtures import MakeTestBed
from tests.testbed.sshd import SshTestBed
from tests.testbed.worker import SshWorker


@dataclass(frozen=True, kw_only=True)
class LoginShell:
    """A login shell that Debian ships, and the file it reads before each command, if it reads one."""

    path: str
    start_up_file: str = ""
    noise: str = "echo welcome; echo careful >&2; printf 'no line end'"


SHELLS = {
    "bash": LoginShell(path="/bin/bash", start_up_file=".bashrc"),
    "busybox": LoginShell(path="/usr/local/sbin/ash"),
    "csh": LoginShell(
        path="/bin/bsd-csh", start_up_file=".cshrc", noise="echo welcome; echo careful > /dev/stderr; echo -n 'no line end'"
    ),
    "dash": LoginShell(path="/bin/dash"),
    "fish": LoginShell(path="/usr/bin/fish", start_up_file=".config/fish/config.fish"),
    "ksh": LoginShell(path="/bin/ksh93"),
    "mksh": LoginShell(path="/bin/mksh"),
    "tcsh": LoginShell(
        path="/bin/tcsh", start_up_file=".tcshrc", noise="echo welcome; echo careful > /dev/stderr; echo -n 'no line end'"
    ),
    "zsh": LoginShell(path="/usr/bin/zsh", start_up_file=".zshenv"),
}


def start_worker(make_test_bed: MakeTestBed, shell: LoginShell) -> tuple[SshWorker, SshTestBed]:
    bed = make_test_bed(shell=shell.path)
    worker = bed.new_worker()
    worker.path("/usr/local/sbin/ash").symlink_to("/bin/busybox")
    if shell.start_up_file:
        file = worker.home / shell.start_up_file
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{shell.noise}\n")
    worker.start()
    return worker, bed


@pytest.mark.parametrize("name", SHELLS)
async def test_commands_and_copies_work_with_every_login_shell(name: str, make_test_bed: MakeTestBed, tmp_path: Path) -> None:
    worker, bed = start_worker(make_test_bed, SHELLS[name])
    source = tmp_path / "source"
    source.mkdir()
    (source / "file").write_bytes(bytes(range(256)) * 100)
    script = """printf '%s\\n' "$WORD" 'it'"'"'s' "$(cat)"; exit 7"""
    word = "$HOME `id` !! \\ 'q' \"d\" %s\nnext line"

    async with remote_of(bed) as remote:
        for sudo in (False, True):
            told = await remote.run(fact(worker), command(script, sudo=sudo, environment={"WORD": word}, stdin=b"input"))
            await remote.copy(
                fact(worker), RemoteCopy(source=source, target=f"/opt/copied-{sudo}" if sudo else "copied", sudo=sudo)
            )
            assert (told.exit_code, told.stdout.decode()) == (7, f"{word}\nit's\ninput\n")
        ready = await remote.run(fact(worker), command(preflight_script(sudo=True)))
        ended = await remote.run(fact(worker), command("sleep 4321", timeout=timedelta(seconds=1)))

    assert parse_preflight(ready.stdout.decode()) == parse_preflight("")
    assert ended.timed_out
    assert not [line for line in worker.processes() if "4321" in line]
    for copied in (worker.home / "copied/file", worker.path("/opt/copied-True/file")):
        assert copied.read_bytes() == (source / "file").read_bytes()


@pytest.mark.parametrize(
    ("shell", "words"),
    [
        ("/usr/sbin/nologin", "This account is currently not available"),
        ("/bin/false", "exit code 1: no output"),
        ("/bin/rbash", "exec: restricted"),
        ("/usr/local/sbin/git-shell", "exit code 128: fatal: unrecognized command"),
    ],
)
@pytest.mark.parametrize("captured", [0, 1000])
async def test_a_login_shell_that_runs_nothing_is_named(
    shell: str, words: str, captured: int, make_test_bed: MakeTestBed
) -> None:
    bed = make_test_bed(shell=shell)
    worker = bed.new_worker()
    worker.stand_in("git-shell", "#!/bin/sh\necho 'fatal: unrecognized command' >&2; exit 128\n")
    worker.start()

    async with remote_of(bed) as remote:
        with pytest.raises(BashNotStarted, match=words) as refused:
            await remote.run(fact(worker), command("true", capture_limit=captured))

    assert "chsh -s /bin/bash USER" in refused.value.help


async def test_a_worker_without_bash_is_named(make_test_bed: MakeTestBed) -> None:
    bed = make_test_bed(shell="/bin/dash")
    worker = bed.new_worker()
    worker.hide("bash")
    worker.start()

    async with remote_of(bed) as remote:
        with pytest.raises(BashNotStarted, match="bash: not found") as refused:
            await remote.run(fact(worker), command("true"))

    assert "install bash" in refused.value.help
