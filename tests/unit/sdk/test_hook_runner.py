"""Running one hook without maand: what it is given, what is reported."""

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from maand_catalog.rules.workspace import manifest
from maand_hook_sdk import hook_runner, pytest_plugin
from maand_hook_sdk.hook_runner import HookTestError, HookTestReport, run_hook_test
from maand_hook_sdk.memory_state import BadState, MemoryState
from maand_hook_sdk.pytest_plugin import RunHook
from tests.testbed.javascript import find_bun
from tests.waiting import wait_until

run_hook = pytest_plugin.run_hook
"""The fixture, as `pytest_plugins` would give it."""


def make_job(directory: Path, script: str, *, name: str = "hook_x.py") -> Path:
    """Make a job with one hook."""
    hooks = directory / "api" / "_hooks"
    hooks.mkdir(parents=True)
    (hooks / name).write_text(script)
    return directory / "api"


def run(directory: Path, script: str, state: dict[str, Any] | None = None, **how: Any) -> HookTestReport:
    """Run a script as hook_x of job api."""
    return run_hook_test(make_job(directory, script), "hook_x", state=MemoryState.from_json(state or {}), **how)


def test_the_report_tells_output_calls_notices_and_the_store_afterwards(tmp_path: Path) -> None:
    script = """
from maand import *
print("hello")
notice("done")
put_job_variable("k", "v")
put_job_secret("s", "hush")
get_store_value("vars/job/other", "x")
"""

    report = run(tmp_path, script, {"kv": {"vars/job/api": {"old": "1"}}})

    assert report.ok
    assert report.stdout.splitlines()[0] == "hello"
    assert report.notices == ("done",)
    assert [(call.method, call.path, call.status) for call in report.calls] == [
        ("PUT", "/kv", 200),
        ("PUT", "/kv/secret", 200),
        ("GET", "/kv", 403),
    ]
    assert report.state["vars/job/api"] == {"k": "v", "old": "1"}
    assert report.state["secrets/job/api"] == {"s": "hush"}
    assert "hush" not in json.dumps(report.to_json()["calls"])


def test_a_hook_gets_the_environment_that_the_executor_gives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOT_FOR_HOOKS", "1")
    state = {
        "allocations": ["10.0.0.1", "10.0.0.2", "10.0.0.3"],
        "disabled": ["10.0.0.2"],
        "batch_size": 2,
        "current_version": "1.0.0",
        "new_version": "2.0.0",
        "environment": {"TARGET": "restart"},
    }

    report = run(
        tmp_path, "import os, json; print(json.dumps(dict(os.environ)))", state, allocation="10.0.0.3", event="job_control"
    )

    told = json.loads(report.stdout)
    assert "NOT_FOR_HOOKS" not in told
    expected = {
        "ALLOCATION_IP": "10.0.0.3",
        "ALLOCATION_INDEX": "2",
        "JOB": "api",
        "EVENT": "job_control",
        "HOOK": "hook_x",
        "DISABLED": "0",
        "CURRENT_VERSION": "1.0.0",
        "NEW_VERSION": "2.0.0",
        "BATCH_INDEX": "1",
        "BATCH_COUNT": "2",
        "BATCH_ALLOCATIONS": "10.0.0.3",
        "ROLLOUT_ORDER": "10.0.0.1,10.0.0.2,10.0.0.3",
        "ROLLOUT_ORDER_SOURCE": "default",
        "DEPLOY_PHASE": "job_control",
        "TARGET": "restart",
    }
    assert {name: told[name] for name in expected} == expected


def test_a_hook_runs_in_its_directory_with_its_arguments_and_a_copy_of_the_job(tmp_path: Path) -> None:
    script = "import os, sys, pathlib; print(os.path.basename(os.getcwd()), sys.argv[1:]); pathlib.Path('x').write_text('')"

    report = run(tmp_path, script, args=["--dry-run", "x"])

    assert report.stdout == "_hooks ['--dry-run', 'x']\n"
    assert not (tmp_path / "api" / "_hooks" / "x").exists()


def test_a_failing_hook_is_reported_with_its_exit_code_and_errors(tmp_path: Path) -> None:
    report = run(tmp_path, "raise SystemExit('no luck')")

    assert (report.ok, report.exit_code, report.stderr) == (False, 1, "no luck\n")


def test_a_hook_that_takes_too_long_is_ended_with_its_children(tmp_path: Path) -> None:
    report = run(tmp_path, "import subprocess; subprocess.run(['sleep', '60'])", timeout=0.5)

    assert (report.ok, report.timed_out) == (False, True)


LEAVES_A_DAEMON = """
import os, subprocess, sys, time
subprocess.Popen([sys.executable, "-c", "import os, time; os.setsid(); time.sleep(600)"])
subprocess.Popen(["sleep", "600"])
print("begun", flush=True)
"""


