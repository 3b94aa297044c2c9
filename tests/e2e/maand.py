"""Running `maand` as a person does: a process in a bucket directory."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PROGRAM = Path(sys.executable).parent / "maand"


@dataclass(frozen=True, kw_only=True)
class Ended:
    """One command that ended."""

    command: str
    exit_code: int
    stdout: str
    stderr: str

    @property
    def output(self) -> str:
        """Everything it printed, as a person sees it."""
        return f"$ {self.command}\n{self.stdout}{self.stderr}[exit {self.exit_code}]"

    def json(self) -> Any:
        """Read the one document on standard output."""
        return json.loads(self.stdout)


@dataclass(frozen=True, kw_only=True)
class Bucket:
    """A bucket directory and the program that works on it."""

    path: Path
    environment: Mapping[str, str] = field(default_factory=dict)

    def run(self, *arguments: str, timeout: float = 90, stdin: str = "") -> Ended:
        """Run one command to its end."""
        ended = subprocess.run(
            [PROGRAM, *arguments],
            cwd=self.path,
            env=self._environment(),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        return Ended(command=" ".join(arguments), exit_code=ended.returncode, stdout=ended.stdout, stderr=ended.stderr)

    def must(self, *arguments: str, exit_code: int = 0, timeout: float = 90, stdin: str = "") -> Ended:
        """Run one command and insist on its exit code."""
        ended = self.run(*arguments, timeout=timeout, stdin=stdin)
        assert ended.exit_code == exit_code, ended.output
        return ended

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start one command and return at once."""
        return subprocess.Popen(
            [PROGRAM, *arguments],
            cwd=self.path,
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def write(self, path: str, text: str, *, mode: int = 0o644) -> None:
        """Write one file below the bucket."""
        file = self.path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(mode)

    def configure(self, **settings: object) -> None:
        """Append settings to maand.conf, replacing those that are there."""
        conf = self.path / "maand.conf"
        kept = [line for line in conf.read_text().splitlines() if line.split("=")[0].strip() not in settings]
        conf.write_text("\n".join([*kept, *(f"{key} = {json.dumps(value)}" for key, value in settings.items())]) + "\n")

    def stop_services(self) -> None:
        """Stop the services that the commands started."""
        self.run("services", "stop", timeout=30)

    def _environment(self) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith("MAAND_")}
        tools = f"{Path(sys.executable).parent}{os.pathsep}{kept.get('PATH', '')}"
        return {
            **kept,
            "PATH": tools,
            "MAAND_IDLE_SECONDS": "120",
            "XDG_CONFIG_HOME": str(self.path.parent / "config"),
            **self.environment,
        }
