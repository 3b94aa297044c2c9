"""The local services' life, with real processes: started by whoever needs them, one host a bucket, gone when idle."""

import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from tests.integration.cli.conftest import Maand, kill
from tests.waiting import wait_until

pytestmark = pytest.mark.timeout(120)


def hosts(bucket: Path) -> list[int]:
    """Find the host processes of a bucket."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = entry.read_bytes().split(b"\0")
        except OSError:
            continue
        if b"maand_local" in words and str(bucket).encode() in words:
            found.append(int(entry.parent.name))
    return found


def test_the_first_command_starts_the_services_and_the_next_uses_them(maand: Maand) -> None:
    assert json.loads(maand.must("services", "status", "-o", "json").out) == {"running": False}
    maand.must("runs", "list")
    first = maand.services()
    maand.must("runs", "list")
    assert maand.services() == first
    status = json.loads(maand.must("services", "status", "-o", "json").out)
    assert (status["running"], status["pid"]) == (True, first["pid"])
    assert (maand.bucket / "run/services.json").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("umask", [0o000, 0o077], ids=["open", "private"])
def test_what_services_make_is_the_owner_s_whatever_umask_the_first_command_had(maand: Maand, umask: int) -> None:
    shutil.rmtree(maand.bucket / "logs")
    job = maand.bucket / "workspace/jobs/api"
    (job / "_hooks").mkdir(parents=True)
    (job / "Makefile").write_text("start:\n")
    (job / "manifest.json").write_text(
        json.dumps({"selectors": ["worker"], "hooks": {"hook_h": {"executed_on": ["post_build"]}}})
    )
    (job / "_hooks/hook_h.py").write_text("import os; print('umask', oct(os.umask(0)))")
    (maand.bucket / "workspace/workers.json").write_text('[{"host": "127.0.0.1"}]')
    build = maand.start("build", umask=umask)
    said = build.communicate(timeout=60)[1]
    assert build.returncode == 0, said
    assert "umask 0o22" in said, "hooks make files as a login shell would"
    own = [path for name in ("data", "run", "logs", "tmp") for path in ((maand.bucket / name), *(maand.bucket / name).rglob("*"))]
    ignored = (".gitignore", "workspace-digests.json", "maand-demo")
    shared = {str(path) for path in own if path.name not in ignored and not path.is_symlink() and path.stat().st_mode & 0o077}
    assert shared == set()


def test_stop_stops_and_may_be_repeated(maand: Maand) -> None:
    maand.must("services", "start")
    assert "stopped process" in maand.must("services", "stop").err
    assert not (maand.bucket / "run/services.json").exists()
    wait_until(lambda: hosts(maand.bucket) == [], what="the process's end")
    assert "not running" in maand.must("services", "stop").err


def test_first_commands_at_once_start_one_host(maand: Maand) -> None:
    commands = [maand.start("runs", "list") for _ in range(5)]
    for command in commands:
        _, err = command.communicate(timeout=60)
        assert command.returncode == 0, err
    wait_until(lambda: hosts(maand.bucket) == [maand.services()["pid"]], what="that those who came too late leave")


def test_a_second_host_leaves_and_says_who_serves(maand: Maand) -> None:
    maand.must("services", "start")
    second = subprocess.run(
        [sys.executable, "-m", "maand_local", "--bucket", str(maand.bucket)], capture_output=True, text=True, check=False
    )
    assert second.returncode == 75
    assert f'"pid": {maand.services()["pid"]}' in second.stdout


def test_after_kill_9_of_the_host_the_next_command_works(maand: Maand) -> None:
    maand.must("kv", "set", "vars/notes", "kept", "yes")
    killed = maand.services()["pid"]
    kill(killed)
    assert maand.services()["pid"] == killed, "the file it left behind is stale"
    assert maand.must("kv", "get", "vars/notes", "kept").out == "yes\n"
    assert maand.services()["pid"] != killed


@pytest.mark.parametrize("content", ["", "{}", "not json", '{"pid": 1, "catalog": "unix:/nowhere"}'])
def test_a_stale_or_broken_services_json_is_not_believed(content: str, maand: Maand) -> None:
    (maand.bucket / "run/services.json").write_text(content)
    maand.must("runs", "list")
    assert maand.services()["pid"] == hosts(maand.bucket)[0]


def copy_of(maand: Maand, name: str) -> Maand:
    """Copy a bucket with everything in it, as `cp -a` does, sockets and the services' record included."""
    copied = maand.bucket.with_name(name)
    subprocess.run(["cp", "-a", str(maand.bucket), str(copied)], check=True)
    return Maand(bucket=copied)


