"""Every command of the specification is there, in both spellings, with the flags that all share, and starts fast."""

import json
import os
import resource
import subprocess
import sys
from importlib.metadata import version

import click
import pytest

import maand_cli
from maand_cli.click_groups import LazyGroup
from maand_cli.flags import GlobalOption
from maand_cli.root import COMMANDS, root
from tests.unit.cli.conftest import Maand

SPECIFIED = [
    "init",
    "build",
    "deploy",
    "hooks",
    "health_check",
    "run_command",
    "gc",
    "info",
    "version",
    "job",
    "worker",
    "cat",
    "kv",
    "secret",
    "semaphore",
    "runs",
    "logs",
    "context",
    "services",
    "schema",
    "demo",
    "completion",
]

SUBCOMMANDS = {
    "job": "start stop restart run status create",
    "worker": "list ping facts trust adopt forget",
    "cat": "workers jobs allocations deployments hooks ports certs kv",
    "kv": "get set delete list history restore",
    "secret": "set delete list reveal rotate",
    "semaphore": "list release",
    "runs": "list show watch cancel resume",
    "context": "list use add",
    "services": "start stop status logs",
}

CONTEXT = click.Context(root)


def leaves() -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = [("hooks", "test")]
    for name in COMMANDS:
        command = root.get_command(CONTEXT, name)
        if isinstance(command, LazyGroup):
            found += [(name, below) for below in command.list_commands(CONTEXT)]
        found.append((name,))
    return found


def test_every_command_of_the_specification_exists() -> None:
    assert set(COMMANDS) == set(SPECIFIED)
    for name, below in SUBCOMMANDS.items():
        group = root.get_command(CONTEXT, name)
        assert isinstance(group, LazyGroup)
        assert set(group.list_commands(CONTEXT)) == set(below.split())


@pytest.mark.parametrize("path", leaves(), ids=" ".join)
def test_every_command_has_help_with_a_sentence_and_the_shared_flags(path: tuple[str, ...], maand: Maand) -> None:
    said = maand(*path, "--help")
    assert said.code == 0
    assert f"Usage: maand {' '.join(path)}" in said.out
    assert "--lock-timeout" in said.out
    assert said.out.split("\n\n")[1].strip(), "a sentence says what it does"


@pytest.mark.parametrize(("snake", "kebab"), [("health_check", "health-check"), ("run_command", "run-command")])
def test_the_kebab_spelling_is_accepted_and_not_listed(snake: str, kebab: str, maand: Maand) -> None:
    assert maand(kebab, "--help").code == 0
    listing = maand("--help").out
    assert snake in listing
    assert kebab not in listing


def test_wrong_usage_is_exit_2_with_the_nearest_command(maand: Maand) -> None:
    said = maand("deploi")
    assert said.code == 2
    assert said.err == 'error: no such command "deploi"\n  help: did you mean "deploy"?\n'


@pytest.mark.parametrize(
    ("words", "near"),
    [(["deploy", "--dry-rnu"], "--dry-run"), (["schema", "manifst"], "manifest"), (["info", "-o", "jsn"], "json")],
)
def test_a_wrong_option_or_choice_is_answered_with_the_nearest_one(words: list[str], near: str, maand: Maand) -> None:
    said = maand(*words)
    assert said.code == 2
    assert f'  help: did you mean "{near}"?\n' in said.err
    assert "Did you mean" not in said.err


def test_wrong_usage_is_told_in_json_when_asked_for(maand: Maand) -> None:
    said = maand("deploy", "--nope", "-o", "json")
    assert said.code == 2
    assert json.loads(said.out)["errors"][0]["code"] == "usage"
    assert said.err == ""


def test_flags_are_accepted_before_and_after_the_command(maand: Maand) -> None:
    assert json.loads(maand("-o", "json", "version").out) == json.loads(maand("version", "-o", "json").out)


def test_the_version_is_the_distributions(maand: Maand) -> None:
    assert maand("--version").out == maand("version").out
    assert maand("version").out.strip() == maand_cli.__version__ == version("maand")


def test_outside_a_bucket_the_error_says_how_to_make_one(tmp_path_factory: pytest.TempPathFactory, maand: Maand) -> None:
    empty = tmp_path_factory.mktemp("empty")
    said = maand("deploy", "--bucket", str(empty))
    assert said.code == 3
    assert "maand init" in said.err


def test_every_command_declares_every_shared_flag_once() -> None:
    for path in leaves():
        command: click.Command | None = root
        for name in path if path != ("hooks", "test") else ("hooks",):
            assert isinstance(command, click.Group)
            command = command.get_command(CONTEXT, name)
        assert command is not None
        names = [param.name for param in command.params if isinstance(param, GlobalOption)]
        assert sorted(str(name) for name in names) == sorted(
            ["bucket", "context", "output", "quiet", "verbose", "color", "yes", "timeout", "lock_timeout"]
        )


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_are_printed(shell: str, maand: Maand) -> None:
    said = maand("completion", shell, "-q")
    assert said.code == 0
    assert "_MAAND_COMPLETE" in said.out


def complete(words: str, index: int, maand: Maand) -> list[str]:
    ended = subprocess.run(
        [sys.executable, "-m", "maand_cli"],
        env={"_MAAND_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(index), "PATH": "/usr/bin:/bin"},
        cwd=maand.bucket,
        capture_output=True,
        text=True,
        check=True,
    )
    return [line.partition(",")[2] for line in ended.stdout.splitlines()]


def test_completion_knows_commands_and_names_of_the_workspace(maand: Maand) -> None:
    assert complete("maand dep", 1, maand) == ["deploy"]
    assert complete("maand job re", 2, maand) == ["restart"]
    assert complete("maand job restart a", 3, maand) == ["api"]
    assert complete("maand run_command -w 10.0.0.1,", 3, maand) == ["10.0.0.1,10.0.0.1", "10.0.0.1,10.0.0.2"]


def test_help_and_completion_import_nothing_heavy() -> None:
    heavy = "{'grpc', 'rich', 'asyncio', 'google.protobuf', 'structlog', 'cryptography', 'asyncssh'}"
    script = (
        "import sys; from maand_cli.__main__ import run_command_line; "
        f"run_command_line(['--help']); print(sorted({heavy} & set(sys.modules)))"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ended.stdout.splitlines()[-1] == "[]"


def test_subcommand_modules_import_nothing_heavy() -> None:
    names = [f"maand_cli.commands.{entry.target.partition(':')[0].rpartition('.')[2]}" for entry in COMMANDS.values()]
    heavy = "{'grpc', 'rich', 'google.protobuf', 'structlog', 'cryptography', 'asyncssh'}"
    script = (
        f"import sys, importlib\nfor name in {names}: importlib.import_module(name)\nprint(sorted({heavy} & set(sys.modules)))"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "[]"


def test_reading_and_following_import_no_cryptography() -> None:
    script = "import sys, maand_cli.remote.listings, maand_cli.runs.conclude; print('cryptography' in sys.modules)"
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "False"


def cpu_seconds(*args: str, **environment: str) -> float:
    """Run the command line and return the processor time it took: what it costs, however busy the machine is."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [sys.executable, "-m", "maand_cli", *args], stdout=subprocess.DEVNULL, env={**os.environ, **environment}, check=True
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_help_and_completion_are_fast() -> None:
    completing = {"_MAAND_COMPLETE": "bash_complete", "COMP_WORDS": "maand deploy --jobs ", "COMP_CWORD": "3"}
    assert min(cpu_seconds("--help") for _ in range(3)) < 0.15
    assert min(cpu_seconds(**completing) for _ in range(3)) < 0.1
