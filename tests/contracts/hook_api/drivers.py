"""Three ways to make the calls of the table: raw HTTP, maand.py, maand.ts. Each takes a request and returns what came back."""

import http.client
import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, Self

from maand_hook_sdk import SDK_FILES
from tests.testbed.javascript import find_bun, find_node

HERE = Path(__file__).parent


class Driver(Protocol):
    """One way to call the hook API."""

    def call(self, environment: Mapping[str, str], request: Mapping[str, Any]) -> dict[str, Any]:
        """Make one call as the hook with this environment; return `{"status", "json"}`."""

    def close(self) -> None:
        """End it."""


class RawHttp:
    """Plain HTTP. GET and DELETE send their fields as a JSON body, which the SDKs never do."""

    def __init__(self) -> None:
        self._connections: dict[str, http.client.HTTPConnection] = {}

    def call(self, environment: Mapping[str, str], request: Mapping[str, Any]) -> dict[str, Any]:
        """Make one call."""
        address = f"{environment['HOOK_API_HOST']}:{environment['HOOK_API_PORT']}"
        connection = self._connections.setdefault(address, http.client.HTTPConnection(address, timeout=30))
        headers = {"content-type": "application/json"} | claims(environment)
        body = json.dumps(request["fields"]).encode() if request["fields"] else None
        connection.request(request["method"], request["path"], body=body, headers=headers)
        answer = connection.getresponse()
        content = answer.read()
        assert answer.headers.get_content_type() == "application/json"
        return {"status": answer.status, "json": json.loads(content)}

    def close(self) -> None:
        """Close connections."""
        for connection in self._connections.values():
            connection.close()


def claims(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the headers by which a hook says who it is."""
    token = environment.get("HOOK_API_TOKEN")
    return {
        "x-allocation-id": environment["ALLOCATION_ID"],
        "hook": environment["HOOK"],
        "event": environment["EVENT"],
    } | ({"authorization": f"Bearer {token}"} if token else {})


class SdkProcess:
    """A process beside a copy of the SDK that makes calls as it is told."""

    def __init__(self, command: list[str], directory: Path) -> None:
        self._process = subprocess.Popen(
            command, cwd=directory, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8"
        )

    @classmethod
    def python(cls, directory: Path) -> Self:
        """Start one that uses maand.py."""
        lay_out(directory, "runner.py")
        return cls([sys.executable, "runner.py"], directory)

    @classmethod
    def typescript(cls, directory: Path) -> Self:
        """Start one that uses maand.ts."""
        lay_out(directory, "runner.ts")
        return cls([str(find_bun()), "run", "runner.ts"], directory)

    @classmethod
    def node(cls, directory: Path) -> Self:
        """Start one that uses maand.ts under Node, its types erased by Bun: Node 20 does not do so by itself."""
        lay_out(directory, "runner.ts")
        build = [str(find_bun()), "build", "runner.ts", "--target", "node", "--outfile", "runner.mjs"]
        subprocess.run(build, cwd=directory, check=True, capture_output=True)
        return cls([str(find_node()), "runner.mjs"], directory)

    def call(self, environment: Mapping[str, str], request: Mapping[str, Any]) -> dict[str, Any]:
        """Make one call."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        line = {"environment": dict(environment), "args": [], "options": {}} | dict(request)
        self._process.stdin.write(json.dumps(line) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    def close(self) -> None:
        """End the process."""
        self._process.communicate(timeout=10)


def lay_out(directory: Path, runner: str) -> None:
    """Put the SDK and a runner into a directory, as maand puts the SDK beside a hook."""
    directory.mkdir(parents=True, exist_ok=True)
    for file in (*SDK_FILES, HERE / runner):
        shutil.copy(file, directory)
