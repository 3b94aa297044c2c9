"""Real runs on real local services that need no worker: builds whose post_build hooks take their time."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.command_line import read_until
from tests.integration.cli.conftest import Maand, kill
from tests.waiting import wait_until

pytestmark = pytest.mark.timeout(120)

MANIFEST = {"version": "1.0.0", "selectors": ["worker"], "hooks": {"hook_slow": {"executed_on": ["post_build", "cli"]}}}

SLOW = """
import os, pathlib, time
place = pathlib.Path(os.environ["PLACE"])
with (place / "began").open("a") as began:
    began.write(f"{os.getpid()}\\n")
print("waiting", flush=True)
while not (place / "go").exists():
    time.sleep(0.05)
print("gone on", flush=True)
"""


@pytest.fixture
def place(maand: Maand, tmp_path: Path) -> Path:
    """Make a bucket with one job whose hook waits for a file, and return where it waits."""
    return a_waiting_job(maand, tmp_path)


def a_waiting_job(maand: Maand, place: Path) -> Path:
    """Give a bucket a job whose hook waits for a file at a place, which is returned."""
    job = maand.bucket / "workspace/jobs/app"
    (job / "_hooks").mkdir(parents=True)
    (job / "manifest.json").write_text(json.dumps(MANIFEST))
    (job / "Makefile").write_text("start stop restart:\n\ttrue\n")
    (job / "_hooks/hook_slow.py").write_text(SLOW)
    (maand.bucket / "workspace/workers.json").write_text('[{"host": "127.0.0.9"}]')
    conf = maand.bucket / "maand.conf"
    conf.write_text(conf.read_text() + 'hook_env = ["PLACE", "MAAND_PROGRAM"]\n')
    maand.environment["PLACE"] = str(place)
    return place


def waiting(maand: Maand, place: Path, times: int = 1) -> None:
    """Wait until the hook has begun that often."""
    wait_until(lambda: began(place) >= times, seconds=80, what="the hook's beginning", told=maand.log)


def began(place: Path) -> int:
    path = place / "began"
    return len(path.read_text().splitlines()) if path.exists() else 0


def hook_pids(place: Path) -> list[int]:
    return [int(line) for line in (place / "began").read_text().splitlines()]


def is_gone(pid: int) -> bool:
    try:
        return "State:\tZ" in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return True


def end(process: "subprocess.Popen[str]") -> tuple[int, str]:
    out, err = process.communicate(timeout=60)
    return process.returncode, out + err


def test_after_kill_9_of_the_host_the_command_brings_it_back_and_the_run_goes_on(maand: Maand, place: Path) -> None:
    building = maand.start("build")
    waiting(maand, place)
    killed = maand.services()["pid"]
    kill(killed)
    waiting(maand, place, times=2)
    (place / "go").touch()
    code, said = end(building)
    assert code == 0, said
    assert "reconnecting" in said
    assert "app@127.0.0.9 | gone on" in said
    assert maand.services()["pid"] != killed
    wait_until(lambda: all(map(is_gone, hook_pids(place))), what="the end of every hook")


def test_the_death_of_the_host_is_known_for_certain_by_its_lock_and_no_lease_is_waited_for(maand: Maand, place: Path) -> None:
    building = maand.start("build", "-o", "jsonl")
    waiting(maand, place)
    kill(maand.services()["pid"])
    (place / "go").touch()
    code, said = end(building)
    assert code == 0, said
    told = [line["notice"] for line in map(json.loads, said.splitlines()) if "notice" in line]
    assert [notice["claim_end"] for notice in told] == ["executor_died"], "not lease_lost: that comes 15 s later"


def test_ctrl_c_twice_ends_the_hook_now(maand: Maand, place: Path) -> None:
    building = maand.start("build")
    waiting(maand, place)
    building.send_signal(signal.SIGINT)
    assert building.stderr
    read_until(building, "after the current batch")
    building.send_signal(signal.SIGINT)
    code, said = end(building)
    assert code == 130, said
    wait_until(lambda: is_gone(hook_pids(place)[0]), what="the hook's end")
    [run] = json.loads(maand.must("runs", "list", "-o", "json").out)
    assert run["state"] == "cancelled"


def test_a_second_build_is_told_who_holds_the_bucket_or_waits_for_it(maand: Maand, place: Path) -> None:
    first = maand.start("build")
    waiting(maand, place)
    refused = maand("build")
    assert refused.code == 6
    assert "build" in refused.err
    assert "@" in refused.err, "it says by whom"
    second = maand.start("build", "--lock-timeout", "60")
    (place / "go").touch()
    assert end(first)[0] == 0
    assert end(second)[0] == 0


def test_after_kill_9_of_everything_the_next_build_follows_the_one_that_goes_on_and_does_its_own(
    maand: Maand, place: Path
) -> None:
    first = maand.start("build")
    waiting(maand, place)
    kill(maand.services()["pid"])
    first.kill()
    second = maand.start("build")
    waiting(maand, place, times=2)
    (place / "go").touch()
    code, said = end(second)
    assert code == 0, said
    assert "was interrupted and is being continued" in said
    ran = json.loads(maand.must("runs", "list", "-o", "json").out)
    assert [run["state"] for run in ran] == ["succeeded", "succeeded"]
    assert began(place) == 3, "the hook of the first was repeated, the second ran its own"


def test_after_kill_9_of_the_command_alone_its_run_is_somebodys_and_says_how_to_follow_it(maand: Maand, place: Path) -> None:
    first = maand.start("build")
    waiting(maand, place)
    first.kill()
    refused = maand("build")
    assert refused.code == 6
    assert "maand runs watch" in refused.err
    (place / "go").touch()
    assert maand("build", "--lock-timeout", "60").code == 0


def test_detach_leaves_and_watch_attaches(maand: Maand, place: Path) -> None:
    run_id = maand.must("build", "--detach").out.strip()
    waiting(maand, place)
    watching = maand.start("runs", "watch", run_id)
    (place / "go").touch()
    code, said = end(watching)
    assert code == 0
    assert "app@127.0.0.9 | waiting" in said
    assert "gone on" in maand.must("logs", run_id).out


def test_a_timeout_ends_the_run_with_124(maand: Maand, place: Path) -> None:
    del place
    said = maand("build", "--timeout", "1s")
    assert said.code == 124, said


def test_a_command_inside_a_hook_joins_the_hooks_run(maand: Maand, place: Path) -> None:
    del place
    hook = maand.bucket / "workspace/jobs/app/_hooks/hook_slow.py"
    hook.write_text(
        "import subprocess, sys\n"
        f"words = [{sys.executable!r}, '-m', 'maand_cli', 'gc', '--bucket', {str(maand.bucket)!r}]\n"
        "sys.exit(subprocess.run(words).returncode)\n"
    )
    said = maand("build")
    assert said.code == 0, said
    runs = {run["kind"]: run for run in json.loads(maand.must("runs", "list", "-o", "json").out)}
    assert runs["gc"]["parent_run_id"] == runs["build"]["run_id"]


def test_secrets_are_written_rotated_and_revealed(maand: Maand, place: Path) -> None:
    (place / "go").touch()
    maand.must("build")
    (place / "value").write_text("s3cret value")
    maand.must("secret", "set", "app", "token", "-f", str(place / "value"))
    keys = (maand.bucket / "secrets/kv.key").read_text().splitlines()
    maand.must("secret", "rotate")
    assert (maand.bucket / "secrets/kv.key").read_text().splitlines()[: len(keys)] == keys
    [info] = json.loads(maand.must("secret", "list", "app", "-o", "json").out)
    newest = (maand.bucket / "secrets/kv.key").read_text().splitlines()[-1].partition(":")[0]
    assert info["key_id"] == newest
    assert maand.must("secret", "reveal", "app", "token").out == "s3cret value\n"


@pytest.mark.parametrize("kind", ["manifest", "workers", "disabled", "maand.conf"])
def test_schemas_are_printed(kind: str, maand: Maand) -> None:
    schema = json.loads(maand.must("schema", kind).out)
    assert "$schema" in schema or "type" in schema


def test_a_key_that_others_can_read_is_told_by_every_run(maand: Maand) -> None:
    assert "SSH key" not in maand.must("build").err
    key = maand.bucket / "secrets/worker.key"
    key.chmod(0o640)
    assert f"maand: others can read the SSH key {key}; close it: chmod 600 {key}" in maand.must("build").err


STUBBORN = """
import subprocess, sys
deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
subprocess.Popen([sys.executable, "-c", deaf], start_new_session=True)
"""
"""A child that is only ended by KILL: the older claim of the run is wound up long after the run was claimed again."""


def test_a_host_frozen_for_longer_than_its_lease_goes_on_with_its_run_and_claims_the_next(maand: Maand, place: Path) -> None:
    (maand.bucket / "workspace/jobs/app/_hooks/hook_slow.py").write_text(STUBBORN + SLOW)
    building = maand.start("build")
    waiting(maand, place)
    host = maand.services()["pid"]
    freeze(host, seconds=LEASE_SECONDS + 3)
    waiting(maand, place, times=2)
    (place / "go").touch()
    code, said = end(building)
    assert code == 0, said
    wait_until(lambda: "outcome='lost'" in maand.log(), what="the end of the older claim", told=maand.log)
    maand.must("build")
    assert maand.services()["pid"] == host


def test_a_host_that_stays_frozen_is_named_to_who_follows_and_goes_on_with_the_run_later(maand: Maand, place: Path) -> None:
    building = maand.start("build")
    waiting(maand, place)
    host = maand.services()["pid"]
    os.kill(host, signal.SIGSTOP)
    said = building.communicate(timeout=100)[1]
    os.kill(host, signal.SIGCONT)
    assert building.returncode == 7, said
    assert f"process {host} is stopped" in said
    (place / "go").touch()
    run = json.loads(maand.must("runs", "list", "-o", "json").out)[0]
    maand.must("runs", "watch", run["run_id"])
    assert maand.services()["pid"] == host


LEASE_SECONDS = 15


def freeze(pid: int, *, seconds: float) -> None:
    """Stop a process for so long: as a machine does that sleeps, or is moved."""
    os.kill(pid, signal.SIGSTOP)
    try:
        time.sleep(seconds)
    finally:
        os.kill(pid, signal.SIGCONT)
