"""How maand.ts behaves where the conformance table cannot look: connections that end, gateways that are not there."""

import os
import shutil
import socket
import subprocess
from pathlib import Path
from types import ModuleType

import pytest

from maand_hook_sdk import SDK_FILES
from tests.testbed.javascript import find_bun, find_node
from tests.unit.sdk.conftest import ENVIRONMENT
from tests.unit.sdk.gateways import TRACE, answering, dropping, serving


@pytest.fixture(params=["bun", "node"])
def run_ts(request: pytest.FixtureRequest, tmp_path: Path) -> "RunTs":
    """Run a script beside maand.ts, under Bun and under Node."""
    return RunTs(request.param, tmp_path)


class RunTs:
    """Runs scripts beside a copy of maand.ts."""

    def __init__(self, runtime: str, directory: Path) -> None:
        self._runtime = runtime
        self._directory = directory

    def __call__(self, script: str, port: int, *, token: str = ENVIRONMENT["HOOK_API_TOKEN"]) -> str:
        """Run a script, with a token unless that is empty; return what it printed."""
        shutil.copy(SDK_FILES[1], self._directory)
        (self._directory / "hook.ts").write_text(script)
        command = [str(find_bun()), "run", "hook.ts"]
        if self._runtime == "node":
            build = [str(find_bun()), "build", "hook.ts", "--target", "node", "--outfile", "hook.mjs"]
            subprocess.run(build, cwd=self._directory, check=True, capture_output=True)
            command = [str(find_node()), "hook.mjs"]
        environment = ENVIRONMENT | {"HOOK_API_PORT": str(port), "PATH": os.environ["PATH"], "HOME": str(self._directory)}
        environment |= {"HOOK_API_TOKEN": token}
        if not token:
            del environment["HOOK_API_TOKEN"]
        ended = subprocess.run(
            command, cwd=self._directory, env=environment, capture_output=True, text=True, timeout=60, check=False
        )
        assert ended.returncode == 0, ended.stderr
        return ended.stdout


def test_a_repeatable_request_survives_a_connection_that_ended_under_our_hands(run_ts: RunTs) -> None:
    seen: list[bytes] = []
    script = """
import { callApi, listHookDemands } from "./maand";
await listHookDemands();
console.log((await callApi("PUT", "/kv", { value: "x", if_absent: true })).statusCode);
"""
    with serving(dropping(1, seen=seen), answering(1, seen=seen)) as port:
        assert run_ts(script, port) == "200\n"

    assert seen[-1].split(b"\r\n")[0] == b"PUT /kv HTTP/1.1"


def test_a_request_says_which_trace_it_belongs_to(run_ts: RunTs) -> None:
    seen: list[bytes] = []
    script = 'import { listHookDemands } from "./maand"; await listHookDemands();'
    with serving(answering(1, seen=seen), answering(1, seen=seen)) as port:
        run_ts(script, port)
        run_ts(f'process.env.TRACEPARENT = "{TRACE}"; ' + script, port)

    untraced, traced = (request.decode().lower().split("\r\n") for request in seen)
    assert not any(line.startswith("traceparent:") for line in untraced)
    assert f"traceparent: {TRACE}" in traced


def test_a_command_is_not_sent_twice(run_ts: RunTs) -> None:
    seen: list[bytes] = []
    script = """
import { MaandError, callApi, listHookDemands } from "./maand";
await listHookDemands();
try {
  await callApi("POST", "/ssh", { worker: "w", command: "c" });
} catch (error) {
  console.log(error instanceof MaandError && error.message.includes("could not be reached"));
}
"""
    with serving(dropping(1, seen=seen)) as port:
        assert run_ts(script, port) == "true\n"

    assert [request.split(b"\r\n")[0] for request in seen].count(b"POST /ssh HTTP/1.1") == 1


def test_a_gateway_that_restarts_is_waited_for(run_ts: RunTs) -> None:
    script = """
import { callApi } from "./maand";
console.log((await callApi("POST", "/ssh", { worker: "w", command: "c" })).statusCode);
"""
    with serving(answering(1, seen=[]), after_seconds=1.5) as port:
        assert run_ts(script, port) == "200\n"


def test_by_hand_nobody_there_is_told_in_words_at_once(run_ts: RunTs) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    script = """
import { listHookDemands } from "./maand";
await listHookDemands().catch((error) => console.log(error.name, error.statusCode, error.message));
"""

    assert run_ts(script, port, token="").startswith(f"MaandError 0 the runtime API at 127.0.0.1:{port} could not be reached")


def test_a_notice_is_one_marked_line_for_each_line(run_ts: RunTs) -> None:
    printed = run_ts(r'import { notice } from "./maand"; notice("one\ntwo\r\nthree\n");', 1)

    assert printed == "".join(f"::maand-notice:: {line}\n" for line in ("one", "two", "three"))


def test_every_python_name_has_its_typescript_name(run_ts: RunTs, maand: ModuleType) -> None:
    exported = run_ts('import * as maand from "./maand"; console.log(Object.keys(maand).join(" "));', 1).split()

    assert {typescript_name(name) for name in maand.__all__} - set(exported) == set()


def typescript_name(name: str) -> str:
    """Return the name by which TypeScript knows a function or class of Python."""
    if name == "semaphore":
        return "withSemaphore"
    first, *others = name.split("_")
    return first + "".join(part.capitalize() for part in others)


def test_a_script_that_is_done_ends_at_once(run_ts: RunTs) -> None:
    seen: list[bytes] = []
    with serving(answering(2, seen=seen)) as port:
        run_ts('import { listHookDemands, notice } from "./maand"; await listHookDemands(); notice("a\\nb");', port)

    assert len(seen) == 1
