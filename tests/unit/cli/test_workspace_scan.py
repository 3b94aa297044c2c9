import hashlib
import os
import time
from pathlib import Path

import pytest

from maand_cli import workspace_scan
from maand_cli.errors import InvalidFile, MissingPrerequisite
from maand_cli.workspace_scan import scan_workspace


def write(path: Path, text: str, *, old: bool = True) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    if old:
        os.utime(path, (time.time() - 100, time.time() - 100))


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    workspace = tmp_path / "workspace"
    write(workspace / "workers.json", "[]")
    write(workspace / "jobs/api/Makefile", "start:\n")
    return workspace


def paths(workspace: Path) -> list[str]:
    return [file.path for file in scan_workspace(workspace, workspace.parent / "cache.json")]


def test_only_what_maand_knows_is_sent(workspace: Path) -> None:
    for name in (
        "bucket.conf",
        "bucket.jobs.conf",
        "bucket.jobs.eu.conf",
        "disabled.json",
        "README.md",
        ".git/config",
        "jobs.txt",
    ):
        write(workspace / name, "x")
    assert paths(workspace) == [
        "bucket.conf",
        "bucket.jobs.conf",
        "bucket.jobs.eu.conf",
        "disabled.json",
        "jobs/api/Makefile",
        "workers.json",
    ]


def test_interpreters_directories_are_left_out_directly_under_hooks_only(workspace: Path) -> None:
    for name in (".venv", "venv", "node_modules", "__pycache__"):
        write(workspace / "jobs/api/_hooks" / name / "x", "x")
    write(workspace / "jobs/api/_hooks/lib/node_modules/x", "x")
    write(workspace / "jobs/api/venv/x", "x")
    assert paths(workspace) == [
        "jobs/api/Makefile",
        "jobs/api/_hooks/lib/node_modules/x",
        "jobs/api/venv/x",
        "workers.json",
    ]


def test_files_carry_mode_size_and_digest_and_links_their_target(workspace: Path) -> None:
    write(workspace / "jobs/api/run.sh", "echo\n")
    (workspace / "jobs/api/run.sh").chmod(0o755)
    (workspace / "jobs/api/dir").symlink_to("..")
    files = {file.path: file for file in scan_workspace(workspace, workspace.parent / "cache.json")}
    script = files["jobs/api/run.sh"]
    assert (script.mode, script.size, script.sha256) == (0o755, 5, hashlib.sha256(b"echo\n").digest())
    assert (files["jobs/api/dir"].link_target, files["jobs/api/dir"].sha256) == ("..", b"")


def test_an_unchanged_file_is_not_read_again(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = scan_workspace(workspace, workspace.parent / "cache.json")

    def read(path: Path) -> bytes:
        raise AssertionError(f"{path} was read")

    monkeypatch.setattr(workspace_scan, "file_sha256", read)
    assert scan_workspace(workspace, workspace.parent / "cache.json") == first


def test_a_file_changed_a_moment_ago_is_read_every_time(workspace: Path) -> None:
    cache = workspace.parent / "cache.json"
    makefile = workspace / "jobs/api/Makefile"
    write(makefile, "one", old=False)
    moment = makefile.stat().st_mtime_ns
    before = {file.path: file.sha256 for file in scan_workspace(workspace, cache)}
    makefile.write_text("two")
    os.utime(makefile, ns=(moment, moment))
    after = {file.path: file.sha256 for file in scan_workspace(workspace, cache)}
    assert before["jobs/api/Makefile"] != after["jobs/api/Makefile"]


@pytest.mark.parametrize("content", ["", "not json", "[]", '{"workers.json": [1]}'])
def test_a_broken_cache_is_as_none(content: str, workspace: Path) -> None:
    cache = workspace.parent / "cache.json"
    cache.write_text(content)
    assert len(scan_workspace(workspace, cache)) == 2


def test_what_cannot_be_stored_is_named(workspace: Path) -> None:
    os.mkfifo(workspace / "jobs/api/pipe")
    (workspace / "jobs/api" / os.fsdecode(b"\xff")).write_text("x")
    with pytest.raises(InvalidFile) as caught:
        scan_workspace(workspace, workspace.parent / "cache.json")
    assert sorted(problem.code for problem in caught.value.problems()) == ["not_a_file", "not_utf8"]


def test_without_a_workspace_there_is_nothing_to_build(tmp_path: Path) -> None:
    with pytest.raises(MissingPrerequisite, match="does not exist"):
        scan_workspace(tmp_path / "none", tmp_path / "cache.json")
