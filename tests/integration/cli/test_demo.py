"""`maand demo` on this machine: the story ends well, and nothing of it stays."""

import re
import tempfile
from pathlib import Path

import pytest

from tests.integration.cli.conftest import Maand

pytestmark = [pytest.mark.timeout(180), pytest.mark.xdist_group("demo")]


def test_the_demo_tells_its_story_and_cleans_up(maand: Maand) -> None:
    maand.environment["TMPDIR"] = tempfile.mkdtemp(prefix="md-", dir="/tmp")
    process = maand.start("demo")
    out, err = process.communicate(timeout=150)
    said = out + err
    assert process.returncode == 0, said
    for command in ("build", "worker trust", "deploy", "deploy --build", "hooks hook_migrate", "run_command", "health_check"):
        assert f"$ maand {command}" in out
    assert "nothing to do" in said
    assert re.search(r"api update: batch 1/2: 127\.0\.0\.11, 127\.0\.0\.12", said)
    assert "batch 2/2: 127.0.0.13" in said
    assert "all promoted" in out
    assert list(Path(maand.environment["TMPDIR"]).iterdir()) == []
    assert not any(b"MAAND_DEMO=" in environ(entry) for entry in Path("/proc").glob("[0-9]*/environ"))


def environ(entry: Path) -> bytes:
    try:
        return entry.read_bytes()
    except OSError:
        return b""


def test_without_rsync_it_says_how_to_get_it(maand: Maand, tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("bash", "make"):
        (programs / name).symlink_to(f"/usr/bin/{name}")
    maand.environment["PATH"] = str(programs)
    said = maand("demo")
    assert said.code == 3
    assert "needs rsync" in said.err
    assert "apt-get install rsync" in said.err