def test_a_copied_bucket_never_talks_to_the_services_of_the_original(maand: Maand) -> None:
    maand.must("kv", "set", "vars/notes", "name", "original")
    copied = copy_of(maand, "copy")
    try:
        assert json.loads(copied.must("services", "status", "-o", "json").out) == {"running": False}
        assert "not running" in copied.must("services", "stop").err, "a copy does not stop the original's services either"
        copied.must("kv", "set", "vars/notes", "name", "copy")
        assert copied.services()["pid"] != maand.services()["pid"]
        assert maand.must("kv", "get", "vars/notes", "name").out == "original\n"
        assert copied.must("kv", "get", "vars/notes", "name").out == "copy\n"
    finally:
        copied.end()


def test_a_copied_bucket_with_sockets_outside_of_it_has_its_own_too(tmp_path: Path) -> None:
    directory = tmp_path / ("d" * 80)
    directory.mkdir()
    maand = Maand(bucket=directory)
    maand.must("init")
    maand.must("services", "start")
    copied = copy_of(maand, "e" * 80)
    try:
        copied.must("services", "start")
        assert copied.services()["catalog"] != maand.services()["catalog"]
    finally:
        copied.end()
        maand.end()


def test_a_run_directory_brought_from_another_bucket_is_not_believed(maand: Maand, tmp_path: Path) -> None:
    other = Maand(bucket=tmp_path / "other")
    other.bucket.mkdir()
    other.must("init")
    other.must("services", "start")
    try:
        subprocess.run(["cp", "-a", f"{other.bucket}/run/.", str(maand.bucket / "run")], check=True)
        maand.must("kv", "set", "vars/notes", "name", "here")
        assert maand.services()["pid"] != other.services()["pid"]
        assert other("kv", "get", "vars/notes", "name").code == 1
    finally:
        other.end()


def test_a_bucket_moved_under_its_services_goes_on_where_it_is_now(maand: Maand) -> None:
    maand.must("kv", "set", "vars/notes", "kept", "yes")
    before = maand.services()["pid"]
    was = maand.bucket
    maand.bucket = was.rename(was.with_name("moved"))
    try:
        assert maand.must("kv", "get", "vars/notes", "kept").out == "yes\n"
        assert maand.services()["pid"] != before
        assert maand.services()["bucket"] == str(maand.bucket)
        wait_until(lambda: hosts(was) == [], what="the end of the services that were left behind")
        assert not was.exists()
    finally:
        maand.end()
        maand.bucket = maand.bucket.rename(was)


def test_services_of_a_moved_bucket_leave_the_copy_alone_that_stands_in_its_place(maand: Maand) -> None:
    maand.must("kv", "set", "vars/notes", "kept", "yes")
    before = maand.services()["pid"]
    moved = Maand(bucket=maand.bucket.with_name("moved"))
    maand.bucket.rename(moved.bucket)
    subprocess.run(["cp", "-a", str(moved.bucket), str(maand.bucket)], check=True)
    try:
        wait_until(lambda: before not in hosts(maand.bucket), what="the end of the services that were left behind")
        maand.must("kv", "set", "vars/notes", "kept", "no")
        assert maand.services()["bucket"] == str(maand.bucket)
        assert moved.must("kv", "get", "vars/notes", "kept").out == "yes\n"
        assert maand.must("kv", "get", "vars/notes", "kept").out == "no\n"
    finally:
        moved.end()


def test_services_that_hold_a_moved_bucket_and_do_not_leave_are_named_at_once(maand: Maand) -> None:
    maand.must("services", "start")
    pid = maand.services()["pid"]
    was = maand.bucket
    os.kill(pid, signal.SIGSTOP)  # it cannot notice anything
    maand.bucket = was.rename(was.with_name("moved"))
    try:
        said = maand("runs", "list")
        assert said.code == 7
        assert f"services of this bucket were started in {was} and still run (process {pid})" in said.err
        assert "help: maand services stop" in said.err
    finally:
        os.kill(pid, signal.SIGCONT)
        maand.end()
        maand.bucket = maand.bucket.rename(was)


