"""The real command line and the real local services, as processes in a bucket of their own."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.command_line import Said
from tests.waiting import wait_until


@dataclass(kw_only=True)
class Maand:
    """Runs `maand` as a process."""

    bucket: Path
    environment: dict[str, str] = field(default_factory=dict)
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    def start(self, *args: str, **more: Any) -> subprocess.Popen[str]:
        """Start one command and return at once; what still runs when the test is over is ended by `end`."""
        process = subprocess.Popen(
            [sys.executable, "-m", "maand_cli", *args],
            cwd=self.bucket,
            env=clean(os.environ) | {"MAAND_IDLE_SECONDS": "60"} | self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **more,
        )
        self.started.append(process)
        return process

    def end(self) -> None:
        """End every command that still runs and the services, whatever the test left behind."""
        for process in self.started:
            with process:  # closes its pipes and waits for it
                process.kill()
        self.started.clear()
        self("services", "stop", "--within", "20")

    def __call__(self, *args: str) -> Said:
        """Run one command to its end."""
        process = self.start(*args)
        out, err = process.communicate(timeout=60)
        return Said(code=process.returncode, out=out, err=err)

    def must(self, *args: str) -> Said:
        """Run one command and insist on success."""
        said = self(*args)
        assert said.code == 0, (args, said, self.log())
        return said

    def services(self) -> dict[str, Any]:
        """Return what `services.json` says."""
        values: dict[str, Any] = json.loads((self.bucket / "run/services.json").read_text())
        return values

    def log(self) -> str:
        """Return the services' log."""
        path = self.bucket / "logs/services.log"
        return path.read_text() if path.exists() else ""


def clean(environment: Mapping[str, str]) -> dict[str, str]:
    """Return an environment that names no bucket and no services."""
    return {name: value for name, value in environment.items() if not name.startswith("MAAND_")}


@pytest.fixture
def maand(tmp_path: Path) -> Iterator[Maand]:
    """Make a bucket; end its services and every command afterwards, whatever happened."""
    directory = tmp_path / "bucket"
    directory.mkdir()
    maand = Maand(bucket=directory)
    maand.must("init")
    (directory / "workspace/workers.json").write_text("[]")
    yield maand
    maand.end()


def kill(pid: int) -> None:
    """Kill a process and wait until it is gone."""
    os.kill(pid, signal.SIGKILL)
    wait_until(
        lambda: not Path(f"/proc/{pid}").exists() or " Z " in Path(f"/proc/{pid}/stat").read_text(),
        what="the end of a killed process",
    )
