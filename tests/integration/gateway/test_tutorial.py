"""The hooks tutorial, read and obeyed: its files are written, its commands run on real workers, its promises looked for."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.maand import Bucket
from tests.testbed.javascript import ROOT
from tests.testbed.sshd import SshTestBed

pytestmark = [pytest.mark.xdist_group("e2e"), pytest.mark.timeout(300)]

TUTORIAL = ROOT / "docs" / "hooks-tutorial.md"
BLOCK = re.compile(r"^```(\w+) ?(\S*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class Block:
    """One fenced block: a file to write, or commands with what they print."""

    language: str
    path: str
    text: str


def blocks() -> Iterator[Block]:
    """Read the tutorial."""
    for language, path, text in BLOCK.findall(TUTORIAL.read_text(encoding="utf-8")):
        yield Block(language=language, path=path, text=text)


def commands(text: str) -> Iterator[tuple[str, list[str]]]:
    """Split a console block into commands and the lines each is said to print."""
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        command, *printed = part.rstrip("\n").split("\n")
        yield command, printed


def run(bucket: Path, command: str) -> str:
    """Run one command as a person does; return everything it printed."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MAAND_")}
    path = f"{Path(sys.executable).parent}{os.pathsep}{kept.get('PATH', '')}"
    ended = subprocess.run(
        ["bash", "-c", command],
        cwd=bucket,
        env=kept | {"PATH": path, "MAAND_IDLE_SECONDS": "120"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    output = f"$ {command}\n{ended.stdout}{ended.stderr}"
    assert ended.returncode == 0, output
    return output


def test_every_command_of_the_tutorial_does_what_it_says(tmp_path: Path, test_bed: SshTestBed) -> None:
    hosts = {f"10.0.0.{number}": worker.host for number, worker in enumerate(test_bed.start_workers(3), 1)}
    bucket = Bucket(path=tmp_path / "bucket")
    bucket.path.mkdir()

    def here(text: str) -> str:
        return re.sub(r"10\.0\.0\.[123]", lambda found: hosts[found[0]], text)

    try:
        for block in blocks():
            if block.language != "console":
                bucket.write(block.path, here(block.text))
                continue
            for command, printed in commands(block.text):
                output = run(bucket.path, here(command)).lower()
                for line in printed:
                    assert here(line).lower() in output
            if "maand init" in block.text:
                bucket.configure(ssh_user=test_bed.user, ssh_port=test_bed.port)
                test_bed.write_secrets(bucket.path / "secrets")
    finally:
        bucket.stop_services()
