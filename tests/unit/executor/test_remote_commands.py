"""Remote commands as text: exact, quoted, and never telling a secret."""

import subprocess
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maand_executor.rules.facts import WorkerFence
from maand_executor.rules.remote_commands import (
    BOOTSTRAP,
    HostCheck,
    Opening,
    RemoteCommand,
    Watch,
    command_line,
    limit_seconds,
    make_order,
)

WATCH = Watch(grace=timedelta(seconds=5), silence=timedelta(seconds=30))


def lines_of(command: RemoteCommand, **options: object) -> list[str]:
    text, _, _ = make_order(command, watch=WATCH, **options).partition(b"\0")  # type: ignore[arg-type]  # options of order
    return text.decode().removeprefix(BOOTSTRAP).splitlines()


def test_the_command_line_is_the_same_for_every_command_and_one_that_every_login_shell_takes() -> None:
    line = command_line(sudo=False)

    assert line.startswith("exec bash --noprofile --norc -c 'IFS= read ")
    assert command_line(sudo=True) == line.replace("exec bash", "exec sudo -n bash")
    assert line.count("'") == 2  # nothing to escape
    assert not set("!\\\n`") & set(line)
    assert len(line) < 200


def test_the_bootstrap_is_valid_bash_and_each_of_its_bytes_a_character() -> None:
    assert BOOTSTRAP.isascii()
    assert subprocess.run(["bash", "-n"], input=BOOTSTRAP.encode(), check=False).returncode == 0


def test_an_order_exports_then_begins_then_changes_directory_then_runs() -> None:
    command = RemoteCommand(
        script="make start", sudo=True, environment={"JOB": "a b"}, directory="/opt/x y", timeout=timedelta(seconds=300)
    )

    assert lines_of(command) == [
        "export JOB='a b'",
        "maand_begin 311 5 30 0",
        "cd -- '/opt/x y' 2>/dev/null || maand_refuse directory",
        "maand_say begun",
        "unset maand_order",
        "eval 'make start'",
    ]


def test_the_commands_own_input_follows_the_order() -> None:
    command = RemoteCommand(script="cat", sudo=False, stdin=b"a\0b")
    text, _, rest = make_order(command, watch=WATCH).partition(b"\0")

    assert rest == b"a\0b"
    assert b"maand_begin 100000000 5 30 3" in text


def test_an_optional_directory_is_no_condition() -> None:
    command = RemoteCommand(script="true", sudo=False, directory="d", directory_optional=True)

    assert "cd -- d 2>/dev/null || true" in lines_of(command)


@pytest.mark.parametrize(
    "command",
    [
        RemoteCommand(script="a\0b", sudo=False),
        RemoteCommand(script="a", sudo=False, environment={"A": "x\0y"}),
        RemoteCommand(script="a", sudo=False, environment={"A B": "x"}),
        RemoteCommand(script="a", sudo=False, environment={"1A": "x"}),
        RemoteCommand(script="a", sudo=False, environment={"": "x"}),
    ],
)
def test_what_bash_cannot_hold_is_refused_here(command: RemoteCommand) -> None:
    with pytest.raises(ValueError, match=r"NUL|variable"):
        make_order(command, watch=WATCH)


def test_a_fence_and_a_host_check_come_before_the_command_begins() -> None:
    command = RemoteCommand(script="true", sudo=True, fence=WorkerFence(epoch=3, seq=7, number=2), check_host=True)
    check = HostCheck(path="/w/b/worker.json", bucket_id="b", worker_id="w")

    lines = lines_of(command, fence_directory="/w/b", host_check=check)

    begun = lines.index("maand_say begun")
    assert lines.index("if [[ -e /w/b/worker.json ]]; then") < begun
    assert lines.index("flock -x 4 || maand_refuse fence_lock") < begun
    assert lines[-2:] == ["{ eval true", "} 5<&-"]


def test_the_workers_own_limit_comes_after_ours() -> None:
    assert limit_seconds(timedelta(seconds=1.5)) == 12
    assert limit_seconds(None) > 10**7


def test_neither_command_nor_result_shows_what_may_be_secret() -> None:
    command = RemoteCommand(script="hunter2", sudo=False, environment={"A": "hunter2"}, stdin=b"hunter2")

    assert "hunter2" not in repr(command)


ANY_TEXT = st.text(alphabet=st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=60)


@given(value=ANY_TEXT)
def test_any_value_reaches_the_environment_unchanged(value: str) -> None:
    command = RemoteCommand(script='printf %s "$VALUE"', sudo=False, environment={"VALUE": value})
    text, _, _ = make_order(command, watch=WATCH).removeprefix(BOOTSTRAP.encode()).partition(b"\0")
    script = b"maand_begin() { :; }; maand_say() { :; }\n" + text

    done = subprocess.run(["bash", "--noprofile", "--norc", "-c", script], capture_output=True, check=True)

    assert done.stdout.decode() == value


# What the worker says first ---------------------------------------------------------------------------------------------------


def test_output_before_the_opening_line_is_noise() -> None:
    opening = Opening()

    assert opening.feed(b"welcome\n\x02maa") == b""
    assert opening.feed(b"nd begun\nreal ") == b"real "
    assert opening.feed(b"output\x02maand begun\n") == b"output\x02maand begun\n"
    assert opening.begun
    assert opening.noise == b"welcome\n"


def test_a_refusal_is_read_with_its_reasons() -> None:
    opening = Opening()
    opening.feed(b"\x02maand refused stale_fence 7 3\n")

    assert opening.words == ("refused", "stale_fence", "7", "3")
    assert not opening.begun


def test_endless_noise_is_not_kept() -> None:
    opening = Opening()
    for _ in range(100):
        opening.feed(b"x" * 10_000)

    assert len(opening.noise) <= Opening.MOST_NOISE
