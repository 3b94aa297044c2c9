import hashlib
import json
import mmap
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from maand_cli.errors import InvalidFile, MissingPrerequisite
from maand_cli.local import workspace_scan
from maand_cli.local.workspace_scan import scan_workspace


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
    settled(workspace, workspace.parent / "cache.json")
    first = scan_workspace(workspace, workspace.parent / "cache.json")

    def read(path: Path) -> bytes:
        raise AssertionError(f"{path} was read")

    monkeypatch.setattr(workspace_scan, "hash_file", read)
    assert scan_workspace(workspace, workspace.parent / "cache.json") == first


def settled(path: Path, cache: Path) -> dict[str, bytes]:
    """Scan until the file's digest is kept, so that the next scan would trust its marks."""
    until = time.monotonic() + 10
    while True:
        files = scan_workspace(path, cache)
        if cache.exists() and "jobs/api/Makefile" in json.loads(cache.read_text()):
            return {file.path: file.sha256 for file in files}
        assert time.monotonic() < until
        time.sleep(0.05)


def copied_over(file: Path, other: Path) -> None:
    shutil.copystat(file, other)
    subprocess.run(["cp", "-p", str(other), str(file)], check=True)


def touched_back(file: Path, other: Path) -> None:
    before = file.stat()
    file.write_bytes(other.read_bytes())
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def moved_over(file: Path, other: Path) -> None:
    shutil.copystat(file, other)
    other.replace(file)


def linked_over(file: Path, other: Path) -> None:
    shutil.copystat(file, other)
    file.unlink()
    file.hardlink_to(other)


def written_in_place(file: Path, other: Path) -> None:
    before = file.stat()
    with file.open("r+b") as open_file:
        open_file.write(other.read_bytes())
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def written_through_a_map(file: Path, other: Path) -> None:
    before = file.stat()
    with file.open("r+b") as open_file, mmap.mmap(open_file.fileno(), 0) as mapped:
        mapped[:] = other.read_bytes()
        mapped.flush()
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize(
    "replace",
    [copied_over, touched_back, moved_over, linked_over, written_in_place, written_through_a_map],
    ids=lambda way: way.__name__,
)
def test_another_content_of_equal_size_and_time_is_seen(replace: Callable[[Path, Path], None], workspace: Path) -> None:
    cache, makefile, other = workspace.parent / "cache.json", workspace / "jobs/api/Makefile", workspace.parent / "other"
    write(makefile, "version=1.0.1\n")
    os.utime(makefile, (1, 1))
    before = settled(workspace, cache)
    other.write_text("version=1.0.2\n")
    status = makefile.stat()

    replace(makefile, other)

    assert (makefile.stat().st_size, makefile.stat().st_mtime_ns) == (status.st_size, status.st_mtime_ns)
    after = {file.path: file.sha256 for file in scan_workspace(workspace, cache)}
    assert after["jobs/api/Makefile"] == hashlib.sha256(b"version=1.0.2\n").digest() != before["jobs/api/Makefile"]


def test_a_file_whose_times_lie_in_the_past_is_read_until_its_change_is_two_seconds_old(workspace: Path) -> None:
    cache, makefile = workspace.parent / "cache.json", workspace / "jobs/api/Makefile"
    os.utime(makefile, (1, 1))
    scan_workspace(workspace, cache)
    assert not cache.exists() or "jobs/api/Makefile" not in json.loads(cache.read_text())


def test_a_changed_mode_is_seen_though_the_content_is_known(workspace: Path) -> None:
    cache = workspace.parent / "cache.json"
    settled(workspace, cache)
    (workspace / "jobs/api/Makefile").chmod(0o600)
    assert [file.mode for file in scan_workspace(workspace, cache) if file.path == "jobs/api/Makefile"] == [0o600]


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


@pytest.mark.parametrize(
    "content", ["", "not json", "[]", '{"workers.json": [1]}', '{"workers.json": null}', '{"workers.json": [2, 1, 1, "00"]}']
)
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


def test_links_and_files_in_place_of_directories_are_sent_for_the_compiler_to_refuse(workspace: Path) -> None:
    (workspace / "jobs").rename(workspace.parent / "real")
    (workspace / "jobs").symlink_to("../real")
    assert paths(workspace) == ["jobs", "workers.json"]
    (workspace / "jobs").unlink()
    (workspace / "jobs").write_text("../real")
    assert paths(workspace) == ["jobs", "workers.json"]


@pytest.mark.parametrize("target", ["../../elsewhere", "nowhere", "/dev/null", "."])
def test_a_link_in_place_of_a_job_is_sent(target: str, workspace: Path) -> None:
    write(workspace.parent / "elsewhere/Makefile", "x")
    (workspace / "jobs/db").symlink_to(target)
    files = {file.path: file.link_target for file in scan_workspace(workspace, workspace.parent / "cache.json")}
    assert files["jobs/db"] == target


def test_a_link_to_a_workspace_elsewhere_is_followed(workspace: Path) -> None:
    link = workspace.parent / "link"
    link.symlink_to(workspace)
    assert paths(link) == paths(workspace)


@pytest.mark.parametrize("inside", ["", "_hooks/.venv/bin"])
def test_a_job_directory_without_files_is_an_error(inside: str, workspace: Path) -> None:
    (workspace / "jobs/db" / inside).mkdir(parents=True)
    if inside:
        write(workspace / "jobs/db" / inside / "python", "x")
    with pytest.raises(InvalidFile) as caught:
        paths(workspace)
    problem = caught.value.problems()[0]
    assert (problem.code, problem.file) == ("missing_file", "workspace/jobs/db/manifest.json")
    assert "submodule" in problem.help