def carriers(variable: str) -> list[str]:
    """Return the processes that were started with this in their environment."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            if variable.encode() in path.read_bytes():
                found.append(path.parent.name)
    return found


def test_what_a_hook_leaves_running_ends_with_it(tmp_path: Path) -> None:
    report = run(tmp_path, LEAVES_A_DAEMON, {"environment": {"MARK": str(tmp_path)}})

    assert (report.ok, report.stdout) == (True, "begun\n")
    assert carriers(f"MARK={tmp_path}") == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_hooks_test_that_is_interrupted_leaves_nothing_behind(tmp_path: Path, number: signal.Signals) -> None:
    begun = tmp_path / "begun"
    ignores = f"import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nopen({str(begun)!r}, 'w').close()\ntime.sleep(600)"
    job = make_job(tmp_path, LEAVES_A_DAEMON + ignores)
    (tmp_path / "tmp").mkdir()
    command = [str(Path(sys.executable).with_name("maand")), "hooks", "test", str(job), "hook_x"]
    environment = {**os.environ, "TMPDIR": str(tmp_path / "tmp")}
    maand = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    wait_until(begun.exists)

    maand.send_signal(number)
    maand.communicate(timeout=60)

    assert maand.returncode == 130
    assert carriers(f"TMPDIR={tmp_path}/tmp") == []
    assert list((tmp_path / "tmp").iterdir()) == []


def test_semaphores_of_the_state_are_held_by_others(tmp_path: Path) -> None:
    script = (
        "from maand import *; print(acquire_semaphore('busy', timeout_seconds=1).status_code, semaphore_status('busy').json())"
    )

    report = run(tmp_path, script, {"allocations": ["10.0.0.1", "10.0.0.2"], "semaphores": {"busy": ["10.0.0.2"]}})

    assert report.stdout.startswith("408 ")
    assert "'available': 0" in report.stdout


def test_workers_answer_as_the_state_says_and_are_else_out_of_reach(tmp_path: Path) -> None:
    script = """
from maand import *
print(run_ssh(allocation_ip(), "uptime -p").stdout)
print(http_request("GET", "http://127.0.0.1:80/x")["body"])
run_ssh(allocation_ip(), "something else")
"""
    state = {"ssh": [{"command": "uptime*", "stdout": "up 3 days"}], "http": [{"url": "*/x", "body": "from x"}]}

    report = run(tmp_path, script, state)

    assert report.stdout == "up 3 days\nfrom x\n"
    assert "cannot be reached" in report.stderr


def test_a_typescript_hook_runs_with_bun(tmp_path: Path) -> None:
    script = 'import { jobName, putJobVariable } from "./maand"; (await putJobVariable("by", jobName())).raiseForStatus();'
    job = make_job(tmp_path, script, name="hook_x.ts")

    report = run_hook_test(job, "hook_x", runtime={"bun": str(find_bun())})

    assert report.ok, report.stderr
    assert report.state["vars/job/api"] == {"by": "api"}


def test_a_missing_hook_names_those_that_are_there(tmp_path: Path) -> None:
    job = make_job(tmp_path, "", name="hook_y.py")

    with pytest.raises(HookTestError, match=r"hook_x\.py.*it has hook_y\.py"):
        run_hook_test(job, "hook_x")


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"kvs": {}}, 'unknown key "kvs"'),
        ({"kv": []}, '"kv" in the state file must be of type dict'),
        ({"ssh": [{"comand": "x"}]}, 'unknown key "comand" in a reply'),
        ([], "one JSON object"),
    ],
)
def test_a_state_that_cannot_be_used_is_told_by_key(state: Any, message: str) -> None:
    with pytest.raises(BadState, match=message):
        MemoryState.from_json(state)


def test_an_event_that_maand_does_not_have_is_told(tmp_path: Path) -> None:
    with pytest.raises(HookTestError, match='"pre_deply" is not an event; use one of post_build, pre_deploy'):
        run(tmp_path, "", event="pre_deply")


def test_the_events_are_those_of_a_manifest() -> None:
    assert hook_runner.EVENTS == manifest.EVENTS


def test_an_allocation_that_the_state_does_not_have_is_told(tmp_path: Path) -> None:
    with pytest.raises(BadState, match=r"10\.9\.9\.9 is no allocation of the state"):
        run(tmp_path, "", allocation="10.9.9.9")


def test_the_pytest_fixture_runs_hooks(tmp_path: Path, run_hook: RunHook) -> None:
    job = make_job(tmp_path, "from maand import *; print(get_kv_value('vars/bucket', 'region'))")

    report = run_hook(job, "hook_x", state={"kv": {"vars/bucket": {"region": "eu"}}})

    assert report.stdout == "eu\n"
