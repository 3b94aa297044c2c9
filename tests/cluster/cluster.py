"""A cluster of its own for tests: the project's compose file under another name, on other ports."""

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.maand import Bucket

ROOT = Path(__file__).parents[2]
PROJECT = "maand-test"


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """A running cluster; `config` is where its context and the people's files are."""

    config: Path

    @property
    def environment(self) -> dict[str, str]:
        """Say to Compose and to `maand` which cluster is meant."""
        return {
            "COMPOSE_PROJECT_NAME": PROJECT,
            "CATALOG1_PORT": "17600",
            "CATALOG2_PORT": "17610",
            "XDG_CONFIG_HOME": str(self.config),
            "MAAND": str(Path(sys.executable).parent / "maand"),
        }

    @property
    def people(self) -> Path:
        """Where CA and tokens of people are."""
        return self.config / "maand" / "cluster"

    def script(self, act: str) -> None:
        """Run scripts/cluster."""
        subprocess.run([ROOT / "scripts" / "cluster", act], env={**os.environ, **self.environment}, check=True, timeout=900)

    def bucket(self, directory: Path) -> Bucket:
        """Make a bucket whose commands speak to this cluster."""
        directory.mkdir()
        bucket = Bucket(path=directory, environment={**self.environment, "MAAND_CONTEXT": "cluster"})
        bucket.must("init")
        return bucket

    def container(self, service: str) -> str:
        """Return a service's container."""
        return docker(
            "ps", "-aq", "-f", f"label=com.docker.compose.project={PROJECT}", "-f", f"label=com.docker.compose.service={service}"
        ).strip()

    def kill(self, service: str) -> None:
        """End a service as a power failure does."""
        docker("kill", "--signal", "KILL", self.container(service))

    def stop(self, service: str) -> None:
        """Ask a service to stop, and wait until it has."""
        docker("stop", "--time", "20", self.container(service))

    def start(self, service: str) -> None:
        """Start a service that was ended."""
        docker("start", self.container(service))

    def wait_until_healthy(self, service: str, *, seconds: float = 120) -> None:
        """Return when a service that was started says that it is well."""
        ends = time.monotonic() + seconds
        while docker("inspect", "-f", "{{.State.Health.Status}}", self.container(service)).strip() != "healthy":
            assert time.monotonic() < ends, f"{service} is not healthy after {seconds:.0f} s"
            time.sleep(0.5)

    def copy(self, service: str, path: str, to: Path) -> None:
        """Copy a file out of a container, of its volumes too."""
        docker("cp", f"{self.container(service)}:{path}", str(to))

    def log(self, service: str) -> str:
        """Return what a service wrote."""
        return docker("logs", self.container(service))


def docker(*arguments: str) -> str:
    """Run the engine's client; return what it printed."""
    done = subprocess.run(
        ["docker", *arguments], check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120
    )
    return done.stdout


def engine_answers() -> bool:
    """Whether there is a container engine to start a cluster in."""
    try:
        return subprocess.run(["docker", "info"], capture_output=True, timeout=30, check=False).returncode == 0
    except FileNotFoundError:
        return False