def test_a_link_in_place_of_an_interpreters_directory_is_left_out(workspace: Path) -> None:
    write(workspace / "jobs/api/_hooks/hook_a.py", "x")
    (workspace / "jobs/api/_hooks/.venv").symlink_to("/usr")
    assert "jobs/api/_hooks/.venv" not in paths(workspace)


def test_all_that_cannot_be_read_is_told_at_once_with_its_path() -> None:
    with unprivileged(), tempfile.TemporaryDirectory() as name:
        workspace = Path(name) / "workspace"
        for closed in ("jobs/api/closed", "jobs/db"):
            write(workspace / closed / "file", "x")
            (workspace / closed).chmod(0)
        write(workspace / "jobs/api/secret", "x")
        (workspace / "jobs/api/secret").chmod(0)
        os.mkfifo(workspace / "workers.json")
        with pytest.raises(InvalidFile) as caught:
            paths(workspace)
        found = [(problem.file, problem.message) for problem in caught.value.problems()]
        for closed in ("jobs/api/closed", "jobs/db"):
            (workspace / closed).chmod(0o700)
    assert found == [
        ("workspace/jobs/api/closed", "the directory cannot be read: Permission denied"),
        ("workspace/jobs/api/secret", "cannot be read: Permission denied"),
        ("workspace/jobs/db", "the directory cannot be read: Permission denied"),
        ("workspace/workers.json", "this is neither a file nor a symbolic link"),
    ]


@contextmanager
def unprivileged() -> Iterator[None]:
    """Be nobody while the block runs: root may read everything. Used outside of tmp_path, which only root may enter."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_without_a_workspace_there_is_nothing_to_build(tmp_path: Path) -> None:
    with pytest.raises(MissingPrerequisite, match="does not exist"):
        scan_workspace(tmp_path / "none", tmp_path / "cache.json")


def test_a_file_in_place_of_the_workspace_is_named(tmp_path: Path) -> None:
    (tmp_path / "workspace").write_text("../elsewhere")
    with pytest.raises(MissingPrerequisite, match="is not a directory"):
        scan_workspace(tmp_path / "workspace", tmp_path / "cache.json")


# Directories ------------------------------------------------------------------------------------------------------------


def directories(workspace: Path) -> dict[str, int]:
    scanned = scan_workspace(workspace, workspace.parent / "cache.json")
    return {file.path: file.mode for file in scanned if file.directory}


def make_directory(path: Path, mode: int = 0o755) -> None:
    path.mkdir(parents=True, exist_ok=True)
    path.chmod(mode)


def test_directories_that_hold_nothing_or_have_a_chosen_mode_are_sent(workspace: Path) -> None:
    make_directory(workspace / "jobs/api/spool")
    make_directory(workspace / "jobs/api/deep/er/empty")
    write(workspace / "jobs/api/conf/a.conf", "x")
    for name, mode in (("priv", 0o700), ("group", 0o770), ("open", 0o777), ("shared", 0o2775)):
        write(workspace / f"jobs/api/{name}/file", "x")
        make_directory(workspace / f"jobs/api/{name}", mode)
    assert directories(workspace) == {
        "jobs/api/deep/er/empty": 0o755,
        "jobs/api/group": 0o770,
        "jobs/api/priv": 0o700,
        "jobs/api/spool": 0o755,
    }


def test_no_directory_of_hooks_nor_outside_of_a_job_is_sent(workspace: Path) -> None:
    make_directory(workspace / "jobs/api/_hooks/lib/empty", 0o700)
    make_directory(workspace / "jobs/api/_hooks", 0o700)
    make_directory(workspace / "jobs/api", 0o700)
    make_directory(workspace / "elsewhere")
    assert directories(workspace) == {}


def test_a_job_of_nothing_but_directories_is_refused(workspace: Path) -> None:
    make_directory(workspace / "jobs/empty/spool")
    with pytest.raises(InvalidFile) as caught:
        paths(workspace)
    assert [problem.file for problem in caught.value.problems()] == ["workspace/jobs/empty/manifest.json"]


# Size and what is lost --------------------------------------------------------------------------------------------------


def test_files_that_are_too_large_are_named_with_their_size_and_not_read(workspace: Path) -> None:
    for name, size in (("big.bin", 65 << 20), ("fits.bin", 64 << 20), ("bigger.bin", 2 << 30)):
        with (workspace / "jobs/api" / name).open("wb") as file:
            file.truncate(size)
    make_directory(workspace / "jobs/empty")
    with pytest.raises(InvalidFile) as caught:
        paths(workspace)
    assert [(problem.code, problem.file, problem.message) for problem in caught.value.problems()] == [
        ("file_too_large", "workspace/jobs/api/big.bin", "the file has 65.0 MiB, the limit is 64 MiB"),
        ("file_too_large", "workspace/jobs/api/bigger.bin", "the file has 2048.0 MiB, the limit is 64 MiB"),
        ("missing_file", "workspace/jobs/empty/manifest.json", workspace_scan.NO_FILES),
    ]


def test_setuid_is_told_and_not_sent(workspace: Path) -> None:
    (workspace / "jobs/api/Makefile").chmod(0o4755)
    (file,) = (file for file in scan_workspace(workspace, workspace.parent / "cache.json") if file.path.endswith("Makefile"))
    assert (file.mode, file.warning) == (
        0o755,
        "workspace/jobs/api/Makefile: its setuid and setgid bits are not copied to workers",
    )