def test_services_that_are_stopped_are_named_at_once_and_go_on(maand: Maand) -> None:
    maand.must("services", "start")
    pid = maand.services()["pid"]
    os.kill(pid, signal.SIGSTOP)
    for command in (("runs", "list"), ("deploy",)):
        said = maand(*command)
        assert said.code == 7, said
        assert f"the services of this bucket do not answer: process {pid} is stopped" in said.err
        assert f"help: let it go on: kill -CONT {pid}" in said.err
    os.kill(pid, signal.SIGCONT)
    maand.must("runs", "list")
    assert maand.services()["pid"] == pid


def test_services_that_are_stopped_can_be_ended(maand: Maand) -> None:
    maand.must("services", "start")
    os.kill(maand.services()["pid"], signal.SIGSTOP)
    maand.must("services", "stop")
    wait_until(lambda: hosts(maand.bucket) == [], what="the end of the services")


def test_a_bucket_reached_through_a_link_has_the_same_services(maand: Maand) -> None:
    maand.must("services", "start")
    link = maand.bucket.with_name("link")
    link.symlink_to(maand.bucket)
    through = Maand(bucket=link)
    assert json.loads(through.must("services", "status", "-o", "json").out)["pid"] == maand.services()["pid"]
    through.must("runs", "list")
    assert len(hosts(maand.bucket)) == 1


def test_a_record_that_names_no_directory_is_of_an_older_maand(maand: Maand) -> None:
    maand.must("services", "start")
    record = {name: value for name, value in maand.services().items() if name not in ("bucket", "device", "inode")}
    (maand.bucket / "run/services.json").write_text(json.dumps({**record, "version": "0.0.1"}))
    said = maand("runs", "list")
    assert said.code == 7
    assert "run maand 0.0.1" in said.err
    copied = copy_of(maand, "copy")
    try:
        copied.must("runs", "list")
        assert copied.services()["pid"] != record["pid"]
    finally:
        copied.end()


def test_services_of_another_version_are_named_with_the_remedy(maand: Maand) -> None:
    maand.must("services", "start")
    path = maand.bucket / "run/services.json"
    path.write_text(json.dumps({**maand.services(), "version": "0.0.1"}))
    said = maand("runs", "list")
    assert said.code == 7
    assert "run maand 0.0.1" in said.err
    assert "help: maand services stop" in said.err
    maand.must("services", "stop")
    maand.must("runs", "list")


def test_when_port_8080_is_taken_hooks_are_told_a_free_one(maand: Maand) -> None:
    with socket.socket() as ours:
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        wait_until(lambda: is_told_another_port(maand, ours), seconds=60, what="that hooks are told a free port")


def is_told_another_port(maand: Maand, ours: socket.socket) -> bool:
    """Start the services while the usual port is taken: by us, or by somebody else, who may leave it just now."""
    with suppress(OSError):
        ours.bind(("127.0.0.1", 8080))
        ours.listen()
    maand.must("services", "start")
    if maand.services()["hook_api"] != "127.0.0.1:8080":
        return True
    maand.must("services", "stop")
    return False


def test_an_idle_host_leaves_by_itself(maand: Maand) -> None:
    maand.environment["MAAND_IDLE_SECONDS"] = "1"
    maand.must("runs", "list")
    wait_until(lambda: hosts(maand.bucket) == [], what="the host's leaving")
    assert not (maand.bucket / "run/services.json").exists()
    assert "reason='idle'" in maand.log()


def test_a_long_log_is_put_aside_at_start(maand: Maand) -> None:
    log = maand.bucket / "logs/services.log"
    log.write_bytes(b"x" * (10 * 1024 * 1024 + 1))
    maand.must("services", "start")
    assert log.stat().st_size < 1024 * 1024
    assert log.with_name("services.log.1").stat().st_size > 10 * 1024 * 1024


def test_a_bucket_with_a_long_path_has_its_sockets_elsewhere(tmp_path: Path) -> None:
    directory = tmp_path / ("d" * 80)
    directory.mkdir()
    maand = Maand(bucket=directory)
    maand.must("init")
    try:
        maand.must("runs", "list")
        place = Path(maand.services()["catalog"].removeprefix("unix:")).parent
        assert place.name.startswith(f"maand-{os.getuid()}-")
        assert place.stat().st_mode & 0o777 == 0o700
    finally:
        maand.end()


def test_a_host_that_cannot_start_says_why(maand: Maand) -> None:
    (maand.bucket / "data/maand.db").write_bytes(b"this is no database" * 100)
    said = maand("runs", "list")
    assert said.code == 7
    why = f"the catalog's database {maand.bucket}/data/maand.db is damaged (SQLite: file is not a database)"
    assert f"error: the local services did not start: {why}\n  help: `maand services stop`, keep a copy" in said.err
    assert "maand-catalog restore" in said.err


def test_a_log_that_cannot_be_written_keeps_nobody_from_serving(maand: Maand) -> None:
    shutil.rmtree(maand.bucket / "logs")
    (maand.bucket / "logs").write_text("in the way")
    maand.must("kv", "set", "vars/notes", "key", "value")
    assert maand.must("kv", "get", "vars/notes", "key").out == "value\n"


@pytest.mark.parametrize("descriptors", [24, 63])
def test_too_few_descriptors_are_named_with_the_remedy(maand: Maand, descriptors: int) -> None:
    said = maand_under("-n", descriptors, maand, "runs", "list")
    assert said.returncode == 7, said
    assert "help: raise `ulimit -n` where the services are started" in said.stderr
    maand.must("runs", "list")


@pytest.mark.parametrize("mebibytes", [250, 1200])
def test_too_little_memory_is_named_with_the_remedy(maand: Maand, mebibytes: int) -> None:
    said = maand_under("-v", mebibytes * 1024, maand, "runs", "list")
    assert said.returncode == 7, said
    assert f"{mebibytes * 1024} KiB of address space are too few" in said.stderr
    assert "help: raise `ulimit -v` where the services are started" in said.stderr
    maand.must("runs", "list")


def maand_under(limit: str, value: int, maand: Maand, *command: str, seconds: int = 60) -> "subprocess.CompletedProcess[str]":
    """Run a command, and the services it starts, under a limit of the shell."""
    words = ("bash", "-c", f'ulimit {limit} {value} && exec "$@"', "limited", sys.executable, "-m", "maand_cli", *command)
    return subprocess.run(words, cwd=maand.bucket, capture_output=True, text=True, timeout=seconds, check=False)


def test_a_bad_idle_setting_is_named(maand: Maand) -> None:
    maand.environment["MAAND_IDLE_SECONDS"] = "soon"
    said = maand("runs", "list")
    assert said.code == 7
    assert "MAAND_IDLE_SECONDS" in said.err


def test_a_directory_that_is_no_bucket_is_refused(maand: Maand, tmp_path: Path) -> None:
    said = maand("runs", "list", "--bucket", str(tmp_path / "nothing"))
    assert said.code == 3
    assert "maand init" in said.err


def test_a_broken_maand_conf_is_told_with_its_position_and_starts_nothing(maand: Maand) -> None:
    conf = maand.bucket / "maand.conf"
    conf.write_text(conf.read_text() + "ssh_port = = 22\n")
    said = maand("build")
    assert said.code == 3
    assert f"maand.conf:{len(conf.read_text().splitlines())}:" in said.err
    assert hosts(maand.bucket) == []


def test_an_unknown_setting_is_told_with_the_nearest_known_one(maand: Maand) -> None:
    conf = maand.bucket / "maand.conf"
    conf.write_text(conf.read_text() + "ssh_prot = 22\n")
    said = maand("build")
    assert said.code == 3
    assert f"maand.conf:{len(conf.read_text().splitlines())}:1" in said.err
    assert 'did you mean "ssh_port"?' in said.err


def test_the_host_answers_sigterm_and_leaves_the_database_whole(maand: Maand) -> None:
    maand.must("services", "start")
    os.kill(maand.services()["pid"], signal.SIGTERM)
    wait_until(lambda: hosts(maand.bucket) == [], what="the orderly stop")
    with sqlite3.connect(maand.bucket / "data/maand.db") as database:
        assert database.execute("pragma integrity_check").fetchone() == ("ok",)


def test_a_pipe_that_closes_early_is_no_error(maand: Maand) -> None:
    maand.must("services", "start")
    process = maand.start("services", "logs", "-n", "10000")
    assert process.stdout
    assert process.stderr
    process.stdout.close()
    assert process.wait(60) == 0, process.stderr.read()
    process.stderr.close()
